"""Rows picked out of a matrix, and added back into one, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from routing_kernels.reference.moe import accumulator


def gather_rows(x: Tensor, ids: Tensor, stats: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs of the op ``routing_kernels::gather_rows``; arguments are taken as checked."""
    named = (ids >= 0) & (ids < len(x))
    y = x.new_zeros((len(ids), x.shape[1]))
    y[named] = x[ids[named]]
    norms = y.double().norm(dim=-1).float() if stats else x.new_empty(0, dtype=torch.float32)
    return y, (~named).sum(), norms


def scatter_add_rows(
    base: Tensor, rows: Tensor, ids: Tensor, weights: Tensor | None, stats: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs of the op ``routing_kernels::scatter_add_rows``, one row after the other; arguments are taken as checked."""
    exact = accumulator(base.dtype)
    named = (ids >= 0) & (ids < len(base))
    scale = rows.new_ones(len(ids), dtype=exact) if weights is None else weights.to(exact)
    added = torch.zeros_like(rows, dtype=exact)
    added[named] = rows[named].to(exact) * scale[named, None]
    y = base.to(exact, copy=True)
    for i in torch.where(named)[0].tolist():
        y[ids[i]] += added[i]
    norms = added.double().norm(dim=-1).float() if stats else base.new_empty(0, dtype=torch.float32)
    return y.to(base.dtype), (~named).sum(), norms
