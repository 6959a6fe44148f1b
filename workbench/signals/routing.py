"""How decided a router is: margin to the next best expert, ties, entropy."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Margins(NamedTuple):
    """``margin`` [T] in units of the selection score, and ``tie`` [T] bool."""

    margin: Tensor
    tie: Tensor


def margins(selection: Tensor, k: int) -> Margins:
    """Distance between the k-th best and the next selection score [T, E], and whether they are equal.

    A small margin is a choice that rounding may flip. The margin is NaN where there is no runner-up to flip to: k equals
    E, every other expert is banned (score -inf), or fewer than k experts are legal at all. A tie is an equal, finite or
    +inf, pair at the border; its margin is 0.
    """
    if not 1 <= k <= selection.shape[-1]:
        raise ValueError(f"k is {k}, but there are {selection.shape[-1]} experts to choose from.")
    selection = _wide(selection)
    if k == selection.shape[-1]:
        rows = selection.shape[:-1]
        return Margins(selection.new_full(rows, torch.nan), selection.new_zeros(rows, dtype=torch.bool))
    best = selection.topk(k + 1, dim=-1).values
    last, runner_up = best[..., k - 1], best[..., k]
    legal = runner_up > -torch.inf
    tie = (last == runner_up) & legal
    margin = torch.where(tie, 0.0, last - runner_up)
    return Margins(torch.where(legal, margin, torch.nan), tie)


def group_margins(selection: Tensor, groups: int, chosen: int, worth: Literal["top2sum", "max"]) -> Tensor:
    """Distance [T] between the worth of the last group that may be chosen from and of the next, from ``selection`` [T, E].

    Experts stand in ``groups`` equal groups, of which the best ``chosen`` are legal. A group is worth the sum of its two
    best scores (DeepSeek-V3) or its best (DeepSeek-V2). NaN where all groups are legal.
    """
    grouped = _wide(selection).unflatten(-1, (groups, -1))
    value = grouped.topk(2, dim=-1).values.sum(-1) if worth == "top2sum" else grouped.amax(-1)
    if chosen >= groups:
        return torch.full_like(value[..., 0], torch.nan)
    best = value.topk(chosen + 1, dim=-1).values
    return best[..., chosen - 1] - best[..., chosen]


def entropy(logits: Tensor, score: str) -> Tensor:
    """Entropy [T] in nats of the router's distribution over all E experts, from its ``logits`` [T, E].

    The distribution is the family's own score normalised to one: the softmax, or ``sigmoid`` or ``sqrtsoftplus`` scores
    divided by their sum. A router that ranks by logits has the softmax of all of them. Between 0 and log E; banned
    experts (-inf) count nothing; NaN where every expert is banned.
    """
    logits = _wide(logits)
    # log(sigmoid / sum of sigmoids) without ever forming the sigmoids, which underflow together below -100.
    if score == "sigmoid":
        logits = F.logsigmoid(logits)
    elif score == "sqrtsoftplus":
        # log(softplus(x)) is x itself where softplus underflows to exp(x).
        logits = torch.where(logits < -15, logits, F.softplus(logits).log()) / 2
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    return (p * -log_p.masked_fill(log_p == -torch.inf, 0.0)).sum(-1)


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
