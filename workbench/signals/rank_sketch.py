"""Stable rank of attention maps of any length, from random columns, without ever holding a map.

A map A [S, S] is made a few rows at a time and used three times: A times r Gaussian columns, A^T times an orthonormal basis
of that, and A times an orthonormal basis of that again, whose singular values are the leading ones of A from below (one
power iteration). The Frobenius norm and the entropy are exact. A sketch of r columns cannot see a rank above r, so it gives
none.
Here rows are made in plain torch; :mod:`workbench.signals.rank_kernel` leaves the products to the attention kernel.
Source: randomised range finder with power iteration of Halko, Martinsson and Tropp 2011.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.signals.attention_rank import attention_map


class Sketch(NamedTuple):
    """One value a head [N], floating.

    * ``stable_rank``: ||A||_F^2 / s1^2 with s1 from the sketch, so it is at least the true one;
    * ``participation``: (sum s^2)^2 / sum s^4, the second sum over the r leading singular values, so it is at least the
      true one;
    * ``entropy``: mean over rows of the entropy in nats.
    """

    stable_rank: Tensor
    participation: Tensor
    entropy: Tensor


Rows = Callable[[], Iterator[tuple[int, Tensor]]]
"""Gives blocks of rows of the maps anew: the first row, and the block [N, R, S]."""


def sketch(rows: Rows, heads: int, length: int, width: int = 16, seed: int = 0) -> Sketch:
    """The sketch of maps [N, S, S] that ``rows`` gives in blocks, three times; memory is a block and N x S x 2r numbers."""
    if not 1 <= width <= length:
        raise ValueError(f"A sketch of {width} columns does not fit a map of {length} tokens.")
    generator = torch.Generator().manual_seed(seed)
    omega = torch.randn(length, width, generator=generator).expand(heads, -1, -1)
    squared, entropy = torch.zeros(heads, dtype=torch.float64), torch.zeros(heads, dtype=torch.float64)
    image = torch.zeros(heads, length, width)
    for start, wide in _on_cpu(rows):
        image[:, start : start + wide.shape[1]] = wide @ omega
        squared += wide.square().sum((-2, -1), dtype=torch.float64)
        total = wide.sum(-1, keepdim=True)
        shares = wide / torch.where(total > 0, total, 1.0)
        entropy += torch.special.entr(shares).sum((-2, -1), dtype=torch.float64)

    def transposed(basis: Tensor) -> Tensor:
        found = torch.zeros(heads, length, width)
        for start, wide in _on_cpu(rows):
            found += wide.mT @ basis[:, start : start + wide.shape[1]]
        return found

    def times(basis: Tensor) -> Tensor:
        found = torch.empty(heads, length, width)
        for start, wide in _on_cpu(rows):
            found[:, start : start + wide.shape[1]] = wide @ basis
        return found

    return from_image(image, transposed, times, squared, entropy / length)


def from_image(
    image: Tensor,
    transposed: Callable[[Tensor], Tensor],
    times: Callable[[Tensor], Tensor],
    squares: Tensor,
    entropy: Tensor,
) -> Sketch:
    """The sketch from ``image`` = A Omega [N, S, r], the products of A^T and A with columns [N, S, r], the sum of the
    squares of A [N] and its mean entropy [N]."""
    basis = torch.linalg.qr(transposed(torch.linalg.qr(image).Q)).Q
    leading = torch.linalg.svdvals(times(basis).double()).square().clamp(min=1e-300)
    return Sketch(
        stable_rank=(squares / leading[:, 0]).float(),
        participation=(squares.square() / leading.square().sum(-1)).float(),
        entropy=entropy.float(),
    )


def _on_cpu(rows: Rows) -> Iterator[tuple[int, Tensor]]:
    for start, block in rows():
        yield start, block.float().cpu()


def of_map(attention: Tensor, width: int = 16, seed: int = 0) -> Sketch:
    """The same of maps [N, S, S] that are at hand: what a sketch is held against an SVD with."""
    return sketch(lambda: iter([(0, attention)]), attention.shape[0], attention.shape[-1], width, seed)


def blocks(
    q: Tensor,
    k: Tensor,
    scale: float,
    mask: Tensor | None,
    *,
    softcap: float | None,
    sinks: Tensor | None,
    budget: int,
) -> Rows:
    """Blocks of rows of the maps of one sequence, of at most ``budget`` numbers: q [N, S, D], k [Nkv, S, D], and as in
    :func:`workbench.signals.attention_rank.attention_map`; ``mask`` is [1 or N, S, S] or ``None`` for causal."""
    heads, length = q.shape[0], q.shape[1]
    step = max(1, budget // (heads * length))

    def rows() -> Iterator[tuple[int, Tensor]]:
        keys = torch.arange(length, device=k.device)
        for start in range(0, length, step):
            at = torch.arange(start, min(start + step, length), device=q.device)
            allowed = keys <= at[:, None].to(k.device) if mask is None else mask[:, at]
            block = attention_map(
                q[None, :, at],
                k[None],
                scale,
                allowed.reshape(1, -1, len(at), length),
                softcap=softcap,
                sinks=sinks,
            )
            yield start, block[0]

    return rows
