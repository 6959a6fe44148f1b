"""Tasks as data frames: seeded, deterministic, split by content."""

from __future__ import annotations

import random
from typing import Any

import pandas as pd

from workbench.tasks import computed, in_context  # noqa: F401  (importing them registers the tasks)
from workbench.tasks.item import CHANCE, SPLITS, TASKS, Item, Task, TaskError, variant_for
from workbench.tasks.wording import VARIANTS, WORDINGS

DEFAULT_SIZES = {"train": 1_000, "reference": 1_000, "validation": 500, "test": 2_000, "shift": 500}
COLUMNS = ["prompt", "answer", "choices", "task", "level", "variant", "language", "split"]
MAX_MISSES = 2_000  # draws in a row without a new item, after which a level counts as exhausted


def names() -> list[str]:
    """Names of all tasks, in alphabetical order."""
    return sorted(TASKS)


def describe() -> pd.DataFrame:
    """One row per task and level: what is asked, the level's parameters, the form of the answer and chance."""
    rows = [
        {
            "task": name,
            "level": level,
            "summary": TASKS[name].summary,
            "parameters": TASKS[name].levels[level - 1],
            "free_form": TASKS[name].free_form,
            "chance": CHANCE,
        }
        for name in names()
        for level in range(1, len(TASKS[name].levels) + 1)
    ]
    return pd.DataFrame(rows)


def load(
    task: str,
    split: str = "test",
    level: int | None = None,
    n: int | None = None,
    seed: int = 0,
    variant: int | None = None,
) -> pd.DataFrame:
    """Items of one task as a data frame.

    Parameters
    ----------
    task
        One of `names()`.
    split
        ``train``, ``reference``, ``validation``, ``test`` or ``shift`` (longer, in a wording never trained on, with
        filler between the facts). An item's split follows from a hash of its content, whatever its wording.
    level
        Difficulty from 1; None gives all levels.
    n
        Items per level; by default 1,000 (train, reference), 500 (validation, shift) or 2,000 (test).
    seed
        Another seed draws other items of the same split.
    variant
        One wording for all items, 0 to 4; by default the five take turns. The same items, with their choices in the
        same order, come in every wording. The shift split has a wording of its own.

    Returns
    -------
    Columns ``prompt`` (ends with the answer mark), ``answer``, ``choices`` (eight different options in random order,
    chance 1/8), ``task``, ``level``, ``variant``, ``language``, ``split``; contents are all different within a level.

    Raises
    ------
    TaskError
        For an unknown task, split, level or wording, and where a level has fewer than ``n`` different items.
    """
    chosen = find(task)
    if split not in SPLITS:
        raise TaskError(f"There is no split named {split!r}.", f"Choose one of {', '.join(SPLITS)}.")
    if level is not None and not 1 <= level <= len(chosen.levels):
        raise TaskError(
            f"Task {task} has no level {level}.", f"Choose a level from 1 to {len(chosen.levels)}."
        )
    if variant is not None and (split == "shift" or variant not in VARIANTS):
        raise TaskError(
            f"The items of split {split} do not come in wording {variant}.",
            f"Choose a wording from 0 to {VARIANTS[-1]} of another split than shift.",
        )
    if n is None:
        n = DEFAULT_SIZES[split]
    if n < 1:
        raise TaskError(f"{n} items were asked for.", "Ask for at least one item.")
    levels = range(1, len(chosen.levels) + 1) if level is None else [level]
    rows = [row for one in levels for row in rows_of(chosen, split, one, n, seed, variant)]
    return pd.DataFrame(rows, columns=COLUMNS)


def score(bench: Any, items: pd.DataFrame, plan: Any = None) -> pd.DataFrame:
    """The items with the model's gold, prediction, correct and loss per option, under a plan or none.

    ``bench`` is an open bench; this is ``bench.evaluate`` with eight-way choices by log-likelihood and one plan.
    """
    return bench.evaluate(items, plans=[plan], score="choices")


def find(task: str) -> Task:
    """The task of that name."""
    if task not in TASKS:
        raise TaskError(f"There is no task named {task!r}.", f"Choose one of {', '.join(names())}.")
    return TASKS[task]


def rows_of(
    task: Task, split: str, level: int, n: int, seed: int, wording: int | None
) -> list[dict[str, Any]]:
    """The first ``n`` different items of one level in one split."""
    rng = random.Random(f"{task.name}/{split}/{level}/{seed}")
    parameters = task.parameters(level, stretched=split == "shift")
    seen: set[Item] = set()
    rows: list[dict[str, Any]] = []
    misses = 0
    while len(rows) < n:
        item = task.draw(rng, parameters)
        if item in seen or not item.belongs_to(split):
            misses += 1
            if misses > MAX_MISSES:
                raise TaskError(
                    f"Level {level} of task {task.name} has only about {len(rows)} different items in split {split}.",
                    "Ask for fewer items with n, or for a harder level.",
                )
            continue
        misses = 0
        seen.add(item)
        variant = variant_for(split, len(rows)) if wording is None else wording
        rows.append(
            {
                "prompt": item.prompt(variant, rng),
                "answer": item.answer,
                "choices": task.choices(item, rng),
                "task": task.name,
                "level": level,
                "variant": variant,
                "language": WORDINGS[variant].language,
                "split": split,
            }
        )
    return rows
