"""Families that select groups of experts first: every policy keeps to them, by a reading of the rule in plain Python."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from routing_reference import Nobody, facts, used_slots

import workbench as wb
from workbench.anatomy import RoutingRule
from workbench.errors import EditRefused
from workbench.interventions.assignment import places
from workbench.interventions.routing import Routed, route

E, K, GROUPS, KEPT, T = 12, 2, 4, 2, 24
BIAS = torch.linspace(-0.4, 0.3, E)


def rule_of(fill: float = float("-inf"), group: Any = "top2sum") -> RoutingRule:
    return RoutingRule(
        "deepseek_v3", "sigmoid", K, normalise=True, eps=1e-20, n_group=GROUPS, topk_group=KEPT, fill=fill, group=group,
        sorted=False, bias=lambda: BIAS,
    )  # fmt: skip


def ranked(logits: list[float], group: str, banned: tuple[int, ...] = ()) -> list[int]:
    """The experts that a token may choose from, best first."""
    score = [1 / (1 + math.exp(-x)) + float(b) for x, b in zip(logits, BIAS, strict=True)]
    score = [-math.inf if e in banned else s for e, s in enumerate(score)]
    size = E // GROUPS
    inside = [range(g * size, (g + 1) * size) for g in range(GROUPS)]
    best = [sorted((score[e] for e in some), reverse=True) for some in inside]
    worth = [b[0] + b[1] if group == "top2sum" else b[0] for b in best]
    kept = sorted(range(GROUPS), key=lambda g: -worth[g])[:KEPT]
    return sorted((e for g in kept for e in inside[g] if score[e] > -math.inf), key=lambda e: -score[e])


def shares(logits: list[float]) -> list[float]:
    raw = [1 / (1 + math.exp(-x)) for x in logits]
    return [r / sum(raw) for r in raw]


def routed(edits: Any, rule: RoutingRule) -> tuple[torch.Tensor, Routed]:
    logits = torch.randn(T, E, generator=torch.Generator().manual_seed(5)) * 2
    ids = rule.choose(rule.selection(rule.scores(logits)))
    native = facts(logits, ids, rule.weigh(rule.scores(logits), ids))
    plan = [
        (edit, torch.ones(T, dtype=torch.bool)) for edit in (edits if isinstance(edits, list) else [edits])
    ]
    return logits, route(plan, native, rule, Nobody())


@pytest.mark.parametrize("group", ["top2sum", "max"])
@pytest.mark.parametrize("fill", [float("-inf"), 0.0])
def test_policies_choose_within_the_groups(fill: float, group: str) -> None:
    rule = rule_of(fill, group)
    outside = 0
    for edit in (wb.reroute.rank_offset(0, 2), wb.reroute.top_k(0, 5), wb.reroute.top_p(0, 0.45), wb.reroute.top_p(0, 1.0),
                 wb.reroute.threshold(0, 0.08), wb.reroute.threshold(0, 0.08, max_k=3)):  # fmt: skip
        logits, found = routed(edit, rule)
        for token, row in enumerate(logits.tolist()):
            legal, share = ranked(row, group), shares(row)
            if edit.kind == "reroute.rank_offset":
                wanted = legal[2 : 2 + K]
            elif edit.kind == "reroute.top_k":
                wanted = legal[:5]
            elif edit.kind == "reroute.top_p":
                wanted, total = [], 0.0
                for expert in legal:
                    if total >= edit.p:
                        break
                    wanted.append(expert)
                    total += share[expert]
            else:
                cut = legal if edit.max_k is None else legal[: edit.max_k]
                wanted = [e for n, e in enumerate(cut) if n == 0 or share[e] >= 0.08]
            ids, weights = used_slots(found, token)
            assert set(ids) == set(wanted), (edit, token)
            raw = {e: 1 / (1 + math.exp(-row[e])) for e in wanted}
            assert weights == pytest.approx([raw[e] / sum(raw.values()) for e in ids], rel=1e-5)
            outside += sum(s >= 0.08 for e, s in enumerate(share) if e not in legal)
    assert outside > 0  # without the groups other experts would have been taken


@pytest.mark.parametrize("fill", [float("-inf"), 0.0])
def test_a_banned_expert_does_not_come_back_through_the_fill(fill: float) -> None:
    """Where the fill is 0, banned experts of the groups left out would rank above legal ones with a negative score."""
    banned = (0, 4, 8)
    rule = rule_of(fill)
    logits, found = routed([wb.reroute.ban(0, banned), wb.reroute.bias(0, [-40.0] * E)], rule)
    assert not set(found.ids.flatten().tolist()) & set(banned)
    for token, row in enumerate(logits.tolist()):
        assert set(used_slots(found, token)[0]) <= set(ranked([x - 40.0 for x in row], "top2sum", banned))


def test_balanced_loads_keep_to_the_groups_and_leave_a_balanced_choice_alone() -> None:
    rule = rule_of()
    logits, found = routed(wb.reroute.balanced(0, 100.0), rule)
    assert not bool(found.edited.any())
    logits, found = routed(wb.reroute.balanced(0, 1.5), rule)
    assert bool(found.edited.any())
    loads = torch.bincount(found.ids.flatten(), minlength=E)
    assert int(loads.max()) <= places(1.5, K, T, E)
    for token, row in enumerate(logits.tolist()):
        ids = used_slots(found, token)[0]
        assert len(ids) == K and set(ids) <= set(ranked(row, "top2sum"))
    with pytest.raises(EditRefused, match="finds no assignment"):
        routed([wb.reroute.ban(0, list(range(4, 12)), short="shrink"), wb.reroute.balanced(0, 1.0)], rule)
