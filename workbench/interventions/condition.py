"""Conditions on tokens: a small closed language, read into data and never executed as code.

    margin < 0.05                              the router was undecided here
    entropy.2 >= 1.5 and not part == 'prompt'  what layer 2 computed for this token, earlier in the same pass
    text ~ '^ [A-Z]' or label.language == 'en'

A comparison names one fact of a token. **margin**, **entropy** and **top_weight** are those of the layer's router before
any edit, or with ``.N`` those of layer N (see :mod:`workbench.signals.routing`). **position** is absolute, **token** the
id in the vocabulary, **text** what the id stands for, **part** ``'prompt'`` or ``'generated'``, **label.KEY** a label of the
run. ``text`` also takes ``~``, a regular expression that is searched for. Comparisons are joined by ``and``, ``or``, ``not``
and parentheses; a text stands in single or double quotes and knows no escapes.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

SIGNALS = ("margin", "entropy", "top_weight")
"""What a condition may ask of a router: of the native choice, before any edit."""

NUMBERS = (*SIGNALS, "position", "token")
PARTS = ("prompt", "generated")
MAX_LENGTH = 400
_MAX_DEPTH = 20

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip

_WORD = re.compile(
    r"\s*(?:(?P<text>'[^']*'|\"[^\"]*\")|(?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])"
    r"|(?P<name>[a-z_]+(?:\.\w+)?)|(?P<sign><=|>=|==|!=|[<>~()]))"
)

Literals: TypeAlias = str | float | bool


@dataclass(frozen=True)
class Comparison:
    """One fact of a token compared with a constant.

    ``name`` is a word of the language, ``layer`` the layer of a signal (``None``: the layer of the edit), ``key`` that of a
    label.
    """

    name: str
    sign: str
    value: Literals
    layer: int | None = None
    key: str | None = None

    def __str__(self) -> str:
        what = self.name if self.layer is None else f"{self.name}.{self.layer}"
        return f"{what if self.key is None else f'label.{self.key}'} {self.sign} {_written(self.value)}"

    def compare(self, fact: Any) -> Any:
        """``fact`` (a number, a text or a tensor of numbers) compared with the constant."""
        if self.sign == "~":
            return re.search(str(self.value), fact) is not None
        return _COMPARE[self.sign](fact, self.value)


@dataclass(frozen=True)
class Not:
    """The tokens for which ``part`` does not hold."""

    part: Condition

    def __str__(self) -> str:
        return f"not {_bracketed(self.part)}"


@dataclass(frozen=True)
class Joined:
    """The tokens for which all (``and``) or any (``or``) of ``parts`` hold."""

    word: Literal["and", "or"]
    parts: tuple[Condition, ...]

    def __str__(self) -> str:
        return f" {self.word} ".join(_bracketed(part) for part in self.parts)


Condition: TypeAlias = Comparison | Not | Joined


def comparisons(condition: Condition) -> Iterator[Comparison]:
    """Every comparison in ``condition``."""
    if isinstance(condition, Comparison):
        yield condition
    elif isinstance(condition, Not):
        yield from comparisons(condition.part)
    else:
        for part in condition.parts:
            yield from comparisons(part)


def evaluate(condition: Condition, fact: Callable[[Comparison], Any]) -> Any:
    """``condition`` from what ``fact`` says of each comparison: masks of tokens, or what else knows ``& | ~``."""
    if isinstance(condition, Comparison):
        return fact(condition)
    if isinstance(condition, Not):
        return ~evaluate(condition.part, fact)
    join = operator.and_ if condition.word == "and" else operator.or_
    found = evaluate(condition.parts[0], fact)
    for part in condition.parts[1:]:
        found = join(found, evaluate(part, fact))
    return found


@lru_cache(maxsize=256)
def parse(text: str) -> Condition:
    """Read a condition; ``parse(str(condition)) == condition``. Raises ValueError that names what cannot be read."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a condition of {len(text)} characters is longer than {MAX_LENGTH}")
    words = _Words(text)
    found = _either(words, 0)
    if words.next is not None:
        raise ValueError(f"{words.next!r} is not expected after {text[: words.start].strip()!r}")
    return found


