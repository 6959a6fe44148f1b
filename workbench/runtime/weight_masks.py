"""Which entries of a projection a weight mask keeps: by magnitude, by activation, exchanged, drawn, or given."""

from __future__ import annotations

from collections import OrderedDict
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from workbench.errors import EditRefused, PlanError
from workbench.interventions.mask import WeightMask
from workbench.runtime.artefacts import opened
from workbench.runtime.calibrate import tensor
from workbench.runtime.depth.decide import uniform

CYCLES = 50
"""Most exchanges of one row by prune-and-grow."""


REMEMBERED = 8
"""Edits whose masks are kept for a module: a run, its evaluation and its controls ask for the same ones again."""

_Masks = OrderedDict[str, dict[tuple[str, int, int], Tensor]]
_KNOWN: WeakKeyDictionary[nn.Module, _Masks] = WeakKeyDictionary()


def kept_entries(
    edit: WeightMask, module: nn.Module, weight: Tensor, layer: int, part: str, reads: str
) -> Tensor:
    """Mask [N, K] (bool) of the entries of ``weight`` that stay; not to be written to.

    ``module`` holds the weight, ``part`` names the projection, ``reads`` the moments of what it reads in the calibration
    (``LAYER.input.PART``). The mask is remembered until the weight is written to.
    """
    known = _KNOWN.setdefault(module, OrderedDict())
    name = f"{layer} {edit.model_dump_json()}"
    masks = known.setdefault(name, {})
    known.move_to_end(name)
    while len(known) > REMEMBERED:
        known.popitem(last=False)
    key = part, weight._version, weight.data_ptr()
    if key not in masks:
        masks[key] = _kept(edit, weight, layer, part, reads)
    return masks[key]


def _kept(edit: WeightMask, weight: Tensor, layer: int, part: str, reads: str) -> Tensor:
    if edit.criterion == "given":
        return _given(edit, weight, f"{layer}.{part}")
    weight = weight.detach().float().cpu()
    scores = _scores(edit, weight, layer, part, reads)
    kept = _best(edit, scores)
    if edit.criterion == "prune-and-grow":
        assert edit.source is not None
        known = opened(edit.source, "calibration")
        mean, variance = tensor(known, f"{reads}.mean"), tensor(known, f"{reads}.variance")
        kept = exchanged(weight, kept, scores, mean, variance, edit.m if edit.shape == "n:m" else None)
    return kept


def _given(edit: WeightMask, weight: Tensor, name: str) -> Tensor:
    assert edit.source is not None
    found = opened(edit.source, "masks").tensors.get(name)
    if found is None or found.shape != weight.shape:
        raise PlanError(
            f"The masks {edit.source} have no mask {list(weight.shape)} called {name}.",
            "Give one for each named part of each layer in scope.",
        )
    return found.bool()


def _scores(edit: WeightMask, weight: Tensor, layer: int, part: str, reads: str) -> Tensor:
    if edit.criterion == "random":
        salt = sum((n + 1) * ord(letter) for n, letter in enumerate(part))
        return uniform(edit.seed, layer * 65536 + salt, torch.arange(weight.numel())).reshape(weight.shape)
    if edit.criterion == "magnitude":
        return weight.abs()
    assert edit.source is not None
    return weight.abs() * tensor(opened(edit.source, "calibration"), f"{reads}.norm")


def _best(edit: WeightMask, scores: Tensor) -> Tensor:
    rows, columns = scores.shape
    if edit.shape == "n:m":
        assert edit.n is not None and edit.m is not None
        if columns % edit.m:
            raise EditRefused(
                f"A projection with {columns} inputs has no groups of {edit.m}.",
                "Choose an m that divides it.",
            )
        groups = scores.unflatten(1, (-1, edit.m))
        at = groups.topk(edit.n, dim=-1).indices
        return torch.zeros_like(groups, dtype=torch.bool).scatter(-1, at, True).flatten(1)
    ratio = edit.ratio or 0.0
    if edit.shape == "unstructured":
        at = scores.topk(columns - round(ratio * columns), dim=-1).indices
        return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, at, True)
    along = 1 if edit.shape == "rows" else 0
    units = scores.norm(dim=along)
    stays = torch.zeros(len(units), dtype=torch.bool)
    stays[units.topk(len(units) - round(ratio * len(units))).indices] = True
    return stays[:, None].expand(rows, columns) if along else stays[None, :].expand(rows, columns)


def exchanged(
    weight: Tensor, kept: Tensor, harm: Tensor, mean: Tensor, variance: Tensor, group: int | None,
    cycles: int = CYCLES,
) -> Tensor:  # fmt: skip
    """``kept`` [N, K] with pairs of entries exchanged while this brings the expected error of a row nearer to 0.

    The expected error of a row is the sum of what its masked entries would add to the output, ``w E[x]``. The masked entry
    that best lessens it, by ``w E[x] / Var[x]``, comes back; of the kept entries whose loss lessens it too the one with the
    least ``harm`` goes (within the same ``group`` of neighbours, where there are groups). A row stops when no exchange
    lessens its error (DSnoT: Zhang et al. 2023, arXiv 2310.08915).
    """
    kept = kept.clone()
    adds = weight * mean
    gain = adds / variance.clamp(min=1e-12)
    rows = torch.arange(len(weight))
    active = torch.ones(len(weight), dtype=torch.bool)
    for _ in range(cycles):
        error = (adds * ~kept).sum(-1)
        sign = error.sign()[:, None]
        grow_score = (gain * sign).masked_fill(kept | (adds * sign <= 0), -torch.inf)
        grow = grow_score.argmax(-1)
        may_go = kept & (adds * sign < 0)
        if group is not None:
            may_go &= torch.arange(weight.shape[1]) // group == (grow // group)[:, None]
        prune = harm.masked_fill(~may_go, torch.inf).argmin(-1)
        possible = torch.isfinite(grow_score[rows, grow]) & may_go[rows, prune]
        after = error - adds[rows, grow] + adds[rows, prune]
        active &= possible & (after.abs() < error.abs())
        if not bool(active.any()):
            break
        at = rows[active]
        kept[at, grow[active]] = True
        kept[at, prune[active]] = False
    return kept


def overlap(one: Tensor, other: Tensor) -> tuple[float, float]:
    """Jaccard overlap of two masks, and what chance gives at their densities: ``p q / (p + q - p q)``."""
    both, either = (one & other).sum(), (one | other).sum()
    p, q = float(one.float().mean()), float(other.float().mean())
    chance = p * q / (p + q - p * q) if p + q else 1.0
    return (float(both / either) if either else 1.0), chance
