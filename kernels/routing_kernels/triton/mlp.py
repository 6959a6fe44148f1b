"""The sparse gated MLP: rows of active inputs and neurons are listed first, then only those are read."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from routing_kernels import reference
from routing_kernels.triton.launch import counted

LISTED, COLUMNS = 32, 128


@triton.jit
def rows_sum(
    coefficients, listed, counts, first_weight, second_weight, first, second, weight_row, length, columns,
    BOTH: tl.constexpr, BI: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """For each token the sum of coefficient times row over its listed rows of one matrix, or of two."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    inside = column < columns
    one = tl.zeros((BN,), dtype=tl.float32)
    two = tl.zeros((BN,), dtype=tl.float32)
    count = tl.load(counts + token)
    for begin in range(0, count, BI):
        at = begin + tl.arange(0, BI)
        there = at < count
        row = tl.load(listed + token * length + at, mask=there, other=0).to(tl.int64)
        factor = tl.load(coefficients + token * length + row, mask=there, other=0.0).to(tl.float32)
        place = row[:, None] * weight_row + column[None, :]
        kept = there[:, None] & inside[None, :]
        one += tl.sum(factor[:, None] * tl.load(first_weight + place, mask=kept, other=0.0).to(tl.float32), 0)
        if BOTH:
            two += tl.sum(
                factor[:, None] * tl.load(second_weight + place, mask=kept, other=0.0).to(tl.float32), 0
            )
    tl.store(first + token * columns + column, one.to(first.dtype.element_ty), mask=inside)
    if BOTH:
        tl.store(second + token * columns + column, two.to(second.dtype.element_ty), mask=inside)


@triton.jit
def rows_dot(
    x, listed, counts, first_weight, second_weight, first, second, weight_row, length, depth,
    BOTH: tl.constexpr, BI: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """For each token the products of its listed rows of one matrix, or of two, with the token; others stay as they are."""
    token = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BI + tl.arange(0, BI)
    count = tl.load(counts + token)
    if tl.program_id(1) * BI >= count:
        return
    there = at < count
    row = tl.load(listed + token * length + at, mask=there, other=0).to(tl.int64)
    one = tl.zeros((BI,), dtype=tl.float32)
    two = tl.zeros((BI,), dtype=tl.float32)
    for begin in range(0, depth, BK):
        column = begin + tl.arange(0, BK)
        inside = column < depth
        part = tl.load(x + token * depth + column, mask=inside, other=0.0).to(tl.float32)
        place = row[:, None] * weight_row + column[None, :]
        kept = there[:, None] & inside[None, :]
        one += tl.sum(part[None, :] * tl.load(first_weight + place, mask=kept, other=0.0).to(tl.float32), 1)
        if BOTH:
            two += tl.sum(
                part[None, :] * tl.load(second_weight + place, mask=kept, other=0.0).to(tl.float32), 1
            )
    tl.store(first + token * length + row, one, mask=there)
    if BOTH:
        tl.store(second + token * length + row, two, mask=there)


def sparse_mlp(
    x: Tensor, gate: Tensor, up: Tensor, down_t: Tensor, active: Tensor | None, act: str, mode: str, threshold: float,
    input_threshold: float, stats: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Outputs of the op ``routing_kernels::sparse_mlp``; arguments are taken as checked. Sums are float32."""
    x = x.contiguous()
    tokens, inputs = x.shape
    width, outputs = down_t.shape
    activate = reference.ACTIVATIONS[act][0]

    def floats(columns: int) -> Tensor:
        return torch.zeros((tokens, columns), dtype=torch.float32, device=x.device)

    g, u = floats(width), floats(width)
    read = ~(x.float().abs() <= input_threshold) if mode == "teal" else torch.ones_like(x, dtype=torch.bool)
    if mode == "teal":
        listed, counts = counted(read)
        _sum(x, listed, counts, gate, up, g, u)
        ranked = neurons = activate(g) * u
        chosen = ~(ranked.abs() <= threshold)
    else:
        if active is None:
            every, all_of_them = counted(torch.ones((tokens, width), dtype=torch.bool, device=x.device))
            _dot(x, every, all_of_them, gate, gate, g, g)
            ranked = activate(g)
            chosen = ~(ranked.abs() <= threshold)
            _dot(x, *counted(chosen), up, up, u, u)
        else:
            ranked, chosen = g, active
            _dot(x, *counted(chosen), gate, up, g, u)
        neurons = activate(g) * u
    y = x.new_empty((tokens, outputs))
    _sum(neurons, *counted(chosen), down_t, down_t, y, y)
    counts = torch.stack([chosen.sum(1, dtype=torch.int32), read.sum(1, dtype=torch.int32)])
    energy = torch.full((tokens, 2) if stats else (0,), torch.nan, device=x.device)
    if stats:
        energy[:, 0] = _share(x, read) if mode == "teal" else 1
        if active is None:
            energy[:, 1] = _share(ranked, chosen)
    return y, counts, energy


def _share(value: Tensor, kept: Tensor) -> Tensor:
    squares = value.double().square()
    return (squares * kept).sum(1) / squares.sum(1)


def _sum(
    coefficients: Tensor,
    listed: Tensor,
    counts: Tensor,
    one: Tensor,
    two: Tensor,
    first: Tensor,
    second: Tensor,
) -> None:
    if first.numel():
        columns = first.shape[1]
        if one.stride(0) != two.stride(0):
            two = two.contiguous()
            one = one.contiguous()
        rows_sum[(first.shape[0], -(-columns // COLUMNS))](
            coefficients, listed, counts, one, two, first, second, one.stride(0), listed.shape[1], columns,
            BOTH=first is not second, BI=LISTED, BN=COLUMNS, num_warps=4,
        )  # fmt: skip


def _dot(
    x: Tensor, listed: Tensor, counts: Tensor, one: Tensor, two: Tensor, first: Tensor, second: Tensor
) -> None:
    if first.numel():
        if one.stride(0) != two.stride(0):
            two = two.contiguous()
            one = one.contiguous()
        rows_dot[(first.shape[0], -(-first.shape[1] // LISTED))](
            x, listed, counts, one, two, first, second, one.stride(0), listed.shape[1], x.shape[1],
            BOTH=first is not second, BI=LISTED, BK=COLUMNS, num_warps=4,
        )  # fmt: skip
