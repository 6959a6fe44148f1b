"""Applying re-routing edits to one layer of one forward pass: tensors in, tensors out, no model in sight.

T tokens, E experts, k choices. Edits act where routing happens, in this order: ``router_logits`` (bias), ``expert_scores``
(bias, ban), the family's own choice, then ``expert_ids`` (force, replay). Tokens that no edit touches keep the model's
own ids and weights, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from workbench.errors import EditRefused
from workbench.interventions.edit import Rule
from workbench.interventions.reroute import Ban, Bias, Force, Replay, Reroute

if TYPE_CHECKING:
    from torch import Tensor

Scoped: TypeAlias = "tuple[Reroute, Tensor]"
"""An edit with the boolean mask [T] of the tokens it holds for."""

Routes: TypeAlias = "Callable[[Replay], tuple[Tensor, Tensor, Tensor]]"
"""Routes of another run for the tokens of this pass: ids [T, k], weights [T, k] and the mask [T] of tokens it has."""


@dataclass(frozen=True)
class Routed:
    """What a layer executes: ids [T, k] int64, weights [T, k], the scores selection ranked by [T, E] fp32, and the
    mask [T] of tokens whose ids or weights differ from the model's own."""

    ids: Tensor
    weights: Tensor
    selection: Tensor
    edited: Tensor


def route(
    edits: Sequence[Scoped], logits: Tensor, ids: Tensor, weights: Tensor, rule: Rule, routes: Routes
) -> Routed:
    """Apply ``edits`` to a layer's native ``logits`` [T, E], ``ids`` [T, k] and ``weights`` [T, k].

    Raises :class:`EditRefused` where a token has too few experts left to choose from, or no slot left to force into.
    """
    import torch

    logits_now = _edit_logits(edits, logits)
    scores = rule.scores(logits_now)
    native_selection = rule.selection(scores)
    selection = _edit_selection(edits, native_selection)
    reweighted = _differs(logits_now, logits)
    rescored = reweighted | _differs(selection, native_selection)

    ids_now, weights_now = ids, weights
    if bool(rescored.any()):
        chosen = rule.choose(selection, ids.shape[-1])
        _refuse_exhausted(selection, chosen, rescored)
        # The same set of experts with untouched logits is the model's own decision: keep its slot order and weights.
        same_set = (chosen.sort(dim=-1).values == ids.sort(dim=-1).values).all(dim=-1)
        take = (rescored & ~(same_set & ~reweighted)).unsqueeze(-1)
        ids_now = torch.where(take, chosen, ids)
        weights_now = torch.where(take, rule.weigh(scores, chosen).to(weights.dtype), weights)

    ids_now, weights_now = _force(edits, ids_now, weights_now, selection, scores, rule)
    for edit, where in edits:
        if isinstance(edit, Replay):
            other_ids, other_weights, known = routes(edit)
            if other_ids.shape != ids.shape:
                raise EditRefused(
                    f"Run {edit.run} used {other_ids.shape[-1]} experts a token, this model uses {ids.shape[-1]}.",
                    "Replay a run of a model with the same number of experts per token.",
                )
            take = (where & known).unsqueeze(-1)
            ids_now = torch.where(take, other_ids, ids_now)
            weights_now = torch.where(take, other_weights.to(weights.dtype), weights_now)

    edited = _differs(ids_now, ids) | _differs(weights_now, weights)
    return Routed(ids_now, weights_now, selection, edited)


def _edit_logits(edits: Sequence[Scoped], logits: Tensor) -> Tensor:
    import torch

    for edit, where in edits:
        if isinstance(edit, Bias) and edit.at == "logits":
            delta = torch.tensor(edit.vector(logits.shape[-1]), dtype=logits.dtype, device=logits.device)
            logits = torch.where(where.unsqueeze(-1), logits + delta, logits)
        elif isinstance(edit, Ban) and edit.at == "logits":
            logits = torch.where(where.unsqueeze(-1), _banned(edit, logits), logits)
    return logits


def _edit_selection(edits: Sequence[Scoped], selection: Tensor) -> Tensor:
    import torch

    for edit, where in edits:
        if isinstance(edit, Bias) and edit.at == "scores":
            delta = torch.tensor(
                edit.vector(selection.shape[-1]), dtype=selection.dtype, device=selection.device
            )
            selection = torch.where(where.unsqueeze(-1), selection + delta, selection)
        elif isinstance(edit, Ban):
            # A ban at the logits is repeated here: a zero probability would still beat a negative corrected score.
            selection = torch.where(where.unsqueeze(-1), _banned(edit, selection), selection)
    return selection


def _banned(edit: Ban, values: Tensor) -> Tensor:
    values = values.clone()
    values[..., list(edit.experts)] = float("-inf")
    return values


def _refuse_exhausted(selection: Tensor, chosen: Tensor, rescored: Tensor) -> None:
    short = selection.gather(-1, chosen).isneginf().any(dim=-1) & rescored
    if bool(short.any()):
        token = int(short.nonzero()[0, 0])
        raise EditRefused(
            f"The plan's bans leave token {token} of the pass with fewer than {chosen.shape[-1]} experts to choose from.",
            "Ban fewer experts, or (where the model selects groups first) leave a whole group usable.",
        )


def _force(
    edits: Sequence[Scoped], ids: Tensor, weights: Tensor, selection: Tensor, scores: Tensor, rule: Rule
) -> tuple[Tensor, Tensor]:
    import torch

    kept = torch.zeros_like(ids, dtype=torch.bool)  # slots that hold a forced expert
    changed = torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)
    explicit: list[tuple[Tensor, float]] = []
    for number, (edit, where) in enumerate(edits):
        if not isinstance(edit, Force):
            continue
        for expert in edit.experts:
            holds = where
            for later, elsewhere in edits[number + 1 :]:
                if isinstance(later, Ban) and expert in later.experts:
                    holds = holds & ~elsewhere
            present = (ids == expert).any(dim=-1)
            rank = selection.gather(-1, ids).masked_fill(kept, float("inf"))
            slot = torch.nn.functional.one_hot(rank.argmin(dim=-1), ids.shape[-1]).bool()
            enter = holds & ~present
            if bool((enter & kept.all(dim=-1)).any()):
                raise EditRefused(
                    f"The plan forces more experts on one token than the {ids.shape[-1]} it uses.",
                    "Force fewer experts, or give the edits different tokens.",
                )
            ids = torch.where(enter.unsqueeze(-1) & slot, expert, ids)
            changed |= enter
            here = (ids == expert) & holds.unsqueeze(-1)
            kept |= here
            if edit.weight is not None:
                explicit.append((here, edit.weight))
    if bool(changed.any()):
        weights = torch.where(changed.unsqueeze(-1), rule.weigh(scores, ids).to(weights.dtype), weights)
    for here, weight in explicit:
        weights = weights.masked_fill(here, weight)
    return ids, weights


def _differs(now: Tensor, before: Tensor) -> Tensor:
    """Rows [T] in which two tensors differ in any element (NaN equals NaN: an untouched NaN is not a change)."""
    return ((now != before) & ~((now != now) & (before != before))).any(dim=-1)
