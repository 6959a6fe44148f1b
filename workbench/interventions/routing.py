"""Applying re-routing edits to one layer of one forward pass: tensors in, tensors out, no model in sight.

T tokens, E experts, k choices. Edits act stage by stage (:class:`workbench.interventions.reroute.Stage`). Tokens that no
edit touches keep the model's own ids and weights, bit for bit. A slot that executes nothing has id -1 and weight 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from workbench.errors import EditRefused
from workbench.interventions import reroute
from workbench.interventions.edit import Rule

if TYPE_CHECKING:
    from torch import Tensor

Scoped: TypeAlias = "tuple[reroute.Reroute, Tensor]"
"""An edit with the boolean mask [T] of the tokens it holds for."""

Routes: TypeAlias = "Callable[[reroute.Replay], tuple[Tensor, Tensor, Tensor]]"
"""Routes of another run for the tokens of this pass: ids [T, k], weights [T, k] and the mask [T] of tokens it has."""

NOTHING = -1


@dataclass(frozen=True)
class Native:
    """What the model alone decided: logits [T, E], ids [T, k] int64, weights [T, k]; and the absolute position [T] of
    each token and the layer, from which random choices are drawn."""

    logits: Tensor
    ids: Tensor
    weights: Tensor
    positions: Tensor
    layer: int


@dataclass(frozen=True)
class Routed:
    """What a layer executes: ids [T, k'] int64, weights [T, k'], the scores selection ranked by [T, E] fp32, and the
    mask [T] of tokens whose ids or weights differ from the model's own."""

    ids: Tensor
    weights: Tensor
    selection: Tensor
    edited: Tensor


def route(edits: Sequence[Scoped], native: Native, rule: Rule, routes: Routes) -> Routed:
    """Apply ``edits`` to the native choice of a layer.

    Raises :class:`EditRefused` where a token has too few experts left to choose from, or no slot left to force into.
    """
    import torch

    native_scores = rule.scores(native.logits)
    logits = _edit_logits(edits, native.logits)
    scores = _mix(edits, rule.scores(logits))
    reweighted = _differs(logits, native.logits) | _differs(scores, native_scores)
    selection = _edit_selection(edits, rule.selection(scores))
    rescored = reweighted | _differs(selection, rule.selection(native_scores))

    ids = native.ids
    if bool(rescored.any()):
        chosen = rule.choose(selection, ids.shape[-1])
        _refuse_exhausted(selection, chosen, rescored)
        ids = torch.where(rescored.unsqueeze(-1), chosen, ids)
    ids = _policies(edits, ids, selection, scores, rule, native)
    # The same set of experts with untouched scores is the model's own decision: keep its slot order and weights.
    renew = reweighted | ~_same_set(ids, native.ids)
    ids, own = _align(ids, native.ids, NOTHING)
    weights, own_weights = _align(_weigh(rule, scores, ids).to(native.weights.dtype), native.weights, 0)
    ids = torch.where(renew.unsqueeze(-1), ids, own)
    weights = torch.where(renew.unsqueeze(-1), weights, own_weights)

    ids, weights = _force(edits, ids, weights, selection, scores, rule)
    ids = _permute(edits, ids)
    weights = _reweigh(edits, ids, weights)
    ids, weights = _replay(edits, ids, weights, routes)
    own, ids = _align(own, ids, NOTHING)
    own_weights, weights = _align(own_weights, weights, 0)
    return Routed(ids, weights, selection, _differs(ids, own) | _differs(weights, own_weights))


# Logits and scores


def _edit_logits(edits: Sequence[Scoped], logits: Tensor) -> Tensor:
    import torch

    for edit, where in edits:
        if isinstance(edit, reroute.Bias) and edit.at == "logits":
            delta = torch.tensor(edit.vector(logits.shape[-1]), dtype=logits.dtype, device=logits.device)
            logits = torch.where(where.unsqueeze(-1), logits + delta, logits)
        elif isinstance(edit, reroute.Temperature):
            logits = torch.where(where.unsqueeze(-1), logits / edit.tau, logits)
    for edit, where in edits:
        if isinstance(edit, reroute.Ban | reroute.Allow) and edit.at == "logits":
            logits = torch.where(where.unsqueeze(-1), _banned(edit, logits), logits)
    return logits


def _mix(edits: Sequence[Scoped], scores: Tensor) -> Tensor:
    import torch

    for edit, where in edits:
        if isinstance(edit, reroute.ScoreMix) and edit.alpha > 0:
            given = torch.tensor(edit.scores, dtype=scores.dtype, device=scores.device)
            scores = torch.where(where.unsqueeze(-1), torch.lerp(scores, given, edit.alpha), scores)
    return scores


def _edit_selection(edits: Sequence[Scoped], selection: Tensor) -> Tensor:
    import torch

    for edit, where in edits:
        if isinstance(edit, reroute.Bias) and edit.at == "scores":
            delta = torch.tensor(
                edit.vector(selection.shape[-1]), dtype=selection.dtype, device=selection.device
            )
            selection = torch.where(where.unsqueeze(-1), selection + delta, selection)
    for edit, where in edits:
        # A ban at the logits is repeated here: a zero probability would still beat a negative corrected score.
        if isinstance(edit, reroute.Ban | reroute.Allow):
            selection = torch.where(where.unsqueeze(-1), _banned(edit, selection), selection)
    return selection


