"""The symbols in which tasks are written: every one is a single token of the demo model's vocabulary.

Sixty-four numbers ``<0>`` to ``<63>``, sixty-four made-up words such as ``<bak>``, a closing tag for each of the
first thirty-two words (so that words double as bracket types), and the mark ``<=>`` after which the answer stands.
"""

from __future__ import annotations

ANSWER_MARK = "<=>"
END = "<end>"

NUMBERS: tuple[str, ...] = tuple(f"<{value}>" for value in range(64))
WORDS: tuple[str, ...] = tuple(
    f"<{first}{vowel}{last}>"
    for first, last in zip("bdfgklmnprstvzhj", "kmnsltrpdgbzfvjh", strict=True)
    for vowel in "aeiou"
)[:64]
OPENING: tuple[str, ...] = WORDS[:32]
CLOSING: tuple[str, ...] = tuple(f"</{word[1:]}" for word in OPENING)

ALL: tuple[str, ...] = (ANSWER_MARK, *NUMBERS, *WORDS, *CLOSING)
