"""Statistics of the residual stream: one program for a token, two passes over its three vectors."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

COLUMNS = 512
FIELDS = 11


@triton.jit
def ratio(part, whole):
    """part / whole, NaN where the whole is 0."""
    return tl.where(whole > 0.0, part / tl.where(whole > 0.0, whole, 1.0), float("nan"))


@triton.jit
def cosine(product, one, two):
    """product / (one two) in -1..1; NaN where a norm is 0 or not a number, or the product is none."""
    known = (one > 0.0) & (two > 0.0)
    value = product / tl.where(known, one, 1.0) / tl.where(known, two, 1.0)
    held = tl.where(value > 1.0, 1.0, tl.where(value < -1.0, -1.0, value))
    return tl.where(known, held, float("nan"))


@triton.jit
def measure(pre, attn, mlp, out, tokens, columns, BN: tl.constexpr):
    """The eleven fields of one token."""
    token = tl.program_id(0).to(tl.int64)
    zeros = tl.zeros((BN,), dtype=tl.float32)
    p, a, d, m, c, s, pa, dm = zeros, zeros, zeros, zeros, zeros, zeros, zeros, zeros
    for begin in range(0, columns, BN):
        column = begin + tl.arange(0, BN)
        inside = column < columns
        at = token * columns + column
        x = tl.load(pre + at, mask=inside, other=0.0).to(tl.float32)
        y = tl.load(attn + at, mask=inside, other=0.0).to(tl.float32)
        z = tl.load(mlp + at, mask=inside, other=0.0).to(tl.float32)
        mid, change = x + y, y + z
        post = x + change
        p += x * x
        a += y * y
        d += mid * mid
        m += z * z
        c += change * change
        s += post * post
        pa += x * y
        dm += mid * z
    pre_norm, attn_norm = tl.sqrt(tl.sum(p, 0)), tl.sqrt(tl.sum(a, 0))
    mid_norm, mlp_norm = tl.sqrt(tl.sum(d, 0)), tl.sqrt(tl.sum(m, 0))
    change_norm, post_norm = tl.sqrt(tl.sum(c, 0)), tl.sqrt(tl.sum(s, 0))
    both = (pre_norm > 0.0) & (post_norm > 0.0)
    from_pre, from_post = tl.where(both, pre_norm, 1.0), tl.where(both, post_norm, 1.0)
    distance = zeros  # half the squared distance of the unit vectors is 1 - cos without its cancellation
    for begin in range(0, columns, BN):
        column = begin + tl.arange(0, BN)
        inside = column < columns
        at = token * columns + column
        x = tl.load(pre + at, mask=inside, other=0.0).to(tl.float32)
        y = tl.load(attn + at, mask=inside, other=0.0).to(tl.float32)
        z = tl.load(mlp + at, mask=inside, other=0.0).to(tl.float32)
        gap = x / from_pre - (x + (y + z)) / from_post
        distance += gap * gap
    tl.store(out + token, pre_norm)
    tl.store(out + tokens + token, attn_norm)
    tl.store(out + 2 * tokens + token, mid_norm)
    tl.store(out + 3 * tokens + token, mlp_norm)
    tl.store(out + 4 * tokens + token, change_norm)
    tl.store(out + 5 * tokens + token, ratio(attn_norm, pre_norm))
    tl.store(out + 6 * tokens + token, cosine(tl.sum(pa, 0), attn_norm, pre_norm))
    tl.store(out + 7 * tokens + token, ratio(mlp_norm, mid_norm))
    tl.store(out + 8 * tokens + token, cosine(tl.sum(dm, 0), mlp_norm, mid_norm))
    tl.store(out + 9 * tokens + token, ratio(change_norm, pre_norm))
    tl.store(out + 10 * tokens + token, tl.where(both, tl.sum(distance, 0) / 2.0, float("nan")))


def residual_stats(pre: Tensor, attn: Tensor, mlp: Tensor) -> Tensor:
    """Output of the op ``routing_kernels::residual_stats``, [11, T]; arguments are taken as checked. Sums are float32."""
    pre, attn, mlp = (t.contiguous() for t in (pre, attn, mlp))
    tokens, columns = pre.shape[:-1].numel(), pre.shape[-1]
    out = torch.empty((FIELDS, tokens), dtype=torch.float32, device=pre.device)
    if tokens:
        measure[(tokens,)](pre, attn, mlp, out, tokens, columns, BN=COLUMNS, num_warps=4)
    return out