class _Words:
    """The words of a condition, read one ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._stop = 0
        self.start = 0
        self.kind: str | None = None
        self.next: str | None = None
        self.take()

    def take(self) -> str:
        taken = self.next
        self.start = self._stop
        if not self._text[self._stop :].strip():
            self.kind = self.next = None
        else:
            match = _WORD.match(self._text, self._stop)
            if match is None:
                raise ValueError(
                    f"{self._text[self._stop :].strip()!r} cannot be read as part of a condition"
                )
            self._stop, self.kind = match.end(), match.lastgroup
            self.next = match[match.lastgroup or 0]
        return taken or ""


def _either(words: _Words, depth: int) -> Condition:
    return _joined("or", words, lambda: _joined("and", words, lambda: _single(words, depth)))


def _joined(word: Literal["and", "or"], words: _Words, part: Callable[[], Condition]) -> Condition:
    parts = [part()]
    while words.next == word:
        words.take()
        parts.append(part())
    flat = [
        p for one in parts for p in (one.parts if isinstance(one, Joined) and one.word == word else (one,))
    ]
    return flat[0] if len(flat) == 1 else Joined(word, tuple(flat))


def _single(words: _Words, depth: int) -> Condition:
    if depth > _MAX_DEPTH:
        raise ValueError(f"a condition may be nested {_MAX_DEPTH} deep at most")
    if words.next == "not":
        words.take()
        return Not(_single(words, depth + 1))
    if words.next == "(":
        words.take()
        inside = _either(words, depth + 1)
        if words.next != ")":
            raise ValueError("a parenthesis is not closed")
        words.take()
        return inside
    return _comparison(words)


def _comparison(words: _Words) -> Comparison:
    if words.kind != "name":
        found = "it ends" if words.next is None else f"{words.next!r} stands"
        raise ValueError(f"{found} where a name is expected ({', '.join(NUMBERS)}, text, part, label.KEY)")
    name, _, detail = words.take().partition(".")
    if words.kind != "sign" or words.next in ("(", ")"):
        raise ValueError(f"after {name!r} one of < <= > >= == != ~ is expected")
    sign = words.take()
    if words.kind not in ("text", "number") and words.next not in ("true", "false"):
        raise ValueError(f"after {sign!r} a number, a text in quotes, true or false is expected")
    kind, word = words.kind, words.take()
    value = word[1:-1] if kind == "text" else float(word) if kind == "number" else word == "true"
    return _checked(name, detail, sign, value)


def _checked(name: str, detail: str, sign: str, value: Literals) -> Comparison:
    if name == "label" and detail:
        if sign == "~" or (sign not in ("==", "!=") and not _is_number(value)):
            raise ValueError(f"label.{detail} is compared by == or !=, or with a number by < <= > >=")
        return Comparison(name, sign, value, key=detail)
    if name in NUMBERS:
        if not _is_number(value) or sign == "~":
            raise ValueError(f"{name} is a number: compare it with a number")
        if detail and (name not in SIGNALS or not detail.isdecimal()):
            raise ValueError(
                f"{name}.{detail} is not known: a layer number follows {', '.join(SIGNALS)} only"
            )
        return Comparison(name, sign, value, layer=int(detail) if detail else None)
    if name == "text" and not detail:
        if not isinstance(value, str) or sign not in ("==", "!=", "~"):
            raise ValueError("text is compared with a text in quotes by ==, != or ~")
        if sign == "~":
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"{value!r} is not a regular expression: {error}") from None
        return Comparison(name, sign, value)
    if name == "part" and not detail:
        if value not in PARTS or sign not in ("==", "!="):
            raise ValueError("part is compared with 'prompt' or 'generated' by == or !=")
        return Comparison(name, sign, value)
    whole = f"{name}.{detail}" if detail else name
    raise ValueError(f"{whole!r} is not known; names are {', '.join(NUMBERS)}, text, part and label.KEY")


def _is_number(value: Literals) -> bool:
    return isinstance(value, float) and not isinstance(value, bool)


def _written(value: Literals) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return f"'{value}'" if "'" not in value else f'"{value}"'


def _bracketed(condition: Condition) -> str:
    return f"({condition})" if isinstance(condition, Joined) else str(condition)
