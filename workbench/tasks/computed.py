"""Tasks whose answer is computed: order, sums, brackets, addition and sorting."""

from __future__ import annotations

import random

from workbench.tasks.in_context import shuffled
from workbench.tasks.item import Item, Task, register
from workbench.tasks.symbols import CLOSING, NUMBERS, OPENING


@register
class KthSmallest(Task):
    """The k-th smallest of n different numbers; the query is k."""

    name = "kth_smallest"
    summary = "the k-th smallest of a list of numbers"
    levels = ((3,), (4,), (5,), (6,), (8,), (12,), (16,), (24,), (32,))
    separator = ""

    def draw(self, rng: random.Random, parameters: tuple[int, ...]) -> Item:
        (size,) = parameters
        listed = rng.sample(range(64), size)
        rank = rng.randint(1, size)
        facts = tuple(NUMBERS[value] for value in listed)
        return Item(self.name, facts, NUMBERS[rank], NUMBERS[sorted(listed)[rank - 1]])

    def siblings(self, item: Item, rng: random.Random) -> list[Item]:
        ordered = sorted(NUMBERS.index(fact) for fact in item.facts)
        others = [
            Item(self.name, item.facts, NUMBERS[rank], NUMBERS[value])
            for rank, value in enumerate(ordered, start=1)
            if NUMBERS[rank] != item.query
        ]
        rng.shuffle(others)
        return others

    def distractors(self, item: Item, rng: random.Random) -> list[str]:
        return shuffled(item.facts, rng) + shuffled(NUMBERS, rng)


@register
class ModularSum(Task):
    """The sum of several numbers modulo 61; the easier levels mix in small addends."""

    name = "modular_sum"
    summary = "a sum modulo 61"
    levels = ((4, 1, 3), (3, 1, 7), (3, 1, 12), (3, 1, 20), (3, 2, 7), (3, 3, 0), (4, 4, 0), (6, 6, 0))
    separator = "+"
    modulus = 61

    def draw(self, rng: random.Random, parameters: tuple[int, ...]) -> Item:
        size, wide, small = parameters
        addends = [rng.randrange(self.modulus) for _ in range(wide)]
        addends += [rng.randint(0, small or self.modulus - 1) for _ in range(size - wide)]
        rng.shuffle(addends)
        facts = tuple(NUMBERS[value] for value in addends)
        return Item(self.name, facts, "", NUMBERS[sum(addends) % self.modulus])

    def distractors(self, item: Item, rng: random.Random) -> list[str]:
        right = NUMBERS.index(item.answer)
        near = [NUMBERS[(right + step) % self.modulus] for step in (-3, -2, -1, 1, 2, 3)]
        return shuffled([*near, *item.facts], rng) + shuffled(NUMBERS[: self.modulus], rng)


@register
class StackTop(Task):
    """Which closing tag must come next, after a run of opening and closing tags of 32 types?"""

    name = "stack_top"
    summary = "the closing tag that must come next"
    levels = ((4, 4), (4, 3), (8, 3), (12, 4), (20, 6), (32, 8), (48, 10), (64, 12))
    separator = ""

    def draw(self, rng: random.Random, parameters: tuple[int, ...]) -> Item:
        size, depth = parameters
        facts: list[str] = []
        opened: list[int] = []
        while len(facts) < size or not opened:
            must_open = not opened or (depth == size and len(facts) < size)
            if must_open or (len(opened) < depth and rng.random() < 0.5):
                opened.append(rng.randrange(len(OPENING)))
                facts.append(OPENING[opened[-1]])
            else:
                facts.append(CLOSING[opened.pop()])
        return Item(self.name, tuple(facts), "", CLOSING[opened[-1]])

    def distractors(self, item: Item, rng: random.Random) -> list[str]:
        seen = [CLOSING[OPENING.index(fact)] for fact in item.facts if fact in OPENING]
        return shuffled(seen, rng) + shuffled(CLOSING, rng)


@register
class Addition(Task):
    """Addition of two numbers, free form, every number written with its least digit first."""

    name = "addition"
    summary = "a sum of two numbers, least digit first"
    levels = ((4, 4), (3, 9), (4, 9), (5, 9), (6, 9), (8, 9), (10, 9), (12, 9))
    separator = "+"
    free_form = True

    def draw(self, rng: random.Random, parameters: tuple[int, ...]) -> Item:
        size, highest = parameters  # with digits up to 4 nothing is ever carried
        digits = [[rng.randint(0, highest) for _ in range(size)] for _ in range(2)]
        for number in digits:
            number[-1] = max(number[-1], 1)
        facts = tuple("".join(map(str, number)) for number in digits)
        return Item(self.name, facts, "", backwards(sum(int(fact[::-1]) for fact in facts)))

    def distractors(self, item: Item, rng: random.Random) -> list[str]:
        right = int(item.answer[::-1])
        steps = [
            sign * digit * 10**place
            for place in range(len(item.answer))
            for digit in (1, 2, 5)
            for sign in (1, -1)
        ]
        return [backwards(right + step) for step in rng.sample(steps, len(steps)) if right + step > 0]


@register
class Sorting(Task):
    """Numbers in ascending order, free form."""

    name = "sorting"
    summary = "a list of numbers in ascending order"
    levels = ((3,), (5,), (8,), (12,), (16,), (24,), (32,))
    separator = ""
    free_form = True

    def draw(self, rng: random.Random, parameters: tuple[int, ...]) -> Item:
        (size,) = parameters
        listed = rng.sample(range(64), size)
        facts = tuple(NUMBERS[value] for value in listed)
        return Item(self.name, facts, "", "".join(NUMBERS[value] for value in sorted(listed)))

    def distractors(self, item: Item, rng: random.Random) -> list[str]:
        ordered = sorted(NUMBERS.index(fact) for fact in item.facts)
        wrong = ["".join(item.facts)]
        for _ in range(64):  # two places swapped, or one number replaced by its neighbour
            changed = list(ordered)
            first, second = rng.sample(range(len(changed)), 2)
            if rng.random() < 0.5:
                changed[first], changed[second] = changed[second], changed[first]
            else:
                changed[first] = (changed[first] + rng.choice((-1, 1))) % 64
            wrong.append("".join(NUMBERS[value] for value in changed))
        return wrong


def backwards(number: int) -> str:
    """Decimal digits of a number, least digit first."""
    return str(number)[::-1]
