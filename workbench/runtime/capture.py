"""What the hooks of one layer saw in one forward pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from workbench.signals import attention_rank, contribution, sparsity


class ExpertStats(NamedTuple):
    """What the kernel counted while it ran the experts, each [T, k]: norms of their outputs, and sums over their neurons."""

    norm: Tensor
    l1: Tensor
    l2: Tensor
    zero: Tensor
    below: Tensor


class AttentionSample(NamedTuple):
    """Queries of sampled rows and all keys of one run's attention, from which its maps are made later.

    Attributes
    ----------
    row
        Row of the batch.
    query, key
        [N, R, D] and [Nkv, S, D] after position encoding.
    mask
        What is added to the products of those rows, or where they are allowed; broadcasts to [N, R, S].
    rows
        The sampled positions [R]; ``None`` where they are all.
    length
        Tokens of the run.
    """

    row: int
    query: Tensor
    key: Tensor
    mask: Tensor
    rows: Tensor | None
    length: int
    scale: float
    softcap: float | None
    sinks: Tensor | None


class RowRanks(NamedTuple):
    """Ranks that were computed during the pass, of one row of the batch: [N] each, from maps of ``tokens`` rows."""

    row: int
    ranks: attention_rank.Ranks
    tokens: int
    length: int
    submatrix: str
    method: str
    dtype: str
    error: float | None


@dataclass
class Capture:
    """What one layer did in one pass. T = B x S tokens, k choices, N heads; ``None`` where it was not asked for.
    ``attended`` [B, S, S'] is the attention map, mean over heads, for edits that weigh by it."""

    logits: Tensor | None = None
    selection: Tensor | None = None
    ids: Tensor | None = None
    weights: Tensor | None = None
    native_ids: Tensor | None = None
    native_weights: Tensor | None = None
    edited: Tensor | None = None
    experts: ExpertStats | None = None
    contribution: contribution.Contribution | None = None
    activation: sparsity.Sparsity | None = None
    width: int = 0
    attention: list[AttentionSample] = field(default_factory=list)
    ranks: list[RowRanks] = field(default_factory=list)
    attended: Tensor | None = None
    stream: dict[str, Tensor] = field(default_factory=dict)
