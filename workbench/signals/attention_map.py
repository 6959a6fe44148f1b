"""Where attention looks: at itself, at the first token, nearby, far away."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class MapStatistics(NamedTuple):
    """Means over the query rows of attention maps, one value a map [...], floating; rows are normalised first.

    * ``entropy``: of the row's distribution over keys, in nats;
    * ``sink``: mass on the first ``sinks`` keys (attention sinks of StreamingLLM, Xiao et al. 2024);
    * ``local``: mass on keys less than ``window`` tokens back, the query itself included;
    * ``distance``: mean distance sum_j a_ij (i - j), in tokens;
    * ``decay``: the exponent g of mass ~ distance^-g, by least squares of the log of the mean mass a key at distance 1-2,
      2-4, 4-8, ... against the log of the middle of each of those ranges, weighted equally; keys among the sinks are left
      out. NaN with fewer than two ranges that hold mass.
    """

    entropy: Tensor
    sink: Tensor
    local: Tensor
    distance: Tensor
    decay: Tensor


def statistics(attention: Tensor, positions: Tensor, *, sinks: int = 1, window: int = 16) -> MapStatistics:
    """Statistics of whole rows [..., R, S] of causal attention maps; ``positions`` [R] (or [B, R]) are those of the rows.

    Rows at positions before ``sinks`` see nothing but sinks and are left out of every mean.
    """
    wide = attention if attention.dtype == torch.float64 else attention.float()
    total = wide.sum(-1, keepdim=True)
    wide = wide / torch.where(total > 0, total, 1.0)
    if positions.dim() == 2:
        positions = positions.reshape(positions.shape[0], *(1,) * (wide.dim() - 3), -1)
    back = positions.unsqueeze(-1) - torch.arange(wide.shape[-1], device=wide.device)  # distance of every key
    counted = (positions >= sinks).to(wide)
    rows = counted.sum(-1).clamp(min=1.0)

    def mean(values: Tensor) -> Tensor:
        return (values * counted).sum(-1) / rows

    return MapStatistics(
        entropy=mean(torch.special.entr(wide).sum(-1)),
        sink=mean(wide[..., :sinks].sum(-1)),
        local=mean((wide * (back < window)).sum(-1)),
        distance=mean((wide * back).sum(-1)),
        decay=_decay(wide, back, counted, sinks),
    )


def _decay(wide: Tensor, back: Tensor, counted: Tensor, sinks: int) -> Tensor:
    keys = torch.arange(wide.shape[-1], device=wide.device) >= sinks
    masses, middles = [], []
    low = 1
    while low < wide.shape[-1]:
        inside = ((back >= low) & (back < 2 * low) & keys).to(wide) * counted.unsqueeze(-1)
        held = inside.sum((-2, -1))
        mass = (wide * inside).sum((-2, -1)) / held.clamp(min=1.0)
        masses.append(torch.where(held > 0, mass, torch.zeros_like(mass)).expand(wide.shape[:-2]))
        middles.append(1.5 * low)
        low *= 2
    if not masses:
        return wide.new_full(wide.shape[:-2], torch.nan)
    y, x = torch.stack(masses, -1), torch.tensor(middles, dtype=wide.dtype, device=wide.device).log()
    known = (y > 0).to(wide)
    logs = torch.where(y > 0, y, 1.0).log()
    count = known.sum(-1)
    mx = (x * known).sum(-1) / count.clamp(min=1)
    my = (logs * known).sum(-1) / count.clamp(min=1)
    dx = (x - mx.unsqueeze(-1)) * known
    slope = (dx * (logs - my.unsqueeze(-1))).sum(-1) / dx.square().sum(-1).clamp(min=1e-12)
    return torch.where(count >= 2, -slope, torch.nan)
