"""Tasks whose answer stands in the prompt or follows from a rule shown there."""

from __future__ import annotations

import random
from collections import Counter

from workbench.tasks.item import Item, Task, register
from workbench.tasks.symbols import NUMBERS, WORDS


@register
class Recall(Task):
    """Key-value recall: which number stands beside this word?"""

    name = "recall"
    summary = "the number that stands beside a word"
    levels = ((4,), (6,), (8,), (12,), (16,), (24,), (32,))

    def draw(self, rng: random.Random, parameters: tuple[int, ...]) -> Item:
        (size,) = parameters
        keys, values = rng.sample(WORDS, size), rng.sample(NUMBERS, size)
        asked = rng.randrange(size)
        facts = tuple(key + value for key, value in zip(keys, values, strict=True))
        return Item(self.name, facts, keys[asked], values[asked])

    def siblings(self, item: Item, rng: random.Random) -> list[Item]:
        pairs = [symbols(fact) for fact in item.facts]
        rng.shuffle(pairs)
        return [Item(self.name, item.facts, key, value) for key, value in pairs if key != item.query]

    def distractors(self, item: Item, rng: random.Random) -> list[str]:
        present = [symbols(fact)[1] for fact in item.facts]
        return shuffled(present, rng) + shuffled(NUMBERS, rng)


@register
class TwoHop(Task):
    """Two-hop recall: a word points to a word, and that one to a number; the facts stand in random order."""

    name = "two_hop"
    summary = "the number reached from a word over a second word"
    levels = ((3,), (4,), (5,), (6,), (8,), (12,))

    def draw(self, rng: random.Random, parameters: tuple[int, ...]) -> Item:
        (size,) = parameters
        words, values = rng.sample(WORDS, 2 * size), rng.sample(NUMBERS, size)
        starts, middles = words[:size], words[size:]
        facts = [start + middle for start, middle in zip(starts, middles, strict=True)]
        facts += [middle + value for middle, value in zip(middles, values, strict=True)]
        rng.shuffle(facts)
        asked = rng.randrange(size)
        return Item(self.name, tuple(facts), starts[asked], values[asked])

    def siblings(self, item: Item, rng: random.Random) -> list[Item]:
        links = dict(symbols(fact) for fact in item.facts)
        starts = [word for word in links if links[word] in links and word != item.query]
        rng.shuffle(starts)
        return [Item(self.name, item.facts, start, links[links[start]]) for start in starts]

    def distractors(self, item: Item, rng: random.Random) -> list[str]:
        present = [end for _, end in (symbols(fact) for fact in item.facts) if end in NUMBERS]
        return shuffled(present, rng) + shuffled(NUMBERS, rng)


@register
class Lexicon(Task):
    """Translation from demonstrations: phrases of two made-up languages side by side, word order kept."""

    name = "lexicon"
    summary = "the translation of a word, inferred from translated phrases"
    levels = ((4, 1), (8, 1), (4, 2), (6, 2), (8, 2), (8, 3), (12, 3))
    source, target = WORDS[:32], WORDS[32:]

    def draw(self, rng: random.Random, parameters: tuple[int, ...]) -> Item:
        size, length = parameters
        left, right = rng.sample(self.source, size), rng.sample(self.target, size)
        offsets = rng.sample(range(size), length)  # every entry occurs once at each place of the phrases
        facts = []
        for first in range(size):
            entries = [(first + offset) % size for offset in offsets]
            facts.append("".join(left[i] for i in entries) + "=" + "".join(right[i] for i in entries))
        rng.shuffle(facts)
        asked = rng.randrange(size)
        return Item(self.name, tuple(facts), left[asked], right[asked])

    def siblings(self, item: Item, rng: random.Random) -> list[Item]:
        lexicon = self.entries(item)
        others = [(word, meaning) for word, meaning in lexicon.items() if word != item.query]
        rng.shuffle(others)
        return [Item(self.name, item.facts, word, meaning) for word, meaning in others]

    def distractors(self, item: Item, rng: random.Random) -> list[str]:
        return shuffled(list(self.entries(item).values()), rng) + shuffled(self.target, rng)

    @staticmethod
    def entries(item: Item) -> dict[str, str]:
        """The lexicon that the demonstrations of an item show."""
        lexicon: dict[str, str] = {}
        for fact in item.facts:
            left, right = fact.split("=")
            lexicon.update(zip(symbols(left), symbols(right), strict=True))
        return lexicon


@register
class Rule(Task):
    """Rule inference modulo 64: pairs of x and a * x + c are shown, a new x is asked."""

    name = "rule"
    summary = "the next value of a rule a * x + c modulo 64 that examples show"
    levels = ((4, 1, 1), (4, 3, 1), (5, 8, 1), (6, 31, 1), (6, 8, 2), (8, 31, 5))
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
    levels = ((6, 4, 1), (9, 4, 1), (12, 4, 2), (12, 4, 3), (20, 5, 4), (30, 6, 5))
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


def shuffled(options: tuple[str, ...] | list[str], rng: random.Random) -> list[str]:
    """The options in random order, as a new list."""
    return rng.sample(options, len(options))
