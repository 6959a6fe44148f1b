"""The difference of two runs: what the store tells, and what the logits add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.analysis import RunDiff
from workbench.analysis import diff as diff_rows
from workbench.errors import PromptError
from workbench.runtime.run import Run
from workbench.store import Store

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Difference:
    """Two runs side by side.

    Attributes
    ----------
    rows
        What the store tells: aligned tokens, flips, first divergence, text.
    kl
        KL divergence in nats of base || run of the next-token distribution at every common leading position [S] fp64;
        ``None`` where only ids were given, because logits are not stored.
    """

    rows: RunDiff
    kl: Tensor | None

    @property
    def flips(self) -> pd.DataFrame:
        """One row per position and layer whose set of experts differs."""
        return self.rows.flips

    @property
    def first_layer(self) -> int | None:
        """The first layer that routes differently at the first position that does."""
        return self.rows.first_layer

    @property
    def first_expert(self) -> int | None:
        """The expert that came in at the first flip."""
        return self.rows.first_expert

    @property
    def first_position(self) -> int | None:
        """The first position that routes differently."""
        return self.rows.first_position

    @property
    def text(self) -> str:
        """The texts compared, as a unified difference."""
        return self.rows.text

    def __str__(self) -> str:
        lines = [str(self.rows)]
        if self.kl is not None and len(self.kl):
            at = int(self.kl.argmax())
            lines.append(
                f"KL(base || run) mean {float(self.kl.mean()):.4g} nats, largest {float(self.kl[at]):.4g} at token {at}"
            )
        return "\n".join(lines)


def difference(store: Store, base: Run | int, run: Run | int) -> Difference:
    """Compare two recorded runs of ``store``; a :class:`Run` brings its logits, an id does not."""
    ids = [one.id if isinstance(one, Run) else one for one in (base, run)]
    if ids[0] is None or ids[1] is None:
        raise PromptError("A run that was not recorded cannot be compared.", "Run it with record=wb.Record().")
    store.flush()
    kl = _kl(base, run) if isinstance(base, Run) and isinstance(run, Run) else None
    return Difference(diff_rows(store.cursor(), ids[0], ids[1]), kl)


def _kl(base: Run, run: Run) -> Tensor:
    """KL of base || run over the positions whose whole history is the same."""
    size = min(len(base.logits), len(run.logits))
    same = (base.tokens[:size] == run.tokens[:size]).long().cumprod(0).sum()
    p, q = (one.logits[: int(same)].double().log_softmax(-1) for one in (base, run))
    return torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1).clamp(min=0)
