"""The linear layer of chosen experts: slots sorted by expert, products over tiles of one expert."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from routing_kernels.triton.launch import PRECISION
from routing_kernels.triton.moe import COLUMNS, ROWS, depth_and_warps, tiles_of


@triton.jit
def linear(
    x, weight, bias, y, order, tile_expert, tile_first, tile_end,
    x_row, bank, by_output, by_depth, bias_row, experts, depth_size, outputs,
    SHARING: tl.constexpr, BIASED: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of slots of one expert times its weight, put back to [slots, outputs]."""
    tile, part = tl.program_id(0), tl.program_id(1)
    expert = tl.load(tile_expert + tile)
    if expert >= experts:
        return
    at = tl.load(tile_first + tile) + tl.arange(0, BM)
    there = at < tl.load(tile_end + tile)
    slot = tl.load(order + at, mask=there, other=0)
    column = part * BN + tl.arange(0, BN)
    inside = column < outputs
    rows = x + (slot // SHARING).to(tl.int64)[:, None] * x_row
    weights = weight + expert.to(tl.int64) * bank + column.to(tl.int64)[None, :] * by_output
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for first in range(0, depth_size, BK):
        depth = first + tl.arange(0, BK)
        deep = depth < depth_size
        a = tl.load(rows + depth[None, :], mask=there[:, None] & deep[None, :], other=0.0)
        b = tl.load(
            weights + depth.to(tl.int64)[:, None] * by_depth, mask=deep[:, None] & inside[None, :], other=0.0
        )
        total = tl.dot(a, b, total, input_precision=PRECISION)
    if BIASED:
        added = tl.load(bias + expert.to(tl.int64) * bias_row + column, mask=inside, other=0.0)
        total += added.to(tl.float32)[None, :]
    tl.store(
        y + slot.to(tl.int64)[:, None] * outputs + column[None, :],
        total.to(y.dtype.element_ty),
        mask=there[:, None] & inside[None, :],
    )


def expert_linear(x: Tensor, ids: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
    """Output of the op ``routing_kernels::expert_linear``; the arguments are taken as checked."""
    flat, experts = ids.flatten(), weight.shape[0]
    sharing, rows = ids.shape[1] if x.dim() == 2 else 1, x.reshape(-1, x.shape[-1])
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    outputs = weight.shape[2 if transposed else 1]
    y = x.new_zeros((*ids.shape, outputs))
    if not y.numel():
        return y
    named = torch.where((flat >= 0) & (flat < experts), flat, experts)
    counts = torch.bincount(named, minlength=experts + 1)[:experts]
    tiles, order = tiles_of(named, counts, len(flat))
    by_output, by_depth = (weight.stride(2), weight.stride(1)) if transposed else weight.stride()[1:]
    depth, warps = depth_and_warps(x.dtype)
    linear[(tiles[0].shape[0], -(-outputs // COLUMNS))](
        rows, weight, weight if bias is None else bias.contiguous(), y, order, *tiles, rows.stride(0), weight.stride(0),
        by_output, by_depth, outputs, experts, x.shape[-1], outputs, SHARING=sharing, BIASED=bias is not None,
        BM=ROWS, BN=COLUMNS, BK=depth, PRECISION=PRECISION, num_warps=warps, num_stages=3,
    )  # fmt: skip
    return y
