"""What a block does to the residual stream, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def residual_stats(pre: Tensor, attn: Tensor, mlp: Tensor) -> Tensor:
    """Output of the op ``routing_kernels::residual_stats``: its eleven fields as rows [11, T] of float32.

    Arguments are those of the op and are taken as checked. Everything is computed in float64, whatever the input.
    """
    pre, attn, mlp = (
        part.double().flatten(0, -2) if part.dim() > 1 else part.double()[None] for part in (pre, attn, mlp)
    )
    mid, change = pre + attn, attn + mlp
    post = pre + change
    pre_norm, attn_norm, mid_norm, mlp_norm, change_norm, post_norm = (
        torch.linalg.vector_norm(v, dim=-1) for v in (pre, attn, mid, mlp, change, post)
    )
    # Half the squared distance of the unit vectors is 1 - cos without its cancellation.
    distance = torch.linalg.vector_norm(pre / pre_norm[:, None] - post / post_norm[:, None], dim=-1)
    fields = [
        pre_norm,
        attn_norm,
        mid_norm,
        mlp_norm,
        change_norm,
        _share(attn_norm, pre_norm),
        _cosine(attn, attn_norm, pre, pre_norm),
        _share(mlp_norm, mid_norm),
        _cosine(mlp, mlp_norm, mid, mid_norm),
        _share(change_norm, pre_norm),
        torch.where((pre_norm > 0) & (post_norm > 0), distance.square() / 2, torch.nan),
    ]
    return torch.stack(fields).float()


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole, torch.nan)


def _cosine(a: Tensor, a_norm: Tensor, b: Tensor, b_norm: Tensor) -> Tensor:
    cosine = (a * b).sum(-1) / a_norm / b_norm
    return torch.where((a_norm > 0) & (b_norm > 0), cosine.clamp(-1.0, 1.0), torch.nan)
