"""Stable rank of attention maps of any length by the attention kernel alone: a map is multiplied, never formed.

The kernel gives A times any columns, as values, and the logarithm of each row's sum. That is enough for everything a sketch
needs:

* A Omega, and the sums of the rows, are extra value columns of one call;
* the entropy of a row is its log-sum-exp less scale q (A K), with the keys as values;
* the Frobenius norm is sum exp(lse' - 2 lse), with lse' that of a call at twice the scale;
* A^T Q is attention too: a_ij = exp(scale q_i k_j - lse_i), so with keys [scale q, -lse], queries [k, 1] and time turned
  round it is the output of a causal call, times the sum of its own row.
"""

from __future__ import annotations

import torch
from routing_kernels import block_attention, block_rows
from torch import Tensor

from workbench.signals.rank_sketch import Sketch, from_image

BLOCK = 64


def kernel_sketch(
    q: Tensor,
    k: Tensor,
    scale: float,
    *,
    window: int = 0,
    sinks: Tensor | None = None,
    width: int = 16,
    seed: int = 0,
    backend: str = "auto",
) -> Sketch:
    """:func:`workbench.signals.rank_sketch.sketch` of the causal maps of q [N, S, D] and k [Nkv, S, D], in four calls of
    attention and memory for N x S x (2 D + 3 ``width``) numbers.

    ``window`` and ``sinks`` [N] are those of :func:`routing_kernels.block_attention`. There is no cap on the products: with
    one, A^T is no attention.
    """
    heads, length, _ = q.shape
    if not 1 <= width <= length:
        raise ValueError(f"A sketch of {width} columns does not fit a map of {length} tokens.")
    q, k = q.detach().float()[None], k.detach().float()[None]
    every = k.repeat_interleave(heads // k.shape[1], dim=1)
    blocks = -(-length // BLOCK)
    ptr, col = block_rows(torch.ones(heads, blocks, blocks, dtype=torch.bool, device=q.device).tril())

    def attend(
        query: Tensor, key: Tensor, value: Tensor, by: float, own: Tensor | None, extra: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        found = block_attention(
            query,
            key,
            value,
            ptr,
            col,
            BLOCK,
            by,
            True,
            None,
            own,
            extra,
            window,
            stats=True,
            backend=backend,
        )
        return found.o[0], found.lse[0], found.sketch

    generator = torch.Generator().manual_seed(seed)
    omega = torch.randn(length, width, generator=generator).to(q.device)
    columns = torch.cat([omega, omega.new_ones(length, 1)], dim=1)
    keys, lse, products = attend(q, k, k, scale, sinks, columns)
    image, total = products[0, ..., :width], products[0, ..., width].double()
    lse = lse.double()
    entropy = total.log() + lse - scale * (q[0].double() * keys.double()).sum(-1) / total
    squares = (attend(q, k, k[..., :1], 2 * scale, None)[1].double() - 2 * lse).exp().sum(-1)

    turned_keys = torch.cat([q * scale, -lse.float()[None, ..., None]], dim=-1).flip(2)
    turned_queries = torch.cat([every, torch.ones_like(every[..., :1])], dim=-1).flip(2)

    def transposed(basis: Tensor) -> Tensor:
        mean, weight, _ = attend(turned_queries, turned_keys, basis[None].flip(2), 1.0, None)
        return (mean * weight.exp().unsqueeze(-1)).flip(1)

    def times(basis: Tensor) -> Tensor:
        return attend(q, every, basis[None], scale, sinks)[0]

    return from_image(image, transposed, times, squares, entropy.clamp(min=0.0).mean(-1))
