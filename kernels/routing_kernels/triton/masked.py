"""Products with masked weights: a program finds its row's kept entries by counting bits, and reads those alone."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from routing_kernels.errors import bad_masked_weight
from routing_kernels.reference.masked import kept_entries

COLUMNS = 128


@triton.jit
def multiply(x, values, bits, start, y, tokens, rows, columns, bits_row, BT: tl.constexpr, BK: tl.constexpr):
    """One row of the weight with a tile of tokens."""
    row, token = tl.program_id(0).to(tl.int64), tl.program_id(1) * BT + tl.arange(0, BT)
    there = token < tokens
    at = tl.load(start + row)
    total = tl.zeros((BT,), dtype=tl.float32)
    for begin in range(0, columns, BK):
        column = begin + tl.arange(0, BK)
        inside = column < columns
        byte = tl.load(bits + row * bits_row + column // 8, mask=inside, other=0).to(tl.int32)
        kept = (byte >> (column % 8)) & 1
        place = at + tl.cumsum(kept, 0) - kept
        weight = tl.load(values + place, mask=kept == 1, other=0.0).to(tl.float32)
        part = tl.load(
            x + token.to(tl.int64)[:, None] * columns + column[None, :], mask=there[:, None] & (kept == 1)[None, :],
            other=0.0,
        ).to(tl.float32)  # fmt: skip
        total += tl.sum(part * weight[None, :], 1)
        at += tl.sum(kept, 0)
    tl.store(y + token.to(tl.int64) * rows + row, total.to(y.dtype.element_ty), mask=there)


def masked_matmul(x: Tensor, values: Tensor, bits: Tensor, start: Tensor) -> Tensor:
    """Output of the op ``routing_kernels::masked_matmul``; the arguments are taken as checked, but for the bits.

    Checking them reads one number back from the device. Sums are float32.
    """
    x = x.contiguous()
    (tokens, columns), rows = x.shape, bits.shape[0]
    wrong = (kept_entries(bits, bits.shape[1] * 8).sum(1) != start.diff()).any() | (start[0] != 0)
    if bool(wrong | (start[-1] > len(values))):
        raise bad_masked_weight()
    y = x.new_empty((tokens, rows))
    if y.numel():
        wide = min(16, triton.next_power_of_2(tokens))
        multiply[(rows, -(-tokens // wide))](
            x, values, bits, start, y, tokens, rows, columns, bits.shape[1], BT=wide, BK=COLUMNS, num_warps=2
        )
    return y
