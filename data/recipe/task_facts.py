"""How well a model answers the tasks: by level and wording, usable levels, under random routing, on test and shift."""

from __future__ import annotations

from typing import Any

import pandas as pd

from workbench import tasks
from workbench.experiments import paired
from workbench.interventions import Plan, reroute
from workbench.runtime.bench import Bench
from workbench.tasks.item import CHANCE, TASKS
from workbench.tasks.levels import HIGH, LOW

SEEDS = (0, 1, 2)


def accuracy(bench: Bench, items: int, split: str = "validation") -> dict[str, Any]:
    """Accuracy by task and level with its 95 % half-width, and by task and wording over the usable levels."""
    scored = pd.concat(
        [bench.evaluate(tasks.load(name, split=split, n=items)) for name in tasks.names()], ignore_index=True
    )
    levels = proportions(scored, ["task", "level"])
    good = levels[usable_rows(levels)][["task", "level"]]
    return {
        "split": split,
        "items_per_level": items,
        "levels": levels.to_dict("records"),
        "wordings": proportions(scored.merge(good), ["task", "language"]).to_dict("records"),
    }


def proportions(scored: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Share of right answers by group: items, accuracy, half-width of the 95 % interval, and corrected for chance."""
    table = scored.groupby(by)["correct"].agg(items="size", accuracy="mean").reset_index()
    table["half_width"] = [wilson(a, n) for a, n in zip(table["accuracy"], table["items"], strict=True)]
    table["corrected"] = (table["accuracy"] - CHANCE) / (1 - CHANCE)
    return table


def wilson(share: float, count: int) -> float:
    """Half-width of the 95 % interval of a proportion (Wilson 1927), which is above zero also at 0 and 1."""
    z = 1.96
    return z / (1 + z**2 / count) * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5


def usable_rows(levels: pd.DataFrame) -> pd.Series:
    """Which rows of an accuracy table are usable levels."""
    return levels["corrected"].between(LOW, HIGH)


def frozen_levels(accuracy: dict[str, Any], checkpoint: str) -> dict[str, Any]:
    """What is written to ``levels.json``: the usable levels with their parameters, and on what they were chosen."""
    levels = pd.DataFrame(accuracy["levels"])
    return {
        "checkpoint": checkpoint,
        "split": accuracy["split"],
        "corrected_between": [LOW, HIGH],
        "levels": [
            {
                "task": row.task,
                "level": row.level,
                "parameters": list(TASKS[row.task].levels[row.level - 1]),
                "items": row.items,
                "accuracy": round(row.accuracy, 4),
                "corrected": round(row.corrected, 4),
            }
            for row in levels[usable_rows(levels)].itertuples()
        ],
    }


def usable_items(levels: pd.DataFrame, split: str, items: int, **options: Any) -> pd.DataFrame:
    """Items of all usable levels of one split."""
    return pd.concat(
        [
            tasks.load(row.task, split=split, level=row.level, n=items, **options)
            for row in levels.itertuples()
        ],
        ignore_index=True,
    )


def random_routing(bench: Bench, levels: pd.DataFrame, items: int) -> dict[str, Any]:
    """What random experts in all layers at all tokens cost on the usable levels of the validation split, in points."""
    asked = usable_items(levels, "validation", items)
    plans = [None, *(Plan([reroute.random("all", seed=seed)]) for seed in SEEDS)]
    scored = bench.evaluate(asked, plans=plans)
    by_task = scored.assign(random=scored["plan_number"] > 0).pivot_table("correct", "task", "random")
    compared = paired(scored)
    return {
        "items": len(asked),
        "seeds": len(SEEDS),
        "accuracy": float(compared["base_accuracy"].iloc[0]),
        "random": float(compared["accuracy"].mean()),
        "cost_points": float(-100 * compared["difference"].mean()),
        "cost_low": float(-100 * compared["high"].mean()),
        "cost_high": float(-100 * compared["low"].mean()),
        "by_task": [
            {"task": task, "accuracy": row[False], "random": row[True]} for task, row in by_task.iterrows()
        ],
    }


def held_out(bench: Bench, levels: pd.DataFrame, test: int, shift: int) -> dict[str, Any]:
    """Accuracy on the test split and on the shift set at the usable levels."""
    result = {}
    for split, items in (("test", test), ("shift", shift)):
        scored = bench.evaluate(usable_items(levels, split, items))
        result[split] = {
            "items_per_level": items,
            "levels": proportions(scored, ["task", "level"]).to_dict("records"),
            "all": proportions(scored, ["split"]).to_dict("records")[0],
        }
    return result
