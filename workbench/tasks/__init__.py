"""Tasks with checkable answers, by level, split and surface variant, as data frames."""

from workbench.tasks.frames import describe, load, names, score
from workbench.tasks.item import CHANCE, TaskError
from workbench.tasks.levels import usable

__all__ = ["CHANCE", "TaskError", "describe", "load", "names", "score", "usable"]
