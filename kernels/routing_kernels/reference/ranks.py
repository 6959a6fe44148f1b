"""Ranks of attention maps, in plain torch, from their singular value decomposition."""

from __future__ import annotations

import torch
from torch import Tensor


def map_ranks(maps: Tensor, columns: Tensor, tolerance: float) -> Tensor:
    """Output of the op ``routing_kernels::map_ranks``: its four fields as rows [4, M].

    Arguments are those of the op and are taken as checked. Everything is computed in float64.
    """
    wide = maps.double()
    square = wide
    if columns.numel():
        each = columns.repeat_interleave(len(maps) // len(columns), 0).unsqueeze(1)
        square = wide.gather(-1, each.expand(-1, wide.shape[1], -1))
    finite = wide.sum((-2, -1)).isfinite()
    s = torch.linalg.svdvals(torch.where(finite[:, None, None], square, 0.0))
    largest = s.amax(-1, keepdim=True)
    ratio = torch.where(largest > 0, s / largest.clamp(min=torch.finfo(s.dtype).tiny), 0.0)
    undefined = torch.where(finite, 0.0, torch.nan).to(s)
    fields = [
        (ratio > tolerance).sum(-1).to(s),
        ratio.square().sum(-1) + undefined,
        _entropy(ratio).exp() * (largest > 0).squeeze(-1) + undefined,
        _entropy(torch.where(finite[:, None, None], wide, 0.0)).mean(-1) + undefined,
    ]
    return torch.stack(fields).to(maps.dtype)


def _entropy(weights: Tensor) -> Tensor:
    """Entropy in nats along the last axis of nonnegative ``weights`` after division by their sum; 0 for all zeros."""
    total = weights.sum(-1, keepdim=True)
    return torch.special.entr(weights / torch.where(total > 0, total, 1.0)).sum(-1)
