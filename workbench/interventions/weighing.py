"""The combine weights of a choice: by the family's rule, then as the edits re-mix them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from workbench.errors import EditRefused
from workbench.interventions import reroute
from workbench.interventions.edit import Edit, Rule
from workbench.interventions.ragged import NOTHING
from workbench.interventions.vectors import pick

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.interventions.routing import Native

Scoped: TypeAlias = "tuple[Edit, Tensor]"
"""An edit with the boolean mask [T] of the tokens it holds for."""


def weigh(rule: Rule, scores: Tensor, ids: Tensor) -> Tensor:
    """The family's own weights for ``ids`` [T, k']; unused slots count nothing, in the normalisation too."""
    import torch

    nothing = float("-inf") if rule.ranks_logits else 0.0
    column = scores.new_full((*scores.shape[:-1], 1), nothing)
    found = rule.weigh(
        torch.cat([scores, column], dim=-1), torch.where(ids == NOTHING, scores.shape[-1], ids)
    )
    return found.masked_fill(ids == NOTHING, 0)  # a token without any expert would divide zero by zero


def reweigh(edits: Sequence[Scoped], ids: Tensor, weights: Tensor, native: Native) -> Tensor:
    """The weights [T, k'] of ``ids`` after the edits of weights."""
    import torch

    used = ids != NOTHING
    for edit, where in edits:
        if isinstance(edit, reroute.Uniform):
            mean = weights.sum(-1, keepdim=True) / used.sum(-1, keepdim=True)
            weights = torch.where(where.unsqueeze(-1) & used, mean, weights)
        elif isinstance(edit, reroute.Weights):
            new = _normalised(edit, _rescaled(edit, ids, weights, native), weights)
            weights = torch.where(where.unsqueeze(-1) & used, new, weights)
    return weights


def _rescaled(edit: reroute.Weights, ids: Tensor, weights: Tensor, native: Native) -> Tensor:
    import torch

    if edit.add is not None:
        added = pick(edit, edit.add, native.layer, native.positions, weights).expand(len(ids), -1)
        return weights + added.gather(-1, ids.clamp(min=0))
    if edit.values is not None:
        values = torch.zeros(weights.shape[-1], dtype=weights.dtype, device=weights.device)
        values[: len(edit.values)] = torch.tensor(edit.values, dtype=weights.dtype)
        rank = weights.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
        return values[rank]
    if isinstance(edit.scale, dict):
        factor = torch.ones_like(weights)
        for expert, by in edit.scale.items():
            factor = torch.where(ids == expert, by, factor)
        return weights * factor
    assert edit.scale is not None
    return weights * edit.scale


def _normalised(edit: reroute.Weights, new: Tensor, old: Tensor) -> Tensor:
    import torch

    if edit.normalise == "as-is":
        return new
    total = new.sum(-1, keepdim=True)
    if bool((total == 0).any()):
        raise EditRefused(
            "reroute.weights leaves a token with weights that sum to zero, which cannot be normalised.",
            'Use normalise="as-is", or other weights.',
        )
    wanted = old.sum(-1, keepdim=True) if edit.normalise == "keep-sum" else torch.ones_like(total)
    # Where the sum is right already the weights are left alone, to the bit.
    return torch.where(total == wanted, new, new * (wanted / total))
