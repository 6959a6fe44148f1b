"""The expert layer: slots sorted by expert, two products over tiles of one expert, and a sum in slot order."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from routing_kernels.triton.launch import PRECISION, activate

ROWS, COLUMNS = 64, 64  # of a tile
SUM_COLUMNS = 256


@triton.jit
def neurons(
    x, gate_up, hidden, l1, l2, zero, below, order, tile_expert, tile_first, tile_end,
    x_row, bank, bank_row, experts, hidden_size, width, column_tiles, threshold,
    TOP_K: tl.constexpr, ACT: tl.constexpr, STATS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """act(gate x) * (up x) of a tile of slots of one expert, [slots by expert, width], and their partial sums."""
    tile, part = tl.program_id(0), tl.program_id(1)
    expert = tl.load(tile_expert + tile)
    if expert >= experts:
        return
    at = tl.load(tile_first + tile) + tl.arange(0, BM)
    there = at < tl.load(tile_end + tile)
    token = tl.load(order + at, mask=there, other=0) // TOP_K
    column = part * BN + tl.arange(0, BN)
    inside = column < width
    rows = x + token.to(tl.int64)[:, None] * x_row
    gates = gate_up + expert.to(tl.int64) * bank + column.to(tl.int64)[None, :] * bank_row
    ups = gates + width.to(tl.int64) * bank_row
    gate = tl.zeros((BM, BN), dtype=tl.float32)
    up = tl.zeros((BM, BN), dtype=tl.float32)
    for first in range(0, hidden_size, BK):
        depth = first + tl.arange(0, BK)
        deep = depth < hidden_size
        a = tl.load(rows + depth[None, :], mask=there[:, None] & deep[None, :], other=0.0)
        weights = deep[:, None] & inside[None, :]
        gate = tl.dot(
            a, tl.load(gates + depth[:, None], mask=weights, other=0.0), gate, input_precision=PRECISION
        )
        up = tl.dot(a, tl.load(ups + depth[:, None], mask=weights, other=0.0), up, input_precision=PRECISION)
    out = activate(gate, ACT) * up
    kept = there[:, None] & inside[None, :]
    tl.store(
        hidden + at.to(tl.int64)[:, None] * width + column[None, :],
        out.to(hidden.dtype.element_ty),
        mask=kept,
    )
    if STATS:
        size = tl.where(inside[None, :], tl.abs(out), 0.0)
        place = at * column_tiles + part
        tl.store(l1 + place, tl.sum(size, 1), mask=there)
        tl.store(l2 + place, tl.sum(size * size, 1), mask=there)
        tl.store(zero + place, tl.sum((inside[None, :] & (out == 0.0)).to(tl.int32), 1), mask=there)
        tl.store(
            below + place, tl.sum((inside[None, :] & (tl.abs(out) < threshold)).to(tl.int32), 1), mask=there
        )


@triton.jit
def outputs(
    hidden, down, rows, squares, order, tile_expert, tile_first, tile_end,
    bank, bank_row, experts, hidden_size, width, column_tiles,
    STATS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """down times the neurons of a tile of slots of one expert, float32, put back to [slots, hidden size]."""
    tile, part = tl.program_id(0), tl.program_id(1)
    expert = tl.load(tile_expert + tile)
    if expert >= experts:
        return
    at = tl.load(tile_first + tile) + tl.arange(0, BM)
    there = at < tl.load(tile_end + tile)
    slot = tl.load(order + at, mask=there, other=0)
    column = part * BN + tl.arange(0, BN)
    inside = column < hidden_size
    inputs = hidden + at.to(tl.int64)[:, None] * width
    weights = down + expert.to(tl.int64) * bank + column.to(tl.int64)[None, :] * bank_row
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for first in range(0, width, BK):
        depth = first + tl.arange(0, BK)
        deep = depth < width
        a = tl.load(inputs + depth[None, :], mask=there[:, None] & deep[None, :], other=0.0)
        b = tl.load(weights + depth[:, None], mask=deep[:, None] & inside[None, :], other=0.0)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    kept = there[:, None] & inside[None, :]
    tl.store(rows + slot.to(tl.int64)[:, None] * hidden_size + column[None, :], total, mask=kept)
    if STATS:
        total = tl.where(inside[None, :], total, 0.0)
        tl.store(squares + slot * column_tiles + part, tl.sum(total * total, 1), mask=there)


@triton.jit
def combine(rows, ids, weights, y, weights_row, experts, hidden_size, TOP_K: tl.constexpr, BN: tl.constexpr):
    """The weighted sum of a token's slots, in slot order; a dropped slot is not read."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    inside = column < hidden_size
    total = tl.zeros((BN,), dtype=tl.float32)
    for slot in range(TOP_K):
        expert = tl.load(ids + token * TOP_K + slot)
        ran = (expert >= 0) & (expert < experts)
        weight = tl.load(weights + token * weights_row + slot, mask=ran, other=0.0).to(tl.float32)
        row = tl.load(rows + (token * TOP_K + slot) * hidden_size + column, mask=inside & ran, other=0.0)
        total += weight * row
    tl.store(y + token * hidden_size + column, total.to(y.dtype.element_ty), mask=inside)


