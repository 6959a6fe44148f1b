"""How much can be left out: the largest sparsity whose loss is bounded with confidence, and the worst task beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workbench.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Tolerable:
    """The answer of :func:`tolerable`.

    ``sparsity`` is the largest level at which, and at all smaller ones, the upper bound of the mean change stays within the
    tolerance (0 where none does); ``table`` has one row a level: ``sparsity``, ``items``, ``change`` (mean), ``upper`` (its
    bound), ``worst_task`` and ``worst_change``.
    """

    sparsity: float
    table: pd.DataFrame


def tolerable(
    changes: pd.DataFrame, tolerance: float, *, confidence: float = 0.95, samples: int = 2000, seed: int = 0
) -> Tolerable:
    """The sparsity that costs at most ``tolerance``, from one row per item and level: ``sparsity``, ``change`` (of the
    loss, larger is worse) and, where there are tasks, ``task``.

    The upper bound is the ``confidence`` quantile of the mean over ``samples`` bootstrap resamples of the items (one-sided
    percentile bootstrap: Efron 1979).
    """
    missing = [name for name in ("sparsity", "change") if name not in changes]
    if missing or changes.empty:
        raise StoreError(
            f"The table has no {missing[0] if missing else 'row'}.",
            "Give sparsity and change, one row an item.",
        )
    import pandas as pd

    rng = np.random.default_rng(seed)
    rows = []
    for sparsity in sorted(changes["sparsity"].unique()):
        part = changes[changes["sparsity"] == sparsity]
        values = part["change"].to_numpy(dtype=float)
        drawn = values[rng.integers(0, len(values), (samples, len(values)))].mean(axis=1)
        row = {
            "sparsity": float(str(sparsity)), "items": len(values), "change": values.mean(),
            "upper": float(np.quantile(drawn, confidence)), "worst_task": None, "worst_change": np.nan,
        }  # fmt: skip
        if "task" in part:
            tasks = part.groupby("task")["change"].mean()
            row |= {"worst_task": tasks.idxmax(), "worst_change": float(tasks.max())}
        rows.append(row)
    table = pd.DataFrame(rows).sort_values("sparsity", ignore_index=True)
    best = 0.0
    for sparsity, upper in zip(table["sparsity"], table["upper"], strict=True):
        if upper > tolerance:
            break
        best = float(sparsity)
    return Tolerable(best, table)
