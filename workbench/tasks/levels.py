"""The frozen levels of a model: those at which it neither fails nor always succeeds, chosen once on validation items."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from workbench.tasks.item import TASKS, TaskError

FILE = "levels.json"
LOW, HIGH = 0.3, 0.8
"""A level is usable if its chance-corrected accuracy lies between these."""


def usable(model: str | Path | None = None) -> pd.DataFrame:
    """The levels that experiments on a model should use, as frozen in its folder after training.

    They were chosen by accuracy on the validation split, corrected for chance: (accuracy - chance) / (1 - chance)
    between `LOW` and `HIGH`, so that an edit can make a difference in both directions.

    Parameters
    ----------
    model
        Folder of a model with a ``levels.json``; by default the demo model's.

    Returns
    -------
    One row per level: ``task``, ``level``, ``items`` (how many were scored), ``accuracy`` and ``corrected``.

    Raises
    ------
    TaskError
        Where the folder has no such file, or the file was written for other levels than today's.
    """
    from workbench.runtime.loading import demo_path

    file = Path(demo_path() if model is None else model) / FILE
    if not file.is_file():
        raise TaskError(
            f"There is no {FILE} in {file.parent}.", "Give the folder of a model with frozen levels."
        )
    rows = json.loads(file.read_text())["levels"]
    for row in rows:
        known = TASKS[row["task"]].levels if row["task"] in TASKS else ()
        if row["level"] > len(known) or list(known[row["level"] - 1]) != row["parameters"]:
            raise TaskError(
                f"{file} was written for another level {row['level']} of task {row['task']}.",
                "Measure the model again with python -m data.recipe.measure.",
            )
    return pd.DataFrame(rows, columns=["task", "level", "items", "accuracy", "corrected"])
