"""Products with masked weights in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from routing_kernels.errors import bad_masked_weight
from routing_kernels.reference.moe import accumulator


def kept_entries(bits: Tensor, columns: int) -> Tensor:
    """The mask [N, columns] (bool) that the bits [N, bytes] say, lowest bit first."""
    each = bits[..., None] >> torch.arange(8, dtype=torch.uint8, device=bits.device) & 1
    return each.flatten(1)[:, :columns].bool()


def masked_matmul(x: Tensor, values: Tensor, bits: Tensor, start: Tensor) -> Tensor:
    """Output of the op ``routing_kernels::masked_matmul``, row by row; arguments are taken as checked.

    Intermediate values are float32, or float64 where ``x`` is, and are rounded to ``x.dtype`` once, at the end.
    """
    exact, kept, edges = accumulator(x.dtype), kept_entries(bits, x.shape[1]), start.tolist()
    if kept_entries(bits, bits.shape[1] * 8).sum(1).tolist() != [
        last - first for first, last in zip(edges, edges[1:], strict=False)
    ]:
        raise bad_masked_weight()
    y = x.new_empty((x.shape[0], bits.shape[0]), dtype=exact)
    for row, mask in enumerate(kept):
        y[:, row] = F.linear(x[:, mask].to(exact), values[edges[row] : edges[row + 1]].to(exact))
    return y.to(x.dtype)