def depth_and_warps(dtype: torch.dtype) -> tuple[int, int]:
    """Depth of a tile, and warps. Float32 tiles are multiplied in parts, which take more registers (:mod:`aot` holds it)."""
    return (16, 8) if dtype == torch.float32 else (32, 4)


def moe_experts(
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    gate_up: Tensor,
    down: Tensor,
    act: str,
    stats: bool,
    threshold: float,
) -> tuple[Tensor, ...]:
    """Outputs of the op ``routing_kernels::moe_experts``; arguments are taken as checked.

    Sums are float32. Between the two products the neurons are rounded to ``x.dtype``, as tensor cores want them.
    """
    x, ids = x if x.stride(1) == 1 else x.contiguous(), ids.contiguous()
    weights = weights if weights.stride(-1) == 1 else weights.contiguous()
    (tokens, top_k), (experts, _, hidden_size), width = ids.shape, gate_up.shape, down.shape[2]
    slots = tokens * top_k
    flat = ids.flatten()
    executed = (flat >= 0) & (flat < experts)
    named = torch.where(executed, flat, experts)
    counts = torch.bincount(named, minlength=experts + 1)[:experts]
    dropped = slots - executed.sum()
    device, tallied = x.device, (slots if stats else 0)
    tiles, order = tiles_of(named, counts, slots)
    parts = -(-width // COLUMNS), -(-hidden_size // COLUMNS)
    hidden = x.new_empty((slots, width))
    rows = torch.empty((slots, hidden_size), dtype=torch.float32, device=device)
    l1, l2 = (torch.zeros((tallied, parts[0]), dtype=torch.float32, device=device) for _ in range(2))
    zero, below = (torch.zeros((tallied, parts[0]), dtype=torch.int32, device=device) for _ in range(2))
    squares = torch.zeros((tallied, parts[1]), dtype=torch.float32, device=device)
    y = x.new_empty((tokens, hidden_size))
    depth, warps = depth_and_warps(x.dtype)
    sizes = {
        "BM": ROWS,
        "BN": COLUMNS,
        "BK": depth,
        "PRECISION": PRECISION,
        "num_warps": warps,
        "num_stages": 3,
    }
    if slots:
        neurons[(tiles[0].shape[0], parts[0])](
            x, gate_up, hidden, l1, l2, zero, below, order, *tiles, x.stride(0), gate_up.stride(0), gate_up.stride(1),
            experts, hidden_size, width, parts[0], threshold, TOP_K=top_k, ACT=act, STATS=stats, **sizes,
        )  # fmt: skip
        outputs[(tiles[0].shape[0], parts[1])](
            hidden, down, rows, squares, order, *tiles, down.stride(0), down.stride(1), experts, hidden_size, width,
            parts[1], STATS=stats, **sizes,
        )  # fmt: skip
    if y.numel():
        combine[(tokens, -(-hidden_size // SUM_COLUMNS))](
            rows,
            ids,
            weights,
            y,
            weights.stride(0),
            experts,
            hidden_size,
            TOP_K=top_k,
            BN=SUM_COLUMNS,
            num_warps=4,
        )
    if not stats:
        empty = x.new_empty(0, dtype=torch.float32)
        return y, counts, dropped, empty, empty.new_empty(0, dtype=torch.int32)
    back = torch.empty_like(order).scatter_(
        0, order.long(), torch.arange(slots, device=device, dtype=order.dtype)
    )
    norms = torch.stack([squares.sum(1).sqrt(), l1.sum(1)[back.long()], l2.sum(1)[back.long()].sqrt()])
    tallies = torch.stack([zero.sum(1), below.sum(1)])[:, back.long()].int()
    return y, counts, dropped, norms.reshape(3, tokens, top_k), tallies.reshape(2, tokens, top_k)


def tiles_of(named: Tensor, counts: Tensor, slots: int) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Tiles of ROWS slots of one expert each: expert, first and end among the slots sorted by expert; and that order.

    There are as many as could be needed, so that nothing has to be read back from the device; those too many name the
    expert E.
    """
    experts = counts.shape[0]
    order = torch.argsort(named, stable=True).to(torch.int32)
    ends = (counts + ROWS - 1).div(ROWS, rounding_mode="floor").cumsum(0)
    number = torch.arange(-(-slots // ROWS) + experts, device=named.device)
    expert = torch.searchsorted(ends, number, right=True)
    known = expert.clamp(max=experts - 1)
    before = torch.where(known > 0, ends[(known - 1).clamp(min=0)], 0)
    last = counts.cumsum(0)
    first = last[known] - counts[known] + (number - before) * ROWS
    return (expert.to(torch.int32), first.to(torch.int32), last[known].to(torch.int32)), order
