"""Applying re-routing edits to one layer of one forward pass: tensors in, tensors out, no model in sight.

T tokens, E experts, k choices. Edits act stage by stage (:class:`workbench.interventions.reroute.Stage`). Tokens that no
edit touches keep the model's own ids and weights, bit for bit. A slot that executes nothing has id -1 and weight 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from workbench.errors import EditRefused
from workbench.interventions import reroute
from workbench.interventions.assignment import Assigned, balanced, by_experts, limit
from workbench.interventions.custom import Custom, Place
from workbench.interventions.edit import Rule
from workbench.interventions.ragged import NOTHING, align, differs, same_set
from workbench.interventions.vectors import pick
from workbench.interventions.weighing import Scoped, reweigh, weigh

if TYPE_CHECKING:
    from torch import Tensor


class Surroundings(Protocol):
    """What the routing of a layer may ask of the rest of the run. Tokens are those of the pass, flat [T]."""

    def routes(self, edit: reroute.Replay, /) -> tuple[Tensor, Tensor, Tensor]:
        """Routes of another run: ids [T, k], weights [T, k] and the mask [T] of tokens it has."""
        ...

    def executed(self, layer: int, /) -> tuple[Tensor, Tensor]:
        """Ids and weights [T, k'] that an earlier layer executed."""
        ...

    def mixed(self, edit: reroute.Mixed, scores: Tensor, /) -> Tensor:
        """The weighted means [T, E] of the ``scores`` [T, E] of the tokens that ``edit`` mixes, earlier passes included."""
        ...

    def earlier(self, edit: reroute.Pooled, /) -> Sequence[Assigned]:
        """What earlier passes of the run assigned under ``edit``."""
        ...

    def assigned(self, edit: reroute.Pooled, what: Assigned, /) -> None:
        """Keep what this pass assigned, for later ones."""
        ...


@dataclass(frozen=True)
class Native:
    """What the model alone decided: logits [T, E], ids [T, k] int64, weights [T, k]. And where its tokens stand: absolute
    position, token id, row of the batch and step [T] of each, whether it is no padding [T] bool, and the layer."""

    logits: Tensor
    ids: Tensor
    weights: Tensor
    positions: Tensor
    tokens: Tensor
    rows: Tensor
    steps: Tensor
    valid: Tensor
    layer: int


@dataclass(frozen=True)
class Routed:
    """What a layer executes: ids [T, k'] int64, weights [T, k'], the scores selection ranked by [T, E] fp32, the mask [T] of
    tokens whose ids or weights differ from the model's own, and the pseudo-experts with the weight [T] each token gives."""

    ids: Tensor
    weights: Tensor
    selection: Tensor
    edited: Tensor
    pseudo: tuple[tuple[reroute.Pseudo, Tensor], ...]


def route(edits: Sequence[Scoped], native: Native, rule: Rule, around: Surroundings) -> Routed:
    """Apply ``edits`` to the native choice of a layer.

    Raises :class:`EditRefused` where a token has too few experts left to choose from, or no slot left to force into.
    """
    import torch

    native_scores = rule.scores(native.logits)
    logits = _edit_logits(edits, native)
    scores = _mix(edits, _across(edits, rule.scores(logits), around), native)
    reweighted = differs(logits, native.logits) | differs(scores, native_scores) | _trained(edits, native)
    selection = _edit_selection(edits, rule.selection(scores), native)
    rescored = reweighted | differs(selection, rule.selection(native_scores))
    shrinks = _shrinks(edits, native)

    ids = native.ids
    if bool(rescored.any()):
        chosen = _legal(rule.choose(selection, ids.shape[-1]), rule.usable(selection), rescored, shrinks)
        ids = torch.where(rescored.unsqueeze(-1), chosen, ids)
    ids = _policies(edits, ids, selection, scores, logits, rule, native, shrinks)
    ids, lost = _limits(edits, ids, selection, rule, native, around)
    # The same set of experts with untouched scores is the model's own decision: keep its slot order and weights.
    renew = reweighted | ~same_set(ids, native.ids)
    ids, own = align(ids, native.ids, NOTHING)
    weights, own_weights = align(weigh(rule, scores, ids).to(native.weights.dtype), native.weights, 0)
    ids = torch.where(renew.unsqueeze(-1), ids, own)
    weights = torch.where(renew.unsqueeze(-1), weights, own_weights)
    ids, weights = _drop(ids, weights, lost)

    ids, weights = _force(edits, ids, weights, selection, scores, rule)
    ids = _permute(edits, ids)
    ids, weights = _merge(edits, ids, weights)
    weights = reweigh(edits, ids, weights, native)
    ids, weights, pseudo = _pseudo(edits, ids, weights)
    ids, weights = _replay(edits, ids, weights, scores, rule, around)
    own, ids = align(own, ids, NOTHING)
    own_weights, weights = align(own_weights, weights, 0)
    return Routed(ids, weights, selection, differs(ids, own) | differs(weights, own_weights), pseudo)


# Logits and scores


def _trained(edits: Sequence[Scoped], native: Native) -> Tensor:
    """Tokens [T] whose weights depend on a tensor in training: they are computed anew even where nothing differs yet."""
    import torch

    found = torch.zeros(native.ids.shape[0], dtype=torch.bool, device=native.ids.device)
    for edit, where in edits:
        if edit.trained():
            found |= where
    return found


def _edit_logits(edits: Sequence[Scoped], native: Native) -> Tensor:
    import torch

    logits = native.logits
    for edit, where in edits:
        if isinstance(edit, reroute.Bias) and edit.at == "logits":
            delta = pick(edit, edit.vector(logits.shape[-1]), native.layer, native.positions, logits)
            logits = torch.where(where.unsqueeze(-1), logits + delta, logits)
        elif isinstance(edit, reroute.Temperature):
            logits = torch.where(where.unsqueeze(-1), logits / edit.tau, logits)
        elif isinstance(edit, Custom) and edit.site == "router_logits":
            logits = torch.where(where.unsqueeze(-1), _custom(edit, logits, native), logits)
    for edit, where in edits:
        if isinstance(edit, reroute.Ban | reroute.Allow) and edit.at == "logits":
            logits = torch.where(where.unsqueeze(-1), _banned(edit, logits), logits)
    return logits


def _across(edits: Sequence[Scoped], scores: Tensor, around: Surroundings) -> Tensor:
    import torch

    own = scores
    for edit, where in edits:
        if isinstance(edit, reroute.Mixed):
            mixed = torch.lerp(scores, around.mixed(edit, own).to(scores.dtype), edit.alpha)
            scores = torch.where(where.unsqueeze(-1), mixed, scores)
    return scores


def _mix(edits: Sequence[Scoped], scores: Tensor, native: Native) -> Tensor:
    import torch

    for edit, where in edits:
        if isinstance(edit, reroute.ScoreMix) and edit.alpha > 0:
            given = pick(edit, edit.scores, native.layer, native.positions, scores)
            new = scores + edit.alpha * given if edit.how == "add" else torch.lerp(scores, given, edit.alpha)
            scores = torch.where(where.unsqueeze(-1), new, scores)
    return scores


def _edit_selection(edits: Sequence[Scoped], selection: Tensor, native: Native) -> Tensor:
    import torch

    for edit, where in edits:
        if isinstance(edit, reroute.Bias) and edit.at == "scores":
            delta = pick(edit, edit.vector(selection.shape[-1]), native.layer, native.positions, selection)
            selection = torch.where(where.unsqueeze(-1), selection + delta, selection)
        elif isinstance(edit, Custom) and edit.site == "expert_scores":
            selection = torch.where(where.unsqueeze(-1), _custom(edit, selection, native), selection)
    for edit, where in edits:
        # A ban at the logits is repeated here: a zero probability would still beat a negative corrected score.
        if isinstance(edit, reroute.Ban | reroute.Allow):
            selection = torch.where(where.unsqueeze(-1), _banned(edit, selection), selection)
    return selection


def _custom(edit: Custom, values: Tensor, native: Native) -> Tensor:
    """What a custom edit makes of logits or selection scores [T, E]; the function sees them as [B, S, E]."""
    rows = int(native.rows[-1]) + 1
    place = Place(
        edit.site, native.layer, native.positions.reshape(rows, -1), native.tokens.reshape(rows, -1)
    )
    return edit.apply(values.reshape(rows, -1, values.shape[-1]), place).reshape(values.shape)


def _banned(edit: reroute.Ban | reroute.Allow, values: Tensor) -> Tensor:
    import torch

    out = torch.zeros(values.shape[-1], dtype=torch.bool, device=values.device)
    out[list(edit.experts)] = True
    return values.masked_fill(out if isinstance(edit, reroute.Ban) else ~out, float("-inf"))


def _shrinks(edits: Sequence[Scoped], native: Native) -> Tensor:
    """Tokens [T] that may use fewer experts where too few are legal."""
    import torch

    found = torch.zeros(native.ids.shape[0], dtype=torch.bool, device=native.ids.device)
    for edit, where in edits:
        if isinstance(edit, reroute.Ban | reroute.Allow) and edit.short == "shrink":
            found |= where
    return found


def _legal(chosen: Tensor, usable: Tensor, where: Tensor, shrinks: Tensor) -> Tensor:
    """``chosen`` [T, k'] without experts that are not ``usable`` [T, E]: banned ones, and those of groups that the family's
    limits leave out. Refuses a token of ``where`` that needs one, unless it ``shrinks``."""
    banned = ~usable.gather(-1, chosen)
    short = banned.any(dim=-1) & where & ~(shrinks & ~banned.all(dim=-1))
    if bool(short.any()):
        token = int(short.nonzero()[0, 0])
        raise EditRefused(
            f"The plan leaves token {token} of the pass with fewer than {chosen.shape[-1]} experts to choose from.",
            "Ban fewer experts, leave a whole group usable where the model selects groups first, or let k shrink with "
            'short="shrink".',
        )
    return chosen.masked_fill(banned, NOTHING)


# The choice


def _policies(
    edits: Sequence[Scoped], ids: Tensor, selection: Tensor, scores: Tensor, logits: Tensor, rule: Rule, native: Native,
    shrinks: Tensor,
) -> Tensor:  # fmt: skip
    import torch

    for edit, where in edits:
        if not isinstance(edit, reroute.Policy):
            continue
        if isinstance(edit, reroute.ExpertChoice | reroute.Balanced):
            pools = _pools(edit, where, native)
            where = pools >= 0
            if isinstance(edit, reroute.ExpertChoice):
                chosen = by_experts(edit, selection, pools, native.ids.shape[-1])
            else:
                chosen = balanced(edit, selection, logits, pools, native.ids.shape[-1], rule)
        else:
            chosen = _policy(edit, where, selection, scores, rule, native, shrinks)
        chosen, ids = align(chosen, ids, NOTHING)
        ids = torch.where(where.unsqueeze(-1), chosen, ids)
    return ids


def _pools(edit: reroute.Pooled, where: Tensor, native: Native) -> Tensor:
    """The number [T] of each token's pool, -1 for none."""
    pools = {"sequence": native.rows, "step": native.rows * 2**32 + native.steps, "batch": native.rows * 0}[
        edit.pool
    ]
    return pools.masked_fill(~(where & native.valid), -1)


def _limits(
    edits: Sequence[Scoped], ids: Tensor, selection: Tensor, rule: Rule, native: Native, around: Surroundings
) -> tuple[Tensor, Tensor]:
    """The choice under limited places, and the experts [T, E] that each token lost to them."""
    import torch

    lost = torch.zeros(selection.shape, dtype=torch.bool, device=selection.device)
    for edit, where in edits:
        if not isinstance(edit, reroute.Capacity):
            continue
        pools = _pools(edit, where, native)
        ids, dropped = limit(
            edit, ids, selection, pools, _priority(edit, selection, native), native.ids.shape[-1], rule, around.earlier(edit)
        )  # fmt: skip
        token, slot = dropped.nonzero(as_tuple=True)
        lost[token, ids[token, slot]] = True
        around.assigned(edit, Assigned(pools, ids.masked_fill(dropped, NOTHING)))
    return ids, lost


def _priority(edit: reroute.Capacity, selection: Tensor, native: Native) -> Tensor:
    """The order [T] in which tokens are served, lowest first; equals by position, then by row."""
    import torch

    first = (native.positions * (int(native.rows.max()) + 1) + native.rows).double()
    if edit.order == "position":
        return first
    if edit.order == "random":
        return _uniform(edit.seed, native.layer, native.positions, 1).squeeze(-1) + first * 1e-18
    # Ranks, because a score and a position cannot share one number exactly.
    by_position = first.argsort(stable=True)
    best = selection.masked_fill(selection.isneginf(), -1e30).amax(-1)[by_position]
    rank = first.clone()
    rank[by_position[best.argsort(descending=True, stable=True)]] = torch.arange(
        len(first), device=first.device, dtype=first.dtype
    )
    return rank


def _drop(ids: Tensor, weights: Tensor, lost: Tensor) -> tuple[Tensor, Tensor]:
    gone = lost.gather(-1, ids.clamp(min=0)) & (ids != NOTHING)
    return ids.masked_fill(gone, NOTHING), weights.masked_fill(gone, 0)


def _policy(
    edit: reroute.Policy,
    where: Tensor,
    selection: Tensor,
    scores: Tensor,
    rule: Rule,
    native: Native,
    shrinks: Tensor,
) -> Tensor:
    """The choice [T, k'] of one policy for every token."""
    k, experts = native.ids.shape[-1], selection.shape[-1]
    if isinstance(edit, reroute.Random):
        drawn = _uniform(edit.seed, native.layer, native.positions, experts)
        chosen = drawn.masked_fill(selection.isneginf(), float("-inf")).topk(k, dim=-1).indices
        return _legal(chosen, ~selection.isneginf(), where, shrinks)
    usable = rule.usable(selection)
    if isinstance(edit, reroute.TopK):
        return _legal(rule.choose(selection, edit.k), usable, where, shrinks)
    if isinstance(edit, reroute.RankOffset):
        ranked = _ranked(rule, selection, usable, k + edit.shift)
        return _legal(ranked[..., edit.shift :], usable, where, shrinks)
    assert isinstance(edit, reroute.TopP | reroute.Threshold)
    return _by_share(edit, selection, usable, scores, rule)


def _ranked(rule: Rule, selection: Tensor, usable: Tensor, count: int) -> Tensor:
    """The ``count`` best experts [T, count] by the family's own rule, best first, those that are not usable last."""
    chosen = rule.choose(selection, count)
    # Not every family sorts its choice, so the rank is taken from the scores.
    limited = selection.masked_fill(~usable, float("-inf")).gather(-1, chosen)
    return chosen.gather(-1, limited.argsort(dim=-1, descending=True, stable=True))


def _by_share(
    edit: reroute.TopP | reroute.Threshold, selection: Tensor, usable: Tensor, scores: Tensor, rule: Rule
) -> Tensor:
    ranked = _ranked(rule, selection, usable, selection.shape[-1])
    legal = usable.gather(-1, ranked)
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

    # Slots that may not be given away: those that hold a forced expert, and unused ones, unless a token has no other.
    kept = (ids == NOTHING) & (ids != NOTHING).any(dim=-1, keepdim=True)
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
        weights = torch.where(changed.unsqueeze(-1), weigh(rule, scores, ids).to(weights.dtype), weights)
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


def _merge(edits: Sequence[Scoped], ids: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    for edit, where in edits:
        if not isinstance(edit, reroute.Merge):
            continue
        merged = ids
        for expert, into in edit.map.items():
            merged = merged.masked_fill(ids == expert, into)
        used = merged != NOTHING
        same = (merged.unsqueeze(-1) == merged.unsqueeze(-2)) & used.unsqueeze(-1) & used.unsqueeze(-2)
        first = same.int().argmax(dim=-1) == torch.arange(ids.shape[-1], device=ids.device)
        total = (same.to(weights.dtype) * weights.unsqueeze(-2)).sum(-1)
        alone = (
            same.sum(-1) == 1
        )  # a sum of one weight and zeros is that weight, but -0.0 and NaN neighbours are not
        total = torch.where(alone, weights, total)
        at = where.unsqueeze(-1)
        ids = torch.where(at, merged.masked_fill(~first, NOTHING), ids)
        weights = torch.where(at, total.masked_fill(~(first & used), 0), weights)
    return ids, weights


def _pseudo(
    edits: Sequence[Scoped], ids: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, tuple[tuple[reroute.Pseudo, Tensor], ...]]:
    import torch

    found = []
    for edit, where in edits:
        if isinstance(edit, reroute.Pseudo):
            gone = torch.isin(ids, torch.tensor(edit.experts, device=ids.device)) & where.unsqueeze(-1)
            found.append((edit, weights.masked_fill(~gone, 0).sum(-1)))
            ids, weights = ids.masked_fill(gone, NOTHING), weights.masked_fill(gone, 0)
    return ids, weights, tuple(found)


def _replay(
    edits: Sequence[Scoped], ids: Tensor, weights: Tensor, scores: Tensor, rule: Rule, around: Surroundings
) -> tuple[Tensor, Tensor]:
    import torch

    for edit, where in edits:
        if isinstance(edit, reroute.Replay):
            other_ids, other_weights, known = around.routes(edit)
            where = where & known
            # Routes of an engine that keeps no weights come with NaN: then the family's own weights of these experts hold.
            if bool(other_weights.isnan().any()):
                own = weigh(rule, scores, other_ids).to(other_weights.dtype)
                other_weights = torch.where(other_weights.isnan(), own, other_weights)
        elif isinstance(edit, reroute.CopyLayer):
            other_ids, other_weights = around.executed(edit.source)
            if edit.weights == "own":
                other_weights = weigh(rule, scores, other_ids)
        else:
            continue
        other_ids, ids = align(other_ids, ids, NOTHING)
        other_weights, weights = align(other_weights.to(weights.dtype), weights, 0)
        ids = torch.where(where.unsqueeze(-1), other_ids, ids)
        weights = torch.where(where.unsqueeze(-1), other_weights, weights)
    return ids, weights
