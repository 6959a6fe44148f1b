"""Gather and scatter of rows. A row of the result is written by one program, in the order of the ids."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

COLUMNS = 256


@triton.jit
def take(x, ids, y, squares, x_row, height, columns, parts, STATS: tl.constexpr, BN: tl.constexpr):
    """One row, or zeros where the id names none."""
    number, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = part * BN + tl.arange(0, BN)
    inside = column < columns
    row = tl.load(ids + number)
    named = (row >= 0) & (row < height)
    value = tl.load(x + row * x_row + column, mask=inside & named, other=0.0)
    tl.store(y + number * columns + column, value, mask=inside)
    if STATS:
        wide = value.to(tl.float32)
        tl.store(squares + number * parts + part, tl.sum(wide * wide, 0))


@triton.jit
def add(
    base, rows, weights, order, edges, y, squares, base_row, rows_row, columns, parts,
    WEIGHTED: tl.constexpr, STATS: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """One row of the result: the base and what is added to it, in the order of the ids."""
    target, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = part * BN + tl.arange(0, BN)
    inside = column < columns
    total = tl.load(base + target * base_row + column, mask=inside, other=0.0).to(tl.float32)
    for at in range(tl.load(edges + target), tl.load(edges + target + 1)):
        number = tl.load(order + at)
        value = tl.load(rows + number * rows_row + column, mask=inside, other=0.0).to(tl.float32)
        if WEIGHTED:
            value *= tl.load(weights + number).to(tl.float32)
        total += value
        if STATS:
            tl.store(squares + number * parts + part, tl.sum(value * value, 0))
    tl.store(y + target * columns + column, total.to(y.dtype.element_ty), mask=inside)


def gather_rows(x: Tensor, ids: Tensor, stats: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs of the op ``routing_kernels::gather_rows``; arguments are taken as checked."""
    x, ids = x if x.stride(1) == 1 else x.contiguous(), ids.contiguous()
    columns, parts = x.shape[1], -(-x.shape[1] // COLUMNS)
    y = x.new_empty((len(ids), columns))
    squares = torch.zeros((len(ids) if stats else 0, parts), dtype=torch.float32, device=x.device)
    if y.numel():
        take[(len(ids), parts)](
            x, ids, y, squares, x.stride(0), x.shape[0], columns, parts, STATS=stats, BN=COLUMNS, num_warps=4
        )
    dropped = ((ids < 0) | (ids >= x.shape[0])).sum()
    return y, dropped, squares.sum(1).sqrt() if stats else squares.new_empty(0)


def scatter_add_rows(
    base: Tensor, rows: Tensor, ids: Tensor, weights: Tensor | None, stats: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs of the op ``routing_kernels::scatter_add_rows``; arguments are taken as checked."""
    base, rows = (t if t.stride(1) == 1 else t.contiguous() for t in (base, rows))
    (height, columns), parts = base.shape, -(-base.shape[1] // COLUMNS)
    named = (ids >= 0) & (ids < height)
    targets = torch.where(named, ids, height)
    order = torch.argsort(targets, stable=True)
    edges = F.pad(torch.bincount(targets, minlength=height + 1)[:height].cumsum(0), (1, 0))
    y = base.new_empty(base.shape)
    squares = torch.zeros((len(ids) if stats else 0, parts), dtype=torch.float32, device=base.device)
    if y.numel():
        add[(height, parts)](
            base, rows, base if weights is None else weights.contiguous(), order, edges, y, squares, base.stride(0),
            rows.stride(0), columns, parts, WEIGHTED=weights is not None, STATS=stats, BN=COLUMNS, num_warps=4,
        )  # fmt: skip
    return y, (~named).sum(), squares.sum(1).sqrt() if stats else squares.new_empty(0)
