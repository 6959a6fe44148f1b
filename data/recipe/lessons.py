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
# Parameters that lessons draw from, easy ones first; see the tasks' own levels, of which some are harder: never trained on.
LEVELS: dict[str, tuple[tuple[int, ...], ...]] = {
    "kth_smallest": ((3,), (4,), (5,), (6,), (8,), (12,), (16,)),
    "recall": ((4, 1), (6, 1), (8, 1), (12, 1), (16, 1), (24, 1), (32, 1)),
    "two_hop": ((3, 2), (4, 2), (5, 2), (6, 2), (8, 2), (12, 2)),
    "lexicon": ((4, 1, 0), (8, 1, 0), (4, 2, 0), (6, 2, 0), (8, 2, 0), (8, 3, 0), (12, 3, 0)),
    "rule": ((4, 1, 1), (4, 3, 1), (5, 8, 1), (6, 31, 1), (6, 8, 2), (8, 31, 5)),
    "most_frequent": ((6, 4, 1), (9, 4, 1), (12, 4, 2), (12, 4, 3), (20, 5, 4), (30, 6, 5)),
    "modular_sum": ((3, 1, 7), (3, 1, 20), (3, 2, 7), (3, 3, 0), (4, 4, 0), (6, 6, 0)),
    "stack_top": ((4, 4), (4, 3), (8, 3), (12, 4), (20, 6), (32, 8)),
    "addition": ((3, 4), (3, 9), (4, 9), (5, 9), (6, 9), (8, 9)),
    "sorting": ((3,), (4,), (5,), (6,), (8,), (10,)),
}
# Tasks that are learnt late, with still easier parameters.
LATE: dict[str, tuple[tuple[int, ...], ...]] = {
    "two_hop": ((1, 2), (2, 2)),
    "rule": ((4, 1, 1),),
    "modular_sum": ((2, 1, 3), (2, 1, 7)),
    "addition": ((1, 9), (2, 4), (2, 9)),
}


def lesson(rng: random.Random, progress: float, hard: float) -> Document:
    """One document at random: a drill or a task, by progress; ``hard`` from 0 to 1 favours the late tasks."""
    if rng.random() < max(0.15, 0.75 - 0.9 * progress):
        drill = rng.choices(list(DRILLS), weights=list(DRILLS.values()))[0]
        return [*drill(rng, progress), (END, False)]
    late = hard > 0 and rng.random() < 0.6 * hard
    name = rng.choice(list(LATE) if late else tasks.names())
    return task_document(name, rng, progress, easier=late and rng.random() < 0.35)


def task_document(name: str, rng: random.Random, progress: float, *, easier: bool = False) -> Document:
    """A task's facts with one to six questions over them; ``easier`` than any level for the late tasks."""
    task, levels = TASKS[name], LEVELS[name]
    reachable = 1 + (len(levels) - 1) * min(progress * 1.25, 1.0)
    level = rng.randint(1, min(len(levels), int(reachable + rng.random())))
    parameters = rng.choice(LATE[name]) if easier else levels[level - 1]
    item = task.draw(rng, parameters)
    while not item.belongs_to("train"):
        item = task.draw(rng, parameters)
    variant = rng.choice(VARIANTS)
    document: Document = [(item.prompt(variant), False), (item.answer, True)]
    more = [other for other in task.siblings(item, rng)[: 2 * QUESTIONS] if other.belongs_to("train")]
    for other in more[: QUESTIONS - 1]:
        document += [(other.question(variant), False), (other.answer, True)]
    return [*document, (END, task.free_form)]


def copying(rng: random.Random, progress: float) -> Document:
    """A run of random symbols, repeated one to three times; not sorted numbers that a held-out item asks for."""
    run = rng.choices(alphabet(rng), k=rng.randint(3, 8 + int(16 * min(progress * 2, 1))))
    ascending = [number for number in NUMBERS if number in run]
    if run == ascending and not Item("sorting", tuple(run), "", "").belongs_to("train"):
        return copying(rng, progress)
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


def brackets(rng: random.Random, progress: float) -> Document:
    """Nested tags; every closing tag is scored, and no beginning is a held-out item of the task.

    Beginnings of more than eleven tags are too many to be met by chance.
    """
    depth = 2 + int(6 * progress)
    while True:
        document: Document = []
        opened: list[int] = []
        for _ in range(rng.randint(8, 30)):
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


DRILLS: dict[Callable[[random.Random, float], Document], float] = {
    copying: 3,
    induction: 4,
    progression: 1,
    order: 1,
    small_sums: 1,
    brackets: 1,
}
