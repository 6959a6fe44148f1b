"""The difference of two runs: what the store tells, and the KL divergence that the logits add."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral

import torch
from torch import Tensor

from workbench.analysis import RunDiff, diff
from workbench.errors import PromptError
from workbench.runtime.run import Run
from workbench.store import Store


def compare(
    store: Store, base: Run | int, run: Run | int, noise: tuple[Run | int, Run | int] | None = None
) -> RunDiff:
    """Compare two recorded runs of ``store``; a :class:`Run` brings its logits, an id does not (they are not stored).

    ``noise`` names two runs that differ by rounding alone: see :func:`workbench.analysis.flips.explain`.
    """
    measured = None if noise is None else (_id(noise[0]), _id(noise[1]))
    rows = diff(store.cursor(), _id(base), _id(run), measured)
    return replace(rows, kl=_kl(base, run)) if isinstance(base, Run) and isinstance(run, Run) else rows


def _id(run: Run | int) -> int:
    found = run.id if isinstance(run, Run) else run
    if found is None:
        raise PromptError(
            "A run that was not recorded cannot be compared.", "Run it with record=wb.Record()."
        )
    if isinstance(found, bool) or not isinstance(found, Integral):
        raise PromptError(
            f"A value of type {type(found).__name__} is not a run.", "Give a run, or the number of one."
        )
    return int(found)


def _kl(base: Run, run: Run) -> Tensor:
    """KL(base || run) [S] fp64 in nats over the leading positions whose whole history is the same."""
    size = min(len(base.logits), len(run.logits))
    same = (base.tokens[:size] == run.tokens[:size]).long().cumprod(0).sum()
    p, q = (one.logits[: int(same)].double().log_softmax(-1) for one in (base, run))
    return torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1).clamp(min=0)
