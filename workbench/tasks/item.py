"""What every task has in common: an item, its split by content, its text and its choices."""

from __future__ import annotations

import hashlib
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from workbench.errors import WorkbenchError
from workbench.tasks.symbols import ANSWER_MARK
from workbench.tasks.wording import HEADINGS, SHIFT_VARIANT, WORDINGS

CHOICES = 8
CHANCE = 1 / CHOICES
SPLITS: dict[str, tuple[float, float]] = {
    "train": (0.0, 0.6),
    "reference": (0.6, 0.7),
    "validation": (0.7, 0.8),
    "test": (0.8, 1.0),
    "shift": (0.8, 1.0),
}
WITHDRAWN = Path(__file__).with_name("withdrawn.npy")


class TaskError(WorkbenchError):
    """A task, split, level or number of items that does not exist."""


@dataclass(frozen=True)
class Item:
    """The content of one question, apart from how it is worded.

    ``facts`` are the pieces of context in order, ``query`` is what is asked (may be empty), ``answer`` the right
    continuation after the answer mark.
    """

    task: str
    facts: tuple[str, ...]
    query: str
    answer: str

    def digest(self) -> int:
        """64 bits that depend on task, facts and query alone: they decide the split."""
        text = json.dumps([self.task, self.facts, self.query])
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")

    def belongs_to(self, split: str) -> bool:
        """Whether the content falls into the named split; what a drill has asked belongs to ``train`` whatever that is."""
        low, high = SPLITS[split]
        digest = self.digest()
        return low == 0 if digest in withdrawn() else low <= digest / 2**64 < high

    def prompt(self, variant: int, rng: random.Random | None = None) -> str:
        """The question in the wording of ``variant``, up to and including the answer mark.

        ``rng`` places the filler of the shift wording; the other wordings do not use it.
        """
        wording = WORDINGS[variant]
        task = TASKS[self.task]
        separator = task.separator if task.separator is not None else wording.separator
        facts: Sequence[str] = self.facts
        if wording.filler:
            if rng is None:
                raise TaskError("The shift wording needs a random generator.", "Pass rng to prompt().")
            facts = [fact + (rng.choice(wording.filler) if rng.random() < 0.3 else "") for fact in facts]
        return f"{HEADINGS[self.task][variant]}:{separator.join(facts)}{self.question(variant)}"

    def question(self, variant: int) -> str:
        """The closing part of the prompt: the word that asks, the query and the answer mark."""
        return f"{WORDINGS[variant].ask}{self.query}{ANSWER_MARK}"


class Task(ABC):
    """One family of questions with difficulty levels counted from 1.

    ``levels`` holds the parameters of each level; the first parameter is its size, which the shift split stretches.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    levels: ClassVar[tuple[tuple[int, ...], ...]]
    separator: ClassVar[str | None] = None  # None: the wording's own
    free_form: ClassVar[bool] = (
        False  # the answer is a string of several tokens that ends with the end of the text
    )

    @abstractmethod
    def draw(self, rng: random.Random, parameters: tuple[int, ...]) -> Item:
        """A random item; the same generator state gives the same item."""

    @abstractmethod
    def distractors(self, item: Item, rng: random.Random) -> list[str]:
        """Wrong answers, the most tempting first; may repeat or contain the answer, which the caller drops."""

    def siblings(self, item: Item, rng: random.Random) -> list[Item]:
        """Other questions over the same facts, in random order; empty where the facts allow only one."""
        return []

    def parameters(self, level: int, *, stretched: bool = False) -> tuple[int, ...]:
        """Parameters of a level; ``stretched`` gives the longer form of the shift split."""
        size, *rest = self.levels[level - 1]
        return (size + max(1, size // 4) if stretched else size, *rest)

    def choices(self, item: Item, rng: random.Random) -> list[str]:
        """Eight different options in random order, the answer among them."""
        options = [item.answer]
        for wrong in self.distractors(item, rng):
            if wrong not in options:
                options.append(wrong)
            if len(options) == CHOICES:
                break
        if len(options) < CHOICES:
            raise TaskError(
                f"Task {self.name} found only {len(options)} different options.",
                "Report the task and its level.",
            )
        rng.shuffle(options)
        return options


@cache
def withdrawn() -> frozenset[int]:
    """Digests of contents that are held out no longer: drills asked them while the demo model or a relative was trained."""
    return frozenset(np.load(WITHDRAWN).tolist())


TASKS: dict[str, Task] = {}


def register(task: type[Task]) -> type[Task]:
    """Class decorator: makes a task known under its name."""
    TASKS[task.name] = task()
    return task


def variant_for(split: str, position: int) -> int:
    """The wording of the item at a position: the trained wordings in turn, or the one of the shift split."""
    return SHIFT_VARIANT if split == "shift" else position % SHIFT_VARIANT