def _banned(edit: reroute.Ban | reroute.Allow, values: Tensor) -> Tensor:
    import torch

    out = torch.zeros(values.shape[-1], dtype=torch.bool, device=values.device)
    out[list(edit.experts)] = True
    return values.masked_fill(out if isinstance(edit, reroute.Ban) else ~out, float("-inf"))


def _refuse_exhausted(selection: Tensor, chosen: Tensor, where: Tensor) -> None:
    short = selection.gather(-1, chosen).isneginf().any(dim=-1) & where
    if bool(short.any()):
        token = int(short.nonzero()[0, 0])
        raise EditRefused(
            f"The plan leaves token {token} of the pass with fewer than {chosen.shape[-1]} experts to choose from.",
            "Ban fewer experts, or (where the model selects groups first) leave a whole group usable.",
        )


# The choice


def _policies(
    edits: Sequence[Scoped], ids: Tensor, selection: Tensor, scores: Tensor, rule: Rule, native: Native
) -> Tensor:
    import torch

    for edit, where in edits:
        if isinstance(edit, reroute.Policy):
            chosen = _policy(edit, where, selection, scores, rule, native)
            chosen, ids = _align(chosen, ids, NOTHING)
            ids = torch.where(where.unsqueeze(-1), chosen, ids)
    return ids


def _policy(
    edit: reroute.Policy, where: Tensor, selection: Tensor, scores: Tensor, rule: Rule, native: Native
) -> Tensor:
    """The choice [T, k'] of one policy for every token."""
    k, experts = native.ids.shape[-1], selection.shape[-1]
    if isinstance(edit, reroute.Random):
        drawn = _uniform(edit.seed, native.layer, native.positions, experts)
        chosen = drawn.masked_fill(selection.isneginf(), float("-inf")).topk(k, dim=-1).indices
    elif isinstance(edit, reroute.TopK):
        chosen = rule.choose(selection, edit.k)
    elif isinstance(edit, reroute.RankOffset):
        ranked = rule.choose(selection, k + edit.shift)
        # Not every family sorts its choice, so the rank is taken from the scores.
        ranked = ranked.gather(-1, selection.gather(-1, ranked).argsort(dim=-1, descending=True, stable=True))
        chosen = ranked[..., edit.shift :]
    else:
        assert isinstance(edit, reroute.TopP | reroute.Threshold)
        return _by_share(edit, selection, scores, rule)
    _refuse_exhausted(selection, chosen, where)
    return chosen


def _by_share(
    edit: reroute.TopP | reroute.Threshold, selection: Tensor, scores: Tensor, rule: Rule
) -> Tensor:
    experts = selection.shape[-1]
    ranked = rule.choose(selection, experts)
    ranked = ranked.gather(-1, selection.gather(-1, ranked).argsort(dim=-1, descending=True, stable=True))
    legal = ~selection.gather(-1, ranked).isneginf()
    distribution = scores.softmax(-1) if rule.ranks_logits else scores / scores.sum(-1, keepdim=True)
    share = distribution.gather(-1, ranked)
    enough = share.cumsum(-1) - share < edit.p if isinstance(edit, reroute.TopP) else share >= edit.tau
    enough[..., 0] = True
    if edit.max_k is not None:
        enough[..., edit.max_k :] = False
    kept = enough & legal
    # A correction bias ranks otherwise than by share, so the kept ones need not be the first ones.
    first = kept.int().argsort(dim=-1, descending=True, stable=True)[..., : max(1, int(kept.sum(-1).max()))]
    return ranked.masked_fill(~kept, NOTHING).gather(-1, first)


def _uniform(seed: int, layer: int, positions: Tensor, experts: int) -> Tensor:
    """Uniform numbers in [0, 1) [T, experts] fp64 that depend on seed, layer, position and expert alone.

    The finaliser of SplitMix64 (Steele, Lea and Flood 2014) over their packed index; int64 wraps as uint64 does.
    """
    import torch

    x = (positions.unsqueeze(-1) * 65_536 + torch.arange(experts, device=positions.device)) * 4_096 + layer
    x = x + (((seed + 1) * 0x9E3779B97F4A7C15 + 2**63) % 2**64 - 2**63)
    for shift, factor in ((30, -4_658_895_280_553_007_687), (27, -7_723_592_293_110_705_685), (31, 1)):
        # A logical shift: the arithmetic one of int64 would smear the sign.
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return ((x >> 11) & ((1 << 53) - 1)).double() / (1 << 53)


