"""What each neuron does, in a state of fixed size: how often, how much, and how far at most it is active."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class NeuronCensus(NamedTuple):
    """Over the tokens of each row of a batch: their number, and of each neuron how many made it active (|a| at least the
    threshold), the sum of |a| and the largest |a|. A neuron that no token makes active is dead in that text."""

    tokens: Tensor
    active: Tensor
    total: Tensor
    largest: Tensor


class ChunkUnion(NamedTuple):
    """Of every full chunk of consecutive tokens [B, C]: ``union``, the share of the neurons that any of them makes active,
    and ``expected``, that share for as many independent tokens in which each neuron is active as often as in that row:
    mean over neurons of 1 - (1 - p)^c. Below it, neighbours share neurons.

    Source: chunk-level sparsity of BlockFFN (Song et al. 2025), with a popularity-aware null.
    """

    union: Tensor
    expected: Tensor


def census(a: Tensor, threshold: float, valid: Tensor | None = None) -> NeuronCensus:
    """Census of activations [B, S, F] over the tokens that are ``valid`` [B, S] (all, without)."""
    magnitude = a.abs() if a.dtype == torch.float64 else a.float().abs()
    active = magnitude >= threshold
    if valid is not None:
        magnitude = magnitude * valid.unsqueeze(-1)
        active = active & valid.unsqueeze(-1)
    tokens = torch.full(a.shape[:1], a.shape[1], device=a.device) if valid is None else valid.sum(-1)
    return NeuronCensus(tokens, active.count_nonzero(1), magnitude.sum(1), magnitude.amax(1))


def expert_census(
    activations: Callable[[int, Tensor], Tensor], ids: Tensor, rows: Tensor, batch: int, experts: int, width: int,
    threshold: float, valid: Tensor | None = None,
) -> NeuronCensus:  # fmt: skip
    """Census of the neurons of every expert, [batch, experts] and [batch, experts, width].

    ``activations(expert, tokens)`` gives those of some tokens [n, width]; ``ids`` [T, k] are the executed experts (an id
    outside of 0..experts-1 executes none), ``rows`` [T] the row of the batch of each token.
    """
    state = torch.zeros(3, batch, experts, width, device=ids.device)
    tokens = torch.zeros(batch, experts, dtype=torch.int64, device=ids.device)
    chosen = ids if valid is None else ids.masked_fill(~valid.unsqueeze(-1), -1)
    for expert in chosen.unique().tolist():
        if not 0 <= expert < experts:
            continue
        at = (chosen == expert).any(-1).nonzero().squeeze(-1)
        magnitude = activations(expert, at).float().abs()
        where = rows[at]
        tokens[:, expert] += torch.bincount(where, minlength=batch)
        state[0, :, expert].index_add_(0, where, (magnitude >= threshold).float())
        state[1, :, expert].index_add_(0, where, magnitude)
        index = where.unsqueeze(-1).expand_as(magnitude)
        state[2, :, expert] = state[2, :, expert].scatter_reduce(0, index, magnitude, "amax")
    return NeuronCensus(tokens, state[0].long(), state[1], state[2])


def chunk_union(a: Tensor, threshold: float, chunk: int, valid: Tensor | None = None) -> ChunkUnion:
    """Union of the active neurons of every full chunk of ``chunk`` tokens of activations [B, S, F]; a chunk with padding
    is NaN."""
    if chunk < 1:
        raise ValueError(f"A chunk holds at least one token, not {chunk}.")
    active = a.abs() >= threshold
    full = a.shape[1] // chunk
    seen = torch.ones(a.shape[:2], dtype=torch.bool, device=a.device) if valid is None else valid
    active = active & seen.unsqueeze(-1)
    pieces = (
        active[:, : full * chunk].unflatten(1, (full, chunk))
        if full
        else active.new_zeros(a.shape[0], 0, 1, a.shape[2])
    )
    union = pieces.any(2).float().mean(-1)
    rate = active.float().sum(1) / seen.sum(1, keepdim=True).clamp(min=1)
    expected = (1 - (1 - rate) ** chunk).mean(-1, keepdim=True).expand_as(union)
    whole = seen[:, : full * chunk].reshape(a.shape[0], full, chunk).all(-1)
    return ChunkUnion(torch.where(whole, union, torch.nan), torch.where(whole, expected, torch.nan))
