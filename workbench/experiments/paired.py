"""Paired comparison of plans on the same items: difference, interval and exact test."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from workbench.errors import WorkbenchError


def paired(table: pd.DataFrame, base: int = 0, samples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Compare every plan of an item table (of ``bench.evaluate``) with the plan numbered ``base``.

    Returns one row per other plan: ``plan_number``, ``plan``, ``items``, ``base_accuracy``, ``accuracy``,
    ``difference`` with its 95 % percentile-bootstrap interval over items ``low`` and ``high`` (``samples`` resamples,
    Efron 1979), ``gained`` and ``lost`` (items right under only one of the two), and ``p``: the two-sided exact McNemar
    test, a binomial test of gained against lost (McNemar 1947).
    """
    correct = table.pivot(index="item", columns="plan_number", values="correct")
    if base not in correct:
        raise WorkbenchError(
            f"The table has no plan number {base}.", f"It has {', '.join(map(str, correct))}."
        )
    if correct.isna().any(axis=None):
        raise WorkbenchError(
            "Some items were not scored under every plan.", "Evaluate all plans on the same items."
        )
    right = correct.to_numpy(dtype=bool)
    draws = np.random.default_rng(seed).integers(0, len(right), (samples, len(right)))
    hashes = dict(zip(table["plan_number"], table["plan"], strict=True))
    first = right[:, list(correct).index(base)]
    rows = []
    for column, number in enumerate(correct):
        if number == base:
            continue
        other = right[:, column]
        change = other.astype(float) - first
        low, high = np.quantile(change[draws].mean(axis=1), [0.025, 0.975])
        gained, lost = int((other & ~first).sum()), int((first & ~other).sum())
        rows.append({
            "plan_number": number, "plan": hashes[number], "items": len(right), "base_accuracy": first.mean(),
            "accuracy": other.mean(), "difference": change.mean(), "low": low, "high": high, "gained": gained,
            "lost": lost, "p": binomtest(gained, gained + lost).pvalue if gained + lost else 1.0,
        })  # fmt: skip
    return pd.DataFrame(rows)
