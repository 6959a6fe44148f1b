"""How much of its freedom an attention map uses: rank at a stated tolerance, and three companions that need none.

A causal softmax map is triangular with a positive diagonal, so its exact rank is always full: a rank means something
only together with its tolerance.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from routing_kernels import map_ranks
from torch import Tensor


class Ranks(NamedTuple):
    """One value per map, each [...]: ``rank`` int64, the others floating."""

    rank: Tensor
    stable_rank: Tensor
    effective_rank: Tensor
    entropy: Tensor


def attention_map(
    q: Tensor,
    k: Tensor,
    scale: float,
    mask: Tensor | None = None,
    rows: Tensor | None = None,
    *,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention probabilities [B, N, R, S] in fp32: softmax(q k^T x scale + mask), as eager attention computes them.

    Parameters
    ----------
    q, k
        Queries [B, N, Sq, D] and keys [B, Nkv, S, D] after position encoding; N is a multiple of Nkv, and each key head
        serves N / Nkv consecutive query heads. Where Sq < S the queries are the last Sq positions.
    mask
        Added to the scaled products, or boolean with True where attention is allowed; broadcasts to [B, N, Sq, S].
        ``None`` is causal.
    rows
        Query rows [R] to compute; all of them where ``None``. The map of all rows is then never formed.
    softcap
        Products are squashed to c tanh(x / c) before the mask (Gemma 2).
    sinks
        One extra logit per head [N] or [B, N] that takes part in the softmax and is left out of the map (gpt-oss), so
        that rows sum to less than one.
    """
    heads, kv_heads = q.shape[1], k.shape[1]
    if heads % kv_heads:
        raise ValueError(f"{heads} query heads cannot share {kv_heads} key heads evenly.")
    length, keys = q.shape[2], k.shape[2]
    if mask is None:
        mask = torch.ones(length, keys, dtype=torch.bool, device=q.device).tril(keys - length)
    if rows is not None:
        q = q[:, :, rows]
        mask = mask[..., rows, :] if mask.shape[-2] > 1 else mask
    if heads != kv_heads:  # a copy where none is needed would lie otherwise in memory, and round otherwise
        k = k.repeat_interleave(heads // kv_heads, dim=1)
    logits = q @ k.transpose(2, 3) * scale
    if softcap is not None:
        logits = (logits / softcap).tanh() * softcap
    if mask.dtype == torch.bool:
        # The lowest number rather than -inf: a row of padding without any key then stays uniform instead of NaN.
        mask = torch.zeros_like(mask, dtype=logits.dtype).masked_fill(~mask, torch.finfo(logits.dtype).min)
    logits = logits + mask
    if sinks is None:
        return logits.softmax(-1, dtype=_working(logits))
    extra = sinks.to(logits)[..., None, None].expand(*logits.shape[:-1], 1)
    return torch.cat([logits, extra], dim=-1).softmax(-1, dtype=_working(logits))[..., :-1]


def ranks(attention: Tensor, tolerance: float = 0.01, columns: Tensor | None = None) -> Ranks:
    """Rank and its companions of attention maps [..., R, R], or of whole rows [..., R, S] at their own ``columns`` [R], or
    [B, R] where every entry of the first axis has columns of its own.

    With singular values s1 >= s2 >= ... of the square map A:

    * ``rank``: how many exceed ``tolerance`` x s1 (ARank of gamma-MoD, Luo et al. 2024); an order of layers by it holds for
      one tolerance: between 0.001 and 0.01 the layers of the demo model change places;
    * ``stable_rank``: ||A||_F^2 / ||A||_2^2;
    * ``effective_rank``: exp of the entropy of s / sum(s) (Roy and Vetterli 2007);
    * ``entropy``: mean over rows of the entropy, in nats, of the attention distribution (of the whole row, where
      ``columns`` are given; rows are normalised first, since sinks leave them short of one).

    A map of zeros has rank, stable and effective rank 0. A map that is not finite has rank 0 and NaN elsewhere.

    Maps in fp32 go through the kernel :func:`routing_kernels.map_ranks`, whose singular values are those of an SVD to
    1e-7 s1; maps in fp64, and a tolerance below 1e-6, through an SVD.
    """
    if not 0 <= tolerance < 1:
        raise ValueError(f"The tolerance is {tolerance}, but must be at least 0 and less than 1.")
    if columns is None and attention.shape[-1] != attention.shape[-2]:
        raise ValueError(f"An attention map of shape {tuple(attention.shape)} is not square.")
    attention = attention.to(_working(attention))
    found = map_ranks(attention, tolerance, columns, "auto" if tolerance >= 1e-6 else "reference")
    return Ranks(found.rank.long(), *found[1:])


@lru_cache(maxsize=256)
def sample(length: int, limit: int = 256, seed: int = 0) -> Tensor | None:
    """``limit`` distinct positions of ``length``, sorted, int64 on the CPU; ``None`` where all of them fit.

    The principal submatrix at these rows and columns stands for a map too long to decompose. Uniform without
    replacement, the same for the same seed, from a generator of its own.
    """
    if length <= limit:
        return None
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(length, generator=generator)[:limit].sort().values


def _working(values: Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32