def _force(
    edits: Sequence[Scoped], ids: Tensor, weights: Tensor, selection: Tensor, scores: Tensor, rule: Rule
) -> tuple[Tensor, Tensor]:
    import torch

    kept = (
        ids == NOTHING
    )  # slots that may not be given away: unused ones, and those that hold a forced expert
    changed = torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)
    explicit: list[tuple[Tensor, float]] = []
    for number, (edit, where) in enumerate(edits):
        if not isinstance(edit, reroute.Force):
            continue
        for expert in edit.experts:
            holds = where & ~_banned_later(edits[number + 1 :], expert, where)
            enter = holds & ~(ids == expert).any(dim=-1)
            if bool((enter & kept.all(dim=-1)).any()):
                raise EditRefused(
                    f"The plan forces more experts on one token than the {ids.shape[-1]} it uses.",
                    "Force fewer experts, or give the edits different tokens.",
                )
            rank = selection.gather(-1, ids.clamp(min=0)).masked_fill(kept, float("inf"))
            slot = torch.nn.functional.one_hot(rank.argmin(dim=-1), ids.shape[-1]).bool()
            ids = torch.where(enter.unsqueeze(-1) & slot, expert, ids)
            changed |= enter
            here = (ids == expert) & holds.unsqueeze(-1)
            kept = kept | here
            if edit.weight is not None:
                explicit.append((here, edit.weight))
    if bool(changed.any()):
        weights = torch.where(changed.unsqueeze(-1), _weigh(rule, scores, ids).to(weights.dtype), weights)
    for here, weight in explicit:
        weights = weights.masked_fill(here, weight)
    return ids, weights


def _banned_later(later: Sequence[Scoped], expert: int, where: Tensor) -> Tensor:
    """Tokens [T] at which one of the edits after a force takes its expert away again."""
    import torch

    banned = torch.zeros_like(where)
    for edit, elsewhere in later:
        bans = isinstance(edit, reroute.Ban) and expert in edit.experts
        if bans or (isinstance(edit, reroute.Allow) and expert not in edit.experts):
            banned |= elsewhere
    return banned


def _permute(edits: Sequence[Scoped], ids: Tensor) -> Tensor:
    import torch

    for edit, where in edits:
        if isinstance(edit, reroute.Permute):
            moved = torch.tensor(edit.map, device=ids.device)[ids.clamp(min=0)]
            ids = torch.where(where.unsqueeze(-1) & (ids != NOTHING), moved, ids)
    return ids


def _replay(edits: Sequence[Scoped], ids: Tensor, weights: Tensor, routes: Routes) -> tuple[Tensor, Tensor]:
    import torch

    for edit, where in edits:
        if not isinstance(edit, reroute.Replay):
            continue
        other_ids, other_weights, known = routes(edit)
        other_ids, ids = _align(other_ids, ids, NOTHING)
        other_weights, weights = _align(other_weights.to(weights.dtype), weights, 0)
        take = (where & known).unsqueeze(-1)
        ids = torch.where(take, other_ids, ids)
        weights = torch.where(take, other_weights, weights)
    return ids, weights


# Weights


def _weigh(rule: Rule, scores: Tensor, ids: Tensor) -> Tensor:
    """The family's own weights for ``ids`` [T, k']; unused slots count nothing, in the normalisation too."""
    import torch

    nothing = float("-inf") if rule.ranks_logits else 0.0
    column = scores.new_full((*scores.shape[:-1], 1), nothing)
    return rule.weigh(torch.cat([scores, column], dim=-1), torch.where(ids == NOTHING, scores.shape[-1], ids))


def _reweigh(edits: Sequence[Scoped], ids: Tensor, weights: Tensor) -> Tensor:
    import torch

    used = ids != NOTHING
    for edit, where in edits:
        if isinstance(edit, reroute.Uniform):
            mean = weights.sum(-1, keepdim=True) / used.sum(-1, keepdim=True)
            weights = torch.where(where.unsqueeze(-1) & used, mean, weights)
        elif isinstance(edit, reroute.Weights):
            new = _normalised(edit, _rescaled(edit, ids, weights), weights)
            weights = torch.where(where.unsqueeze(-1) & used, new, weights)
    return weights


def _rescaled(edit: reroute.Weights, ids: Tensor, weights: Tensor) -> Tensor:
    import torch

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


# Tensors of ragged width


def _align(one: Tensor, other: Tensor, fill: int) -> tuple[Tensor, Tensor]:
    """Both tensors [T, .] at the larger of their widths, filled on the right."""
    from torch.nn.functional import pad

    width = max(one.shape[-1], other.shape[-1])
    first, second = (
        t if t.shape[-1] == width else pad(t, (0, width - t.shape[-1]), value=fill) for t in (one, other)
    )
    return first, second


def _same_set(one: Tensor, other: Tensor) -> Tensor:
    one, other = _align(one, other, NOTHING)
    return (one.sort(dim=-1).values == other.sort(dim=-1).values).all(dim=-1)


def _differs(now: Tensor, before: Tensor) -> Tensor:
    """Rows [T] in which two tensors differ in any element (NaN equals NaN: an untouched NaN is not a change)."""
    return ((now != before) & ~((now != now) & (before != before))).any(dim=-1)
