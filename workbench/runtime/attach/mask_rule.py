"""A mask of numbers or booleans read as the few things a kernel knows: causality, a window, padding at either end."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class MaskRule(NamedTuple):
    """Key j is seen by the query at position i if ``j <= i`` (where causal), ``j > i - window`` (where there is one) and
    ``starts <= j < lengths`` [B] (where there are any)."""

    causal: bool
    window: int
    starts: Tensor | None
    lengths: Tensor | None


MASKED = -1e4
"""What is added to a score to mask it is below this in every family (float16's lowest number is -65504)."""


def read_mask(mask: Tensor | None, batch: int, queries: int, keys: int, causal: bool) -> MaskRule | None:
    """The rule that gives ``mask`` exactly, or ``None`` where there is none: another mask for each head, a bias, holes.

    ``mask`` broadcasts to [B, N, Q, K]; ``None`` stands for causality where ``causal``, else for no mask at all. Queries
    are the last positions. A row of padding that sees nothing may be anything: nobody reads what comes out of it.
    """
    if mask is None:
        return MaskRule(causal, 0, None, None)
    allowed = _allowed(mask, queries, keys)
    if allowed is None:
        return None
    position = torch.arange(keys - queries, keys, device=mask.device)[:, None]
    key = torch.arange(keys, device=mask.device)
    late = key > position
    is_causal = not bool((allowed & late).any()) and bool(late.any()) or queries == 1
    seen = allowed.any(1)
    first = seen.int().argmax(-1)
    end = keys - seen.flip(-1).int().argmax(-1)
    empty = ~seen.any(-1)
    first, end = first.masked_fill(empty, 0), end.masked_fill(empty, 0)
    window = _window(allowed, position, key)
    wanted = (key >= first[:, None, None]) & (key < end[:, None, None])
    if is_causal:
        wanted = wanted & ~late
    if window:
        wanted = wanted & (key > position - window)
    if not torch.equal(wanted.expand(allowed.shape), allowed):
        return None
    return MaskRule(is_causal, window, _unless(first, 0, batch), _unless(end, keys, batch))


def _allowed(mask: Tensor, queries: int, keys: int) -> Tensor | None:
    """bool [B, Q, K], or ``None`` where heads differ or a number is neither 0 nor a mask's."""
    if mask.dim() != 4 or mask.shape[1] != 1 or mask.shape[2] not in (1, queries) or mask.shape[3] != keys:
        return None
    one = mask[:, 0]
    if one.dtype != torch.bool:
        allowed = one == 0
        if bool((~allowed & (one > MASKED)).any()):
            return None
        one = allowed
    return one.expand(one.shape[0], queries, keys)


def _window(allowed: Tensor, position: Tensor, key: Tensor) -> int:
    """How far back any query sees, where some query does not see as far as it could; 0 where every one does."""
    back = (position - key + 1).clamp(min=0)
    furthest = int((back * allowed).max())
    return furthest if furthest < int(position.max()) + 1 else 0


def _unless(value: Tensor, default: int, batch: int) -> Tensor | None:
    return None if bool((value == default).all()) else value.expand(batch).contiguous()
