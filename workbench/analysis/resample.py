"""How sure a number is: bootstrap intervals and permutation nulls, with whole groups (runs) as the unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from workbench.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd

Statistic = Callable[[npt.NDArray[np.float64]], float]


def bootstrap(
    values: npt.ArrayLike,
    statistic: Statistic = np.mean,
    *,
    groups: npt.ArrayLike | None = None,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """A percentile interval of ``statistic``, drawing values or whole groups with replacement.

    Parameters
    ----------
    values
        One number an observation, ``[n]``.
    statistic
        From an array of observations to a number.
    groups
        The group (run, document) of each observation. Tokens of one text are not independent: draw their runs.
    draws, level, seed
        Resamples, coverage of the interval, and the seed of the draws.

    Returns
    -------
    pandas.DataFrame
        One row: ``estimate``, ``low``, ``high``, ``units`` (values or groups that were drawn from), ``draws``.

    Raises
    ------
    StoreError
        There are fewer than two units.

    Notes
    -----
    Source: percentile bootstrap (Efron 1979); clusters as in Davison and Hinkley 1997, section 3.8.
    """
    import pandas as pd

    data = np.asarray(values, dtype=np.float64)
    labels = np.arange(len(data)) if groups is None else np.asarray(groups)
    if len(labels) != len(data):
        raise StoreError(
            f"There are {len(data)} values and {len(labels)} groups.", "Give every value its group."
        )
    units, place = np.unique(labels, return_inverse=True)
    if len(units) < 2:
        raise StoreError(f"There are {len(units)} units to draw from.", "Give at least two values or groups.")
    members = np.split(np.argsort(place, kind="stable"), np.cumsum(np.bincount(place))[:-1])
    rng = np.random.default_rng(seed)
    drawn = np.array(
        [
            statistic(data[np.concatenate([members[i] for i in rng.integers(len(units), size=len(units))])])
            for _ in range(draws)
        ]
    )
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    row = {"estimate": float(statistic(data)), "low": low, "high": high, "units": len(units), "draws": draws}
    return pd.DataFrame([row])


def permutation(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    paired: bool = False,
    alternative: Literal["two-sided", "greater", "less"] = "two-sided",
    draws: int = 9999,
    seed: int = 0,
) -> pd.DataFrame:
    """Whether the mean of ``first`` differs from that of ``second``, against values dealt anew between the two.

    Parameters
    ----------
    first, second
        One number a unit (run, item). With ``paired`` the i-th of each belong together and only their signs are dealt.
    alternative
        ``"greater"`` asks whether ``first`` is larger.
    draws, seed
        Deals, and the seed they come from.

    Returns
    -------
    pandas.DataFrame
        One row: ``difference`` (mean of first - mean of second), ``null_sd``, ``p_value`` = (1 + deals as extreme) /
        (1 + deals), ``draws``.

    Raises
    ------
    StoreError
        One side is empty, or pairs do not match.

    Notes
    -----
    Source: Fisher 1935; the added one as in Phipson and Smyth 2010.
    """
    import pandas as pd

    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if not len(a) or not len(b) or (paired and len(a) != len(b)):
        raise StoreError(
            f"{len(a)} and {len(b)} values cannot be compared.", "Give values on both sides, or whole pairs."
        )
    rng = np.random.default_rng(seed)
    observed = a.mean() - b.mean()
    null = np.empty(draws)
    for i in range(draws):
        if paired:
            null[i] = ((a - b) * rng.choice((-1.0, 1.0), len(a))).mean()
        else:
            dealt = rng.permutation(np.concatenate([a, b]))
            null[i] = dealt[: len(a)].mean() - dealt[len(a) :].mean()
    slack = 1e-12 * max(1.0, abs(observed))  # equal deals must count as equal whatever the order of summation
    extreme = {
        "two-sided": np.abs(null) >= abs(observed) - slack,
        "greater": null >= observed - slack,
        "less": null <= observed + slack,
    }[alternative]
    p_value = (1 + int(extreme.sum())) / (1 + draws)
    return pd.DataFrame([{"difference": observed, "null_sd": null.std(), "p_value": p_value, "draws": draws}])
