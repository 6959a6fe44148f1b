"""Why choices flipped between two runs: rounding, or something real.

Two runs of one text in two precisions, or on two implementations, differ by rounding alone; where a choice hangs by less
than that, rounding flips it. What rounding does to the scores is *measured*, on a pair of runs named for the purpose,
and never assumed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.analysis.source import Source
from workbench.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd

Scores = dict[tuple[int, int], "np.ndarray[Any, np.dtype[np.float32]]"]
Choices = dict[tuple[int, int], frozenset[int]]


def score_noise(source: Source, one: int, other: int) -> dict[int, float]:
    """By layer, the largest difference of a selection score between two runs of the same text that should be equal.

    Only cells that no flip has touched count: of a token's layers those before its first flip, at positions before the
    first that flipped in an earlier layer. What follows from a flip is no longer rounding.

    Raises
    ------
    StoreError
        A run has no recorded scores, or the runs did not read the same tokens.
    """
    if _tokens(source, one) != _tokens(source, other):
        raise StoreError(
            f"Runs {one} and {other} did not read the same tokens, so their difference is not noise.",
            "Measure the noise on two runs of one text.",
        )
    scores, others = _scores(source, one), _scores(source, other)
    if not scores or not others:
        raise StoreError(
            f"Run {other if scores else one} has no recorded scores, which the noise is measured on.",
            "Record both runs with wb.Record(scores=True).",
        )
    flipped = _flipped(_choices(source, one), _choices(source, other))
    noise: dict[int, float] = {}
    for cell, values in scores.items():
        if cell in others and not _touched(cell, flipped):
            off = float(np.abs(values - others[cell]).max())
            noise[cell[1]] = max(noise.get(cell[1], 0.0), off)
    return noise


def explain(source: Source, base: int, run: int, flips: pd.DataFrame, noise: dict[int, float]) -> list[str]:
    """The cause of every row of ``flips`` (:class:`workbench.analysis.RunDiff`): ``'edit'`` stays, and so does ``'tie'``
    where nothing real reaches the cell; the others become one of

    ``precision``
        Both runs chose what their own scores say, and either the choices that left and came lie within twice the noise of
        the layer (each of the two scores may have moved by as much), or all earlier flips that reach the cell are
        themselves ties or of precision: it follows from them.
    ``real``
        Anything else: a choice that its own scores do not give (it was swapped), a margin that noise cannot bridge, what
        follows from a real flip or from an edit, and a cell without recorded scores.

    ``noise`` is what :func:`score_noise` measured, by layer. Families with group limits count as ``real`` where the limit
    decided, because the scores alone do not tell it.
    """
    mine, theirs = _scores(source, base), _scores(source, run)
    causes: list[str] = []
    earlier: list[tuple[int, int, str]] = []
    for row in flips.to_dict("records"):
        cause, cell = str(row["cause"]), (int(row["position"]), int(row["layer"]))
        reaching = {why for position, layer, why in earlier if layer < cell[1] and position <= cell[0]}
        if cause == "tie" and reaching & {"real", "edit"}:
            cause = "real"
        if cause not in ("edit", "tie"):
            at_base = (int(row["base_position"]), cell[1])
            left, came = set(row["base_experts"]), set(row["run_experts"])
            own = _own(mine.get(at_base), left) and _own(theirs.get(cell), came)
            if not own or reaching & {"real", "edit"}:
                cause = "real"
            elif reaching or _bridged(mine[at_base], theirs[cell], left, came, noise.get(cell[1], 0.0)):
                cause = "precision"
            else:
                cause = "real"
        causes.append(cause)
        earlier.append((*cell, cause))
    return causes


def _own(scores: np.ndarray[Any, Any] | None, chosen: set[int]) -> bool:
    """Whether ``chosen`` are the best by the run's own ``scores``; not where these were not recorded."""
    if scores is None or not chosen or max(chosen) >= len(scores):
        return False
    others = [value for expert, value in enumerate(scores) if expert not in chosen]
    return not others or min(scores[list(chosen)]) >= max(others)


def _bridged(
    mine: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any], left: set[int], came: set[int], noise: float
) -> bool:
    """Whether noise alone can have changed the order of what left and what came, in either run."""
    lost, won = list(left - came), list(came - left)
    if not lost or not won:
        return False
    gap = max(float(mine[lost].max() - mine[won].min()), float(theirs[won].max() - theirs[lost].min()))
    return gap <= 2 * noise


def _touched(cell: tuple[int, int], flipped: set[tuple[int, int]]) -> bool:
    return any(layer < cell[1] and position <= cell[0] for position, layer in flipped)


def _flipped(one: Choices, other: Choices) -> set[tuple[int, int]]:
    return {cell for cell, chosen in one.items() if cell in other and other[cell] != chosen}


def _tokens(source: Source, run: int) -> list[Any]:
    return list(
        source.sql(
            "SELECT position, arg_max(token, step) FROM token WHERE run = ? GROUP BY position ORDER BY position",
            params=[run],
        ).fetchall()
    )


def _scores(source: Source, run: int) -> Scores:
    rows = source.sql(
        "SELECT position, layer, arg_max(scores, step) FROM router_scores WHERE run = ? GROUP BY position, layer",
        params=[run],
    ).fetchall()
    return {(int(p), int(layer)): np.asarray(values, dtype=np.float32) for p, layer, values in rows}


def _choices(source: Source, run: int) -> Choices:
    rows = source.sql(
        "SELECT position, layer, list(DISTINCT expert) FROM routing WHERE run = ? GROUP BY position, layer",
        params=[run],
    ).fetchall()
    return {(int(p), int(layer)): frozenset(experts) for p, layer, experts in rows}
