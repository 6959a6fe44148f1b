"""Tasks whose answer stands in the prompt or follows from a rule shown there."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from workbench.tasks.item import Item, Task, register
from workbench.tasks.symbols import NUMBERS, WORDS

Anything = TypeVar("Anything")


@register
class Recall(Task):
    """Key-value recall: which number stands beside this word, or beside this pair of words?

    Pairs are drawn from few first and few second words, so that neither word of a pair tells the value alone.
    """

    name = "recall"
    summary = "the number that stands beside a word or beside two words"
    levels = ((4, 1), (8, 1), (16, 1), (32, 1), (6, 2), (8, 2), (12, 2), (16, 2), (24, 2), (32, 2), (48, 2))

    def draw(self, rng: random.Random, parameters: tuple[int, ...]) -> Item:
        size, words = parameters
        if words == 1:
            keys = rng.sample(WORDS, size)
        else:
            side = math.isqrt(2 * size - 1) + 1
            first, second = rng.sample(WORDS, side), rng.sample(WORDS, side)
            keys = [first[pair // side] + second[pair % side] for pair in rng.sample(range(side**2), size)]
        values = rng.sample(NUMBERS, size)
        asked = rng.randrange(size)
        facts = tuple(key + value for key, value in zip(keys, values, strict=True))
        return Item(self.name, facts, keys[asked], values[asked])

    def siblings(self, item: Item, rng: random.Random) -> list[Item]:
        pairs = [self.pair(fact) for fact in item.facts]
        rng.shuffle(pairs)
        return [Item(self.name, item.facts, key, value) for key, value in pairs if key != item.query]

    def distractors(self, item: Item, rng: random.Random) -> list[str]:
        present = [self.pair(fact)[1] for fact in item.facts]
        return shuffled(present, rng) + shuffled(NUMBERS, rng)

    @staticmethod
    def pair(fact: str) -> tuple[str, str]:
        """Key and value of a fact."""
        *key, value = symbols(fact)
        return "".join(key), value


@register
class TwoHop(Task):
    """Two-hop recall: a word points to a word, and that one to a number.

    The second parameter orders the facts: 0 sets each pair of links side by side, 1 shows the first links before the
    second ones, 2 shuffles all.
    """

    name = "two_hop"
    summary = "the number reached from a word over a second word"
    levels = ((4, 0), (3, 1), (3, 2), (4, 1), (4, 2), (6, 2), (8, 2), (12, 2))

    def draw(self, rng: random.Random, parameters: tuple[int, ...]) -> Item:
        size, mixed = parameters
        words, values = rng.sample(WORDS, 2 * size), rng.sample(NUMBERS, size)
        starts, middles = words[:size], words[size:]
        first = [start + middle for start, middle in zip(starts, middles, strict=True)]
        second = [middle + value for middle, value in zip(middles, values, strict=True)]
        if mixed == 0:
            facts = [fact for pair in zip(first, second, strict=True) for fact in pair]
        elif mixed == 1:
            facts = first + shuffled(second, rng)
        else:
            facts = shuffled(first + second, rng)
        asked = rng.randrange(size)
        return Item(self.name, tuple(facts), starts[asked], values[asked])

    def siblings(self, item: Item, rng: random.Random) -> list[Item]:
        links = dict(symbols(fact) for fact in item.facts)
        starts = [word for word in links if links[word] in links and word != item.query]
        return [Item(self.name, item.facts, start, links[links[start]]) for start in shuffled(starts, rng)]

    def distractors(self, item: Item, rng: random.Random) -> list[str]:
        present = [end for _, end in (symbols(fact) for fact in item.facts) if end in NUMBERS]
        return shuffled(present, rng) + shuffled(NUMBERS, rng)


@register
class Lexicon(Task):
    """Translation from demonstrations: phrases of two made-up languages side by side.

    The third parameter is 0 where word order is kept and 1 where the right side is in random order: then a word's
    translation is the only one that stands in every phrase with it.
    """

    name = "lexicon"
    summary = "the translation of a word, inferred from translated phrases"
    levels = (
        (4, 1, 0),
        (8, 2, 0),
        (12, 3, 0),
        (16, 3, 0),
        (6, 3, 1),
        (8, 3, 1),
        (12, 3, 1),
        (8, 4, 1),
        (12, 4, 1),
        (16, 4, 1),
    )
    source, target = WORDS[:32], WORDS[32:]

    def draw(self, rng: random.Random, parameters: tuple[int, ...]) -> Item:
        size, length, mixed = parameters
        left, right = rng.sample(self.source, size), rng.sample(self.target, size)
        offsets = self.offsets(rng, size, length)
        facts = []
        for first in range(size):
            entries = [(first + offset) % size for offset in offsets]
            opposite = shuffled(entries, rng) if mixed else entries
            facts.append("".join(left[i] for i in entries) + "=" + "".join(right[i] for i in opposite))
        asked = rng.randrange(size)
        return Item(self.name, tuple(shuffled(facts, rng)), left[asked], right[asked])

    @staticmethod
    def offsets(rng: random.Random, size: int, length: int) -> list[int]:
        """Which entries share a phrase, as steps on a ring: every entry occurs once at each place of the phrases.

        Steps that map onto themselves by a turn of the ring are drawn again, since two entries would then occur in
        the very same phrases.
        """
        while True:
            drawn = rng.sample(range(size), length)
            turned = [{(offset + turn) % size for offset in drawn} for turn in range(1, size)]
            if set(drawn) not in turned:
                return drawn

    def siblings(self, item: Item, rng: random.Random) -> list[Item]:
        others = [(word, meaning) for word, meaning in self.entries(item).items() if word != item.query]
        return [Item(self.name, item.facts, word, meaning) for word, meaning in shuffled(others, rng)]

    def distractors(self, item: Item, rng: random.Random) -> list[str]:
        return shuffled(list(self.entries(item).values()), rng) + shuffled(self.target, rng)

    @staticmethod
    def entries(item: Item) -> dict[str, str]:
        """The lexicon that the demonstrations of an item show: what stands in every phrase with a word."""
        lexicon: dict[str, set[str]] = {}
        for fact in item.facts:
            left, right = (symbols(side) for side in fact.split("="))
            for word in left:
                lexicon[word] = lexicon.get(word, set(right)) & set(right)
        return {word: meaning for word, (meaning,) in lexicon.items()}


@register
class Rule(Task):
    """Rule inference modulo 64: pairs of x and a * x + c are shown, a new x is asked."""

    name = "rule"
    summary = "the next value of a rule a * x + c modulo 64 that examples show"
    levels = ((4, 1, 1), (4, 2, 1), (6, 3, 1), (4, 3, 1), (5, 8, 1), (6, 31, 1), (6, 8, 2), (8, 31, 5))
    factors = (1, 63, 2, 3, 5)

    def draw(self, rng: random.Random, parameters: tuple[int, ...]) -> Item:
        size, reach, choice_of_factors = parameters
        factor = rng.choice(self.factors[:choice_of_factors])
        shift = rng.randint(-reach, reach)
        *shown, asked = rng.sample(range(64), size + 1)
        facts = tuple(NUMBERS[x] + NUMBERS[(factor * x + shift) % 64] for x in shown)
        return Item(self.name, facts, NUMBERS[asked], NUMBERS[(factor * asked + shift) % 64])

    def siblings(self, item: Item, rng: random.Random) -> list[Item]:
        shown = [[NUMBERS.index(symbol) for symbol in symbols(fact)] for fact in item.facts]
        known = {x for x, _ in shown} | {NUMBERS.index(item.query)}
        first_x, first_y = shown[0]
        fitting = {(a, (first_y - a * first_x) % 64) for a in self.factors}
        fitting = {(a, c) for a, c in fitting if all((a * x + c) % 64 == y for x, y in shown)}
        if (
            len(fitting) > 1
        ):  # the examples leave the rule open, so only the item's own question has one answer
            return []
        ((factor, shift),) = fitting
        others = [x for x in range(64) if x not in known]
        rng.shuffle(others)
        return [Item(self.name, item.facts, NUMBERS[x], NUMBERS[(factor * x + shift) % 64]) for x in others]

    def distractors(self, item: Item, rng: random.Random) -> list[str]:
        right = NUMBERS.index(item.answer)
        near = [NUMBERS[(right + step) % 64] for step in (-3, -2, -1, 1, 2, 3)]
        shown = [symbols(fact)[1] for fact in item.facts]
        return shuffled([*near, item.query, *shown], rng) + shuffled(NUMBERS, rng)


@register
class MostFrequent(Task):
    """Which word occurs most often in a list?"""

    name = "most_frequent"
    summary = "the word that occurs most often in a list"
    levels = ((6, 4, 1), (9, 4, 1), (12, 4, 2), (12, 4, 3), (20, 5, 4), (30, 6, 5), (40, 7, 6), (56, 8, 7))
    separator = ""

    def draw(self, rng: random.Random, parameters: tuple[int, ...]) -> Item:
        size, most, cap = parameters
        winner, *others = rng.sample(WORDS, len(WORDS))
        listed = [winner] * most
        for word in others:
            room = size - len(listed)
            if room == 0:
                break
            listed += [word] * min(room, rng.randint(1, cap))
        rng.shuffle(listed)
        return Item(self.name, tuple(listed), "", winner)

    def distractors(self, item: Item, rng: random.Random) -> list[str]:
        present = [word for word, _ in Counter(shuffled(item.facts, rng)).most_common()]
        return present + shuffled(WORDS, rng)


def symbols(text: str) -> list[str]:
    """Splits a run of symbols: ``<bak><17>`` into ``["<bak>", "<17>"]``."""
    return [part + ">" for part in text.split(">") if part]


def shuffled(options: Sequence[Anything], rng: random.Random) -> list[Anything]:
    """The options in random order, as a new list."""
    return rng.sample(options, len(options))
