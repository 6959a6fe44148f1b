"""Assignment policies and merges against slow references in plain Python."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_reference import KINDS, E, K, facts, native_choice, rule_of, textbook_weights, used_slots

import workbench as wb
from workbench.errors import EditRefused, PlanError
from workbench.interventions.routing import route

T = 7
rows = st.lists(
    st.lists(st.integers(-300, 300), min_size=E, max_size=E, unique=True), min_size=T, max_size=T
).map(lambda values: torch.tensor(values, dtype=torch.float32) / 100)
masks = st.lists(st.booleans(), min_size=T, max_size=T)


def apply(kind: str, logits: torch.Tensor, edit: Any, where: Any = None, **more: Any) -> Any:
    ids, weights = native_choice(kind, logits)
    where = torch.ones(len(logits), dtype=torch.bool) if where is None else torch.tensor(where)
    around = SimpleNamespace(earlier=lambda edit: [], assigned=lambda edit, what: None)
    return ids, weights, route([(edit, where)], facts(logits, ids, weights, **more), rule_of(kind), around)


def scores(kind: str, row: list[float]) -> list[float]:
    bias = np.linspace(-0.3, 0.3, E)
    return [1 / (1 + math.exp(-x)) + bias[i] if kind == "sigmoid" else x for i, x in enumerate(row)]


def loads(routed: Any, among: list[int]) -> list[int]:
    return [sum(expert in routed.ids[n].tolist() for n in among) for expert in range(E)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(
    logits=rows, where=masks, factor=st.sampled_from([0.3, 0.6, 1.0, 1.5]), causal=st.booleans(),
    overflow=st.sampled_from(["drop", "next"]),
)  # fmt: skip
def test_capacity_serves_tokens_in_order(
    kind: str, logits: torch.Tensor, where: list[bool], factor: float, causal: bool, overflow: str
) -> None:
    edit = wb.reroute.capacity(0, factor, causal=causal, overflow=overflow)
    ids, weights, routed = apply(kind, logits, edit, where)
    load, seen, total = [0] * E, 0, sum(where)
    for n, row in enumerate(logits.tolist()):
        if not where[n]:
            assert torch.equal(routed.ids[n], ids[n]) and torch.equal(routed.weights[n], weights[n])
            continue
        seen += 1
        limit = max(1, math.ceil(round(factor * K * (seen if causal else total) / E, 6)))
        ranked = sorted(range(E), key=lambda e: -scores(kind, row)[e])
        wanted = ranked[:K]
        if overflow == "drop":
            kept = [e for e in wanted if load[e] < limit]
            all_weights = dict(zip(wanted, textbook_weights(kind, row, wanted), strict=True))
            expected = {e: all_weights[e] for e in kept}
        else:
            kept = [e for e in ranked if load[e] < limit][:K]
            expected = dict(zip(kept, textbook_weights(kind, row, kept), strict=True))
        for expert in kept:
            load[expert] += 1
        used, given_weights = used_slots(routed, n)
        assert dict(zip(used, given_weights, strict=True)) == pytest.approx(expected, rel=1e-5)


@given(logits=rows, seed=st.integers(0, 5))
def test_the_order_of_service_may_be_score_or_chance(logits: torch.Tensor, seed: int) -> None:
    best = logits.softmax(-1).amax(-1).tolist()
    for order, ranked in (
        ("score", sorted(range(T), key=lambda n: (-best[n], n))),
        ("random", None),
    ):
        edit = wb.reroute.capacity(0, 0.5, order=order, causal=False, seed=seed)
        ids, _, routed = apply("softmax", logits, edit)
        limit = max(1, math.ceil(0.5 * K * T / E))
        assert max(loads(routed, list(range(T)))) <= limit
        if ranked is not None:
            load = [0] * E
            for n in ranked:
                kept = {e for e in ids[n].tolist() if load[e] < limit}
                for expert in kept:
                    load[expert] += 1
                assert set(used_slots(routed, n)[0]) == kept
        again = apply("softmax", logits, edit)[2]
        assert torch.equal(again.ids, routed.ids)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(logits=rows, where=masks, factor=st.sampled_from([0.5, 1.0, 2.0]))
def test_experts_choose_the_tokens_that_score_them_highest(
    kind: str, logits: torch.Tensor, where: list[bool], factor: float
) -> None:
    members = [n for n in range(T) if where[n]]
    ids, weights, routed = apply(kind, logits, wb.reroute.expert_choice(0, factor), where)
    count = min(len(members), max(1, math.ceil(round(factor * K * len(members) / E, 6)))) if members else 0
    table = rule_of(kind).selection(rule_of(kind).scores(logits)).tolist()
    taken: dict[int, set[int]] = {n: set() for n in members}
    for expert in range(E):
        for n in sorted(members, key=lambda n: (-table[n][expert], n))[:count]:
            taken[n].add(expert)
    for n in range(T):
        used, given_weights = used_slots(routed, n)
        if where[n]:
            assert set(used) == taken[n]
            assert routed.weights[n].isfinite().all()
            if used:
                assert given_weights == pytest.approx(
                    textbook_weights(kind, logits[n].tolist(), used), rel=1e-5
                )
        else:
            assert set(used) == set(ids[n].tolist())


@given(logits=rows)
def test_pools_are_apart_and_leave_padding_out(logits: torch.Tensor) -> None:
    rows_of = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    steps = torch.tensor([0, 0, 1, 0, 0, 0, 1])
    valid = torch.tensor([True] * 6 + [False])
    more = {"rows": rows_of, "steps": steps, "valid": valid}
    for pool, groups in (
        ("sequence", [[0, 1, 2], [3, 4, 5]]),
        ("step", [[0, 1], [2], [3, 4, 5]]),
        ("batch", [[0, 1, 2, 3, 4, 5]]),
    ):
        ids, _, routed = apply("softmax", logits, wb.reroute.expert_choice(0, 1.0, pool=pool), **more)
        for members in groups:
            alone = apply("softmax", logits[members], wb.reroute.expert_choice(0, 1.0))[2]
            assert [set(used_slots(routed, n)[0]) for n in members] == [
                set(used_slots(alone, n)[0]) for n in range(len(members))
            ]
        assert set(used_slots(routed, 6)[0]) == set(ids[6].tolist())


@settings(max_examples=15)
@given(logits=rows.map(lambda x: x[:3]), factor=st.sampled_from([1.0, 1.5]))
def test_balanced_is_the_best_assignment_there_is(logits: torch.Tensor, factor: float) -> None:
    routed = apply("softmax", logits, wb.reroute.balanced(0, factor))[2]
    limit = math.ceil(factor * K * 3 / E)
    table = logits.softmax(-1).double().tolist()
    best = -math.inf
    for choice in itertools.product(itertools.combinations(range(E), K), repeat=3):
        load = [sum(e in one for one in choice) for e in range(E)]
        if max(load) <= limit:
            best = max(best, sum(table[n][e] for n, one in enumerate(choice) for e in one))
    got = [used_slots(routed, n)[0] for n in range(3)]
    assert all(len(set(one)) == K for one in got) and max(loads(routed, [0, 1, 2])) <= limit
    assert sum(table[n][e] for n, one in enumerate(got) for e in one) == pytest.approx(best, abs=1e-6)


def test_sinkhorn_nearly_balances_loads_and_spares_the_banned() -> None:
    logits = torch.randn(300, E, generator=torch.Generator().manual_seed(0)) + torch.arange(E)
    everyone = torch.ones(300, dtype=torch.bool)
    ids, weights = native_choice("softmax", logits)
    before = np.bincount(ids.reshape(-1), minlength=E)
    routed = apply("softmax", logits, wb.reroute.balanced(0, method="sinkhorn"))[2]
    after = np.bincount(routed.ids.reshape(-1), minlength=E)
    assert before.max() > 1.8 * before.mean() and after.max() < 1.3 * after.mean()
    ban = (wb.reroute.ban(0, 5), everyone)
    both = [ban, (wb.reroute.balanced(0, method="sinkhorn"), everyone)]
    left = route(both, facts(logits, ids, weights), rule_of("softmax"), SimpleNamespace())
    assert 5 not in left.ids and (left.ids >= 0).all()


def test_an_impossible_balance_is_refused() -> None:
    logits = torch.zeros(4, E)
    everyone = torch.ones(4, dtype=torch.bool)
    ids, weights = native_choice("softmax", logits)
    edits = [(wb.reroute.ban(0, [0, 1, 2, 3]), everyone), (wb.reroute.balanced(0), everyone)]
    with pytest.raises(EditRefused, match="finds no assignment"):
        route(edits, facts(logits, ids, weights), rule_of("softmax"), SimpleNamespace())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(logits=rows, into=st.lists(st.integers(0, 2), min_size=3, max_size=3))
def test_merged_experts_add_their_weights(kind: str, logits: torch.Tensor, into: list[int]) -> None:
    table = {3 + n: e for n, e in enumerate(into)}
    ids, weights, routed = apply(kind, logits, wb.reroute.merge(0, table))
    for n in range(T):
        expected: dict[int, float] = {}
        for expert, weight in zip(ids[n].tolist(), weights[n].tolist(), strict=True):
            expert = table.get(expert, expert)
            expected[expert] = expected.get(expert, 0.0) + weight
        used, given_weights = used_slots(routed, n)
        assert dict(zip(used, given_weights, strict=True)) == pytest.approx(expected, rel=1e-6)


@given(logits=rows)
def test_too_few_legal_experts_shrink_k_where_asked(logits: torch.Tensor) -> None:
    ban = wb.reroute.ban(0, range(E - 1), short="shrink")
    _, weights, routed = apply("softmax-norm", logits, ban)
    for n in range(T):
        used, given_weights = used_slots(routed, n)
        assert used == [E - 1] and given_weights == pytest.approx([1.0])
    with pytest.raises(EditRefused, match="fewer than"):
        apply("softmax", logits, wb.reroute.ban(0, range(E - 1)))
    with pytest.raises(EditRefused, match="fewer than"):
        apply("softmax", logits, wb.reroute.ban(0, range(E), short="shrink"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: wb.reroute.capacity(0, order="score"),
        lambda: wb.reroute.capacity(0, 0.0),
        lambda: wb.reroute.capacity(0, couples_rows=True),
        lambda: wb.reroute.merge(0, {1: 2, 2: 3}),
        lambda: wb.reroute.merge(0, {}),
        lambda: wb.reroute.pseudo(0, 1, output="constant"),
        lambda: wb.reroute.smooth(0, by="window"),
        lambda: wb.reroute.smooth(0, by="matrix", matrix=[[1.0, 1.0], [0.0, 1.0]]),
        lambda: wb.reroute.smooth(0, by="matrix", matrix=[[1.0, 0.0]]),
        lambda: wb.reroute.group(0, ends="["),
    ],
)
def test_bad_policies_are_refused_when_made(make: Any) -> None:
    with pytest.raises(PlanError):
        make()
