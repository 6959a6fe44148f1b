"""What the hooks of one layer saw in one forward pass."""

from __future__ import annotations

from dataclasses import dataclass, field

from routing_kernels import MoeExperts
from torch import Tensor

from workbench.signals import attention_rank, contribution, sparsity


@dataclass
class Capture:
    """What one layer did in one pass. T = B x S tokens, k choices, N heads; ``None`` where it was not asked for.
    ``attention`` [B, S, S'] is the mean over heads, for edits that weigh by it."""

    logits: Tensor | None = None
    selection: Tensor | None = None
    ids: Tensor | None = None
    weights: Tensor | None = None
    native_ids: Tensor | None = None
    native_weights: Tensor | None = None
    edited: Tensor | None = None
    experts: MoeExperts | None = None
    contribution: contribution.Contribution | None = None
    activation: sparsity.Sparsity | None = None
    width: int = 0
    ranks: attention_rank.Ranks | None = None
    rank_tokens: int = 0
    rank_sampled: bool = False
    attention: Tensor | None = None
    skipped: bool = False
    stream: dict[str, Tensor] = field(default_factory=dict)
