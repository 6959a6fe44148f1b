"""Documents that teach in-context skills: copying, induction, order, sums, brackets, and the tasks themselves.

A document is a list of ``(text, scored)``; scored pieces can be known from what stands before them and weigh fully in
the loss. A task document asks several questions over the same facts, and only items of the training split occur.
Easy things come first: ``progress`` from 0 to 1 opens harder levels and moves weight from drills to tasks.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from workbench import tasks
from workbench.tasks.item import TASKS, Item
from workbench.tasks.symbols import ANSWER_MARK, CLOSING, END, NUMBERS, OPENING, WORDS
from workbench.tasks.wording import SHIFT_VARIANT, VARIANTS, WORDINGS

Document = list[tuple[str, bool]]
QUESTIONS = 6  # most questions in one document
# Tasks that are learnt late, with parameters easier than level 1.
LATE: dict[str, tuple[tuple[int, ...], ...]] = {
    "two_hop": ((1, 2), (2, 0), (2, 1), (2, 2)),
    "rule": ((6, 1, 1), (8, 2, 1)),
    "modular_sum": ((2, 1, 3), (2, 1, 7), (2, 2, 0)),
    "addition": ((1, 9), (2, 4), (2, 9)),
}


def lesson(rng: random.Random, progress: float, hard: float) -> Document:
    """One document at random: a drill or a task, by progress; ``hard`` from 0 to 1 favours the late tasks."""
    if rng.random() < max(0.2, 0.75 - 0.9 * progress):
        weights = [first + (last - first) * min(progress, 1.0) for first, last in DRILLS.values()]
        drill = rng.choices(list(DRILLS), weights=weights)[0]
        return [*drill(rng, progress), (END, False)]
    late = hard > 0 and rng.random() < 0.6 * hard
    name = rng.choice(list(LATE) if late else tasks.names())
    return task_document(name, rng, progress, easier=late and rng.random() < 0.35)


def task_document(name: str, rng: random.Random, progress: float, *, easier: bool = False) -> Document:
    """A task's facts with one to six questions over them; ``easier`` than any level for the late tasks.

    Where a task has questions that lead up to its own, half of the documents ask some of them, first or last.
    """
    task = TASKS[name]
    reachable = 1 + (len(task.levels) - 1) * min(progress * 1.25, 1.0)
    level = rng.randint(1, min(len(task.levels), int(reachable + rng.random())))
    parameters = rng.choice(LATE[name]) if easier else task.parameters(level)
    item = task.draw(rng, parameters)
    while not item.belongs_to("train"):
        item = task.draw(rng, parameters)
    variant = rng.choice(VARIANTS)
    asked = [item, *trained(task.siblings(item, rng))[: QUESTIONS - 1]]
    steps = trained(task.steps(item, rng))[: QUESTIONS // 2]
    if steps and rng.random() < 0.5:
        asked = steps + asked if rng.random() < 0.5 else asked + steps
        asked = asked[:QUESTIONS]
    first, *more = asked
    document: Document = [(first.prompt(variant), False), (first.answer, True)]
    for other in more:
        document += [(other.question(variant), False), (other.answer, True)]
    return [*document, (END, task.free_form)]


def trained(items: list[Item]) -> list[Item]:
    """Those of the first few items that belong to the training split."""
    return [item for item in items[: 2 * QUESTIONS] if item.belongs_to("train")]


def copying(rng: random.Random, progress: float) -> Document:
    """A run of random symbols, repeated one to three times."""
    run = rng.choices(alphabet(rng), k=rng.randint(3, 8 + int(16 * min(progress * 2, 1))))
    rest = "".join(run[1:])
    document: Document = [("".join(run), False)]
    for _ in range(rng.randint(1, 3)):
        document += [(run[0], False), (rest, True)]
    return document


def induction(rng: random.Random, progress: float) -> Document:
    """Pairs in random order with repetitions: the partner of a symbol seen before is scored."""
    size = rng.randint(2, 4 + int(12 * min(progress * 2, 1)))
    keys, values = rng.sample(WORDS, size), rng.choices(alphabet(rng), k=size)
    separator = rng.choice(["", *(wording.separator for wording in WORDINGS[:SHIFT_VARIANT])])
    seen: set[str] = set()
    document: Document = []
    for _ in range(3 * size):
        chosen = rng.randrange(size)
        document += [(separator + keys[chosen], False), (values[chosen], keys[chosen] in seen)]
        seen.add(keys[chosen])
    return document


def progression(rng: random.Random, progress: float) -> Document:
    """Numbers that rise or fall by a constant step modulo 64."""
    step = rng.choice((1, -1, 1, -1, rng.randint(-8, 8), rng.randint(-31, 31)))
    start = rng.randrange(64)
    run = [NUMBERS[(start + i * step) % 64] for i in range(rng.randint(6, 20))]
    return [("".join(run[:2]), False), ("".join(run[2:]), True)]


def order(rng: random.Random, progress: float) -> Document:
    """Pairs of numbers, the smaller one named after the answer mark."""
    document: Document = []
    for _ in range(rng.randint(4, 10)):
        a, b = rng.sample(range(64), 2)
        document += [(NUMBERS[a] + NUMBERS[b] + ANSWER_MARK, False), (NUMBERS[min(a, b)], True)]
    return document


def small_sums(rng: random.Random, progress: float) -> Document:
    """Sums of two numbers modulo 61."""
    document: Document = []
    reach = 7 if rng.random() > progress else 60
    for _ in range(rng.randint(4, 10)):
        a, b = rng.randrange(61), rng.randint(0, reach)
        if rng.random() < 0.5:
            a, b = b, a
        document += [(NUMBERS[a] + "+" + NUMBERS[b] + ANSWER_MARK, False), (NUMBERS[(a + b) % 61], True)]
    return document


def rule_pairs(rng: random.Random, progress: float) -> Document:
    """Pairs of x and x + c modulo 64: from the second pair on every partner is scored."""
    reach = rng.choice((1, 3, 8, 31)[: 2 + int(2 * progress)])
    shift = rng.randint(-reach, reach)
    separator = rng.choice([wording.separator for wording in WORDINGS[:SHIFT_VARIANT]])
    facts: list[str] = []
    document: Document = []
    for x in rng.sample(range(64), rng.randint(6, 16)):
        y = NUMBERS[(x + shift) % 64]
        if Item("rule", tuple(facts), NUMBERS[x], y).belongs_to("train"):
            document += [(separator * bool(facts) + NUMBERS[x], False), (y, bool(facts))]
            facts.append(NUMBERS[x] + y)
    return document


def brackets(rng: random.Random, progress: float) -> Document:
    """Nested tags; every closing tag is scored, and no beginning is a held-out item of the task.

    Beginnings of more than eleven tags are too many to be met by chance.
    """
    depth = 2 + int(8 * progress)
    while True:
        document: Document = []
        opened: list[int] = []
        for _ in range(rng.randint(8, 12 + int(24 * progress))):
            if not opened or (len(opened) < depth and rng.random() < 0.5):
                opened.append(rng.randrange(len(OPENING)))
                document.append((OPENING[opened[-1]], False))
            else:
                document.append((CLOSING[opened.pop()], True))
        document += [(CLOSING[kind], True) for kind in reversed(opened)]
        beginnings = (document[:end] for end in range(4, 12) if document[end : end + 1] and document[end][1])
        if all(
            Item("stack_top", tuple(tag for tag, _ in facts), "", "").belongs_to("train")
            for facts in beginnings
        ):
            return document


def alphabet(rng: random.Random) -> tuple[str, ...]:
    """The numbers, the words, or both."""
    return rng.choice((NUMBERS, WORDS, NUMBERS + WORDS))


# Weight of each drill at the beginning and at the end of the curriculum.
DRILLS: dict[Callable[[random.Random, float], Document], tuple[float, float]] = {
    copying: (3, 1),
    induction: (4, 1),
    progression: (1, 1),
    order: (1, 1),
    small_sums: (1, 3),
    rule_pairs: (1, 2),
    brackets: (1, 1),
}
