"""Assigning the tokens of a pool to experts: limited places, the experts' own choice, balanced loads.

T tokens, E experts, k choices. These are sequential or global decisions over small tables, so they run on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import EditRefused
from workbench.interventions.edit import Rule
from workbench.interventions.ragged import NOTHING
from workbench.interventions.reroute.assign import Balanced, Capacity, ExpertChoice

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Assigned:
    """What earlier passes assigned under an edit: the pool [P] and the executed experts [P, k'] of each of their tokens."""

    pools: Tensor
    ids: Tensor


def places(factor: float, k: int, tokens: int, experts: int) -> int:
    """ceil(factor x k x tokens / experts), at least 1; rounding of the factor does not add a place."""
    return max(1, math.ceil(factor * k * tokens / experts - 1e-9))


def limit(
    edit: Capacity, ids: Tensor, selection: Tensor, pools: Tensor, priority: Tensor, k: int, rule: Rule,
    earlier: Sequence[Assigned],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The choice under ``edit``'s limit: ids [T, k'] to weigh, and those of them [T, k'] bool that found no place.

    ``pools`` [T] numbers each token's pool, -1 for none; ``priority`` [T] is the order in which tokens are served, lowest
    first. A dropped choice stays among the ids, because the weights of the others are those of the whole choice.
    """
    import torch

    experts = selection.shape[-1]
    seen, loads = _counted(earlier, experts)
    sizes = {pool: count + seen.get(pool, 0) for pool, count in _sizes(pools).items()}
    rows, owners, chosen_by_token = ids.cpu().clone(), pools.tolist(), ids.tolist()
    scored = selection.float().cpu()
    lost = torch.zeros(rows.shape, dtype=torch.bool)
    for token in priority.argsort(stable=True).tolist():
        pool = owners[token]
        if pool < 0:
            continue
        seen[pool] = seen.get(pool, 0) + 1
        limit = places(edit.factor, k, seen[pool] if edit.causal else sizes[pool], experts)
        load = loads.setdefault(pool, np.zeros(experts, dtype=np.int64))
        chosen = chosen_by_token[token]
        full = [slot for slot, expert in enumerate(chosen) if expert != NOTHING and load[expert] >= limit]
        if full and edit.overflow == "next":
            left = scored[token].masked_fill(torch.from_numpy(load >= limit), float("-inf"))
            again = rule.choose(left.unsqueeze(0), sum(expert != NOTHING for expert in chosen))[0]
            again = again.masked_fill(~rule.usable(left.unsqueeze(0))[0, again], NOTHING)
            rows[token] = NOTHING
            rows[token, : len(again)] = again
            chosen = rows[token].tolist()
        else:
            lost[token, full] = True
        for slot, expert in enumerate(chosen):
            if expert != NOTHING and not lost[token, slot]:
                load[expert] += 1
    return rows.to(ids.device), lost.to(ids.device)


def by_experts(edit: ExpertChoice, selection: Tensor, pools: Tensor, k: int) -> Tensor:
    """The choice [T, k'] in which each expert takes the tokens that score it highest; unused slots are -1."""
    import torch

    experts = selection.shape[-1]
    taken = torch.zeros(selection.shape, dtype=torch.bool, device=selection.device)
    for pool, size in _sizes(pools).items():
        members = (pools == pool).nonzero().squeeze(-1)
        count = min(size, places(edit.factor, k, size, experts))
        # A stable sort: of equal scores the earlier token is taken.
        best = selection[members].argsort(dim=0, descending=True, stable=True)[:count]
        taken[members[best], torch.arange(experts, device=selection.device)] = True
    return _slots(taken & ~selection.isneginf())


def balanced(edit: Balanced, selection: Tensor, logits: Tensor, pools: Tensor, k: int, rule: Rule) -> Tensor:
    """The choice [T, k] under balanced loads, among the experts that ``rule`` lets a token choose from; tokens in no pool
    get -1 throughout."""
    import torch

    taken = torch.zeros(selection.shape, dtype=torch.bool, device=selection.device)
    usable = rule.usable(selection)
    for pool, size in _sizes(pools).items():
        members = (pools == pool).nonzero().squeeze(-1)
        legal = usable[members]
        scored = (selection if edit.method == "exact" else logits)[members].masked_fill(~legal, float("-inf"))
        if edit.method == "sinkhorn":
            found = _sinkhorn(edit, scored.double().cpu().numpy(), k)
        else:
            limit = places(edit.factor, k, size, selection.shape[-1])
            own = torch.zeros_like(legal).scatter_(-1, rule.choose(selection[members], k), True)
            # What the rule chooses has the largest sum of all, so that it is the answer wherever its loads are allowed.
            if bool((own <= legal).all()) and int(own.sum(0).max()) <= limit:
                taken[members] = own
                continue
            found = _exact(edit, scored.double().cpu().numpy(), k, limit)
        taken[members] = torch.from_numpy(found).to(taken.device)
    return _slots(taken)


def _exact(edit: Balanced, scored: Any, k: int, limit: int) -> Any:
    from scipy.optimize import linprog
    from scipy.sparse import eye_array, kron

    tokens, experts = scored.shape
    legal = np.isfinite(scored)
    found = linprog(
        -np.where(legal, scored, 0.0).reshape(-1),
        A_ub=kron(np.ones((1, tokens)), eye_array(experts)), b_ub=np.full(experts, float(limit)),
        A_eq=kron(eye_array(tokens), np.ones((1, experts))), b_eq=np.full(tokens, float(k)),
        bounds=np.stack([np.zeros(legal.size), legal.reshape(-1).astype(float)], axis=-1), method="highs-ds",
    )  # fmt: skip
    if found.x is None:
        raise EditRefused(
            f"{edit.kind} finds no assignment of {k} experts to each of {tokens} tokens with {limit} places an expert.",
            "Use a larger factor, or ban fewer experts; a family that selects groups first has fewer to choose from.",
        )
    return found.x.reshape(tokens, experts) > 0.5


def _sinkhorn(edit: Balanced, scored: Any, k: int) -> Any:
    from scipy.special import logsumexp

    tokens, experts = scored.shape
    plan = scored / edit.tau
    with np.errstate(invalid="ignore"):  # a column of banned entries is NaN for a moment
        for _ in range(edit.iterations):
            plan = plan - logsumexp(plan, axis=0, keepdims=True) + math.log(tokens / experts)
            plan = np.where(np.isfinite(scored), plan, -np.inf)
            plan = plan - logsumexp(plan, axis=1, keepdims=True)
    best = np.argsort(-plan, axis=1, kind="stable")[:, :k]
    taken = np.zeros(scored.shape, dtype=bool)
    np.put_along_axis(taken, best, True, axis=1)
    return taken & np.isfinite(plan)


def _sizes(pools: Tensor) -> dict[int, int]:
    import torch

    numbers, counts = torch.unique(pools[pools >= 0], return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def _counted(earlier: Sequence[Assigned], experts: int) -> tuple[dict[int, int], dict[int, Any]]:
    """Tokens seen and loads [E] by pool."""
    seen: dict[int, int] = {}
    loads: dict[int, Any] = {}
    for one in earlier:
        for pool, chosen in zip(one.pools.tolist(), one.ids.tolist(), strict=True):
            if pool >= 0:
                seen[pool] = seen.get(pool, 0) + 1
                load = loads.setdefault(pool, np.zeros(experts, dtype=np.int64))
                np.add.at(load, [expert for expert in chosen if expert != NOTHING], 1)
    return seen, loads


def _slots(taken: Tensor) -> Tensor:
    """Ids [T, k'] of the experts marked in ``taken`` [T, E], lowest first, -1 where a token has fewer."""
    width = max(1, int(taken.sum(-1).max()))
    first = taken.int().argsort(dim=-1, descending=True, stable=True)[:, :width]
    return first.masked_fill(~taken.gather(-1, first), NOTHING)
