"""How few neurons do the work: shares of zero and of small activations, and Hoyer's measure."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Sparsity(NamedTuple):
    """One value per vector of activations, all between 0 and 1."""

    zero_share: Tensor
    below_share: Tensor
    hoyer: Tensor


def activation(a: Tensor, threshold: float) -> Sparsity:
    """Sparsity of each activation vector in ``a`` [..., F]; see :func:`from_sums` for the measures."""
    a = a if a.dtype == torch.float64 else a.float()
    magnitude = a.abs()
    return from_sums(
        width=a.shape[-1],
        zero=a.shape[-1] - a.count_nonzero(-1),
        below=(magnitude < threshold).count_nonzero(-1),
        l1=magnitude.sum(-1),
        l2=torch.linalg.vector_norm(a, dim=-1),
    )


def from_sums(width: int | Tensor, zero: Tensor, below: Tensor, l1: Tensor, l2: Tensor) -> Sparsity:
    """Sparsity of vectors of ``width`` activations (one number, or one a vector) from sums over them, as the kernels give
    them (any one shape).

    * ``zero_share``: share of exact zeros, from their number ``zero``;
    * ``below_share``: share of magnitudes less than the threshold, from their number ``below``;
    * ``hoyer``: (sqrt(width) - l1 / l2) / (sqrt(width) - 1), 0 where all magnitudes are equal and 1 where a single one is
      not zero (Hoyer 2004). Undefined (NaN) for the zero vector and for a single neuron.
    """
    dtype = l2.dtype if l2.dtype == torch.float64 else torch.float32
    width = torch.as_tensor(width, device=l2.device)
    if bool((width < 1).any()):
        raise ValueError(f"An activation vector has at least one neuron, not {int(width.min())}.")
    width = width.to(dtype)
    root = width.sqrt()
    defined = (l2 > 0) & (width > 1)
    hoyer = (root - l1.to(dtype) / torch.where(l2 > 0, l2, 1.0).to(dtype)) / (root - 1.0).clamp(min=1e-9)
    return Sparsity(
        zero_share=zero.to(dtype) / width,
        below_share=below.to(dtype) / width,
        hoyer=torch.where(defined, hoyer.clamp(0.0, 1.0), torch.nan),
    )
