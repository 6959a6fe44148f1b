"""Applying re-routes to tensors, against a slow reference in plain Python, for softmax and sigmoid rules with groups."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from routing_reference import KINDS, E, K, Nobody, facts, native_choice, rule_of, textbook_weights, used_slots

import workbench as wb
from workbench.errors import EditRefused
from workbench.interventions.routing import route


def _best(kind: str, logits: list[float], legal: set[int]) -> list[int]:
    bias = np.linspace(-0.3, 0.3, E)
    score = [1 / (1 + math.exp(-x)) + bias[i] if kind == "sigmoid" else x for i, x in enumerate(logits)]
    return sorted(sorted(legal), key=lambda i: -score[i])[:K]


def _apply(kind: str, logits: torch.Tensor, edits: list[tuple[Any, torch.Tensor]]) -> Any:
    ids, weights = native_choice(kind, logits)
    return ids, weights, route(edits, facts(logits, ids, weights), rule_of(kind), Nobody())


everyone = torch.ones(4, dtype=torch.bool)
logit_rows = st.lists(
    st.lists(st.integers(-300, 300), min_size=E, max_size=E, unique=True), min_size=4, max_size=4
).map(lambda rows: torch.tensor(rows, dtype=torch.float32) / 100)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(logits=logit_rows, banned=st.sets(st.integers(0, E - 1), min_size=1, max_size=E - K))
def test_ban_takes_the_next_best_with_unedited_scores(
    kind: str, logits: torch.Tensor, banned: set[int]
) -> None:
    _, _, routed = _apply(kind, logits, [(wb.reroute.ban(0, banned), everyone)])
    for row, ids, weights in zip(logits.tolist(), routed.ids.tolist(), routed.weights.tolist(), strict=True):
        assert set(ids) == set(_best(kind, row, set(range(E)) - banned))
        assert weights == pytest.approx(textbook_weights(kind, row, ids), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(logits=logit_rows, banned=st.sets(st.integers(0, E - 1), min_size=1, max_size=E - K))
def test_ban_at_logits_equals_a_router_without_those_rows(
    kind: str, logits: torch.Tensor, banned: set[int]
) -> None:
    _, _, routed = _apply(kind, logits, [(wb.reroute.ban(0, banned, at="logits"), everyone)])
    for row, ids, weights in zip(logits.tolist(), routed.ids.tolist(), routed.weights.tolist(), strict=True):
        removed = [-1e4 if i in banned else x for i, x in enumerate(row)]
        assert set(ids) == set(_best(kind, row, set(range(E)) - banned))
        if kind != "sigmoid":
            assert weights == pytest.approx(textbook_weights(kind, removed, ids), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(logits=logit_rows, forced=st.integers(0, E - 1), where=st.lists(st.booleans(), min_size=4, max_size=4))
def test_force_replaces_the_lowest_of_the_others(
    kind: str, logits: torch.Tensor, forced: int, where: list[bool]
) -> None:
    mask = torch.tensor(where)
    ids, weights, routed = _apply(kind, logits, [(wb.reroute.force(0, forced), mask)])
    for n, row in enumerate(logits.tolist()):
        if not where[n] or forced in ids[n].tolist():
            assert torch.equal(routed.ids[n], ids[n]) and torch.equal(routed.weights[n], weights[n])
            assert not bool(routed.edited[n])
            continue
        best = _best(kind, row, set(range(E)))[0]
        assert set(routed.ids[n].tolist()) == {best, forced}
        assert routed.weights[n].tolist() == pytest.approx(
            textbook_weights(kind, row, routed.ids[n].tolist()), rel=1e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(logits=logit_rows, delta=st.lists(st.integers(-200, 200), min_size=E, max_size=E))
def test_bias_equals_a_router_with_that_bias(kind: str, logits: torch.Tensor, delta: list[int]) -> None:
    vector = [d / 100 + 0.0013 for d in delta]  # the offset breaks ties between biased rows of hundredths
    _, _, routed = _apply(kind, logits, [(wb.reroute.bias(0, vector), everyone)])
    biased = logits + torch.tensor(vector)
    ids, weights = native_choice(kind, biased)
    assert torch.equal(routed.ids, ids)
    assert torch.equal(routed.weights, weights)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(logits=logit_rows)
def test_edits_without_effect_keep_the_models_own_bits(kind: str, logits: torch.Tensor) -> None:
    nobody = torch.zeros(4, dtype=torch.bool)
    edits = [
        (wb.reroute.bias(0, [0.0] * E), everyone),
        (wb.reroute.ban(0, [0, 1]), nobody),
        (wb.reroute.force(0, 3), nobody),
    ]
    ids, weights, routed = _apply(kind, logits, edits)
    assert (
        torch.equal(routed.ids, ids)
        and torch.equal(routed.weights, weights)
        and not bool(routed.edited.any())
    )


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_ban_and_a_force_the_later_holds(kind: str) -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0, -2.0]])
    one = torch.ones(1, dtype=torch.bool)
    ban, force = wb.reroute.ban(0, 4), wb.reroute.force(0, 4)
    assert 4 in _apply(kind, logits, [(ban, one), (force, one)])[2].ids[0].tolist()
    assert 4 not in _apply(kind, logits, [(force, one), (ban, one)])[2].ids[0].tolist()


def test_an_explicit_weight_is_used_as_given() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0, -2.0]])
    one = torch.ones(1, dtype=torch.bool)
    routed = _apply("softmax", logits, [(wb.reroute.force(0, 4, weight=0.25), one)])[2]
    at = routed.ids[0].tolist().index(4)
    assert routed.weights[0, at] == 0.25
    other = textbook_weights("softmax", logits[0].tolist(), routed.ids[0].tolist())[1 - at]
    assert float(routed.weights[0, 1 - at]) == pytest.approx(other, rel=1e-6)


def test_too_many_forces_or_bans_on_one_token_are_refused() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0, -2.0]])
    one = torch.ones(1, dtype=torch.bool)
    with pytest.raises(EditRefused, match="forces more experts"):
        _apply("softmax", logits, [(wb.reroute.force(0, n), one) for n in (3, 4, 5)])
    with pytest.raises(EditRefused, match="fewer than 2 experts"):
        _apply("softmax", logits, [(wb.reroute.ban(0, [0, 1, 2]), one), (wb.reroute.ban(0, [3, 4]), one)])


def test_replay_takes_ids_and_weights_exactly_where_they_are_known() -> None:
    logits = torch.randn(3, E, generator=torch.Generator().manual_seed(0))
    ids, weights = native_choice("softmax", logits)
    other_ids, other_weights = torch.tensor([[5, 4]] * 3), torch.tensor([[0.7, 0.1]] * 3)
    known = torch.tensor([True, False, True])
    where = torch.tensor([True, True, False])
    edits = [(wb.reroute.replay(1), where)]
    around = SimpleNamespace(routes=lambda edit: (other_ids, other_weights, known))
    routed = route(edits, facts(logits, ids, weights), rule_of("softmax"), around)
    assert routed.ids.tolist() == [[5, 4], ids[1].tolist(), ids[2].tolist()]
    assert torch.equal(routed.weights[0], other_weights[0]) and torch.equal(routed.weights[1:], weights[1:])
    assert routed.edited.tolist() == [True, False, False]


# Policies, permutations and weights


def _shares(kind: str, row: list[float]) -> list[float]:
    """The router's distribution over all experts."""
    raw = [1 / (1 + math.exp(-x)) if kind == "sigmoid" else math.exp(x) for x in row]
    return [r / sum(raw) for r in raw]


def _ranked(kind: str, row: list[float]) -> list[int]:
    bias = np.linspace(-0.3, 0.3, E)
    score = [1 / (1 + math.exp(-x)) + bias[i] if kind == "sigmoid" else x for i, x in enumerate(row)]
    return sorted(range(E), key=lambda i: -score[i])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(logits=logit_rows, k=st.integers(1, E))
def test_top_k_uses_the_best_k_with_the_familys_weights(kind: str, logits: torch.Tensor, k: int) -> None:
    ids, weights, routed = _apply(kind, logits, [(wb.reroute.top_k(0, k), everyone)])
    for n, row in enumerate(logits.tolist()):
        used, given_weights = used_slots(routed, n)
        assert set(used) == set(_ranked(kind, row)[:k])
        assert given_weights == pytest.approx(textbook_weights(kind, row, used), rel=1e-5)
    if k == K:
        assert torch.equal(routed.ids, ids) and torch.equal(routed.weights, weights)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(logits=logit_rows, p=st.integers(1, 99), max_k=st.none() | st.integers(1, 4))
def test_top_p_stops_when_the_share_is_reached(
    kind: str, logits: torch.Tensor, p: int, max_k: int | None
) -> None:
    _, _, routed = _apply(kind, logits, [(wb.reroute.top_p(0, p / 100, max_k=max_k), everyone)])
    for n, row in enumerate(logits.tolist()):
        share, wanted, total = _shares(kind, row), [], 0.0
        margins = []
        for expert in _ranked(kind, row):
            margins.append(abs(total - p / 100))
            if total >= p / 100 or len(wanted) == (max_k or E):
                break
            wanted.append(expert)
            total += share[expert]
        if min(margins[1:], default=1.0) > 1e-5:  # rounding may decide where the sum meets p exactly
            used, given_weights = used_slots(routed, n)
            assert set(used) == set(wanted)
            assert given_weights == pytest.approx(textbook_weights(kind, row, used), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(logits=logit_rows, tau=st.integers(0, 60))
def test_threshold_keeps_the_experts_above_it_and_at_least_one(
    kind: str, logits: torch.Tensor, tau: int
) -> None:
    _, _, routed = _apply(kind, logits, [(wb.reroute.threshold(0, tau / 100), everyone)])
    for n, row in enumerate(logits.tolist()):
        share = _shares(kind, row)
        if min(abs(s - tau / 100) for s in share) > 1e-5:
            wanted = {i for i in range(E) if share[i] >= tau / 100} | {_ranked(kind, row)[0]}
            assert set(used_slots(routed, n)[0]) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(logits=logit_rows, shift=st.integers(0, E - K))
def test_rank_offset_takes_the_next_ranks(kind: str, logits: torch.Tensor, shift: int) -> None:
    ids, weights, routed = _apply(kind, logits, [(wb.reroute.rank_offset(0, shift), everyone)])
    for n, row in enumerate(logits.tolist()):
        assert set(used_slots(routed, n)[0]) == set(_ranked(kind, row)[shift : shift + K])
    if shift == 0:
        assert torch.equal(routed.ids, ids) and torch.equal(routed.weights, weights)


def test_random_depends_on_seed_layer_and_position_and_spares_the_banned() -> None:
    logits = torch.zeros(4000, E) + torch.arange(E) * 0.01
    rule, everybody = rule_of("softmax"), torch.ones(4000, dtype=torch.bool)
    ids, weights = native_choice("softmax", logits)

    def draw(seed: int, layer: int, positions: torch.Tensor, *more: Any) -> torch.Tensor:
        size = len(positions)
        alone = facts(logits[:size], ids[:size], weights[:size], positions=positions, layer=layer)
        edits = [(e, everybody[: len(positions)]) for e in (wb.reroute.random("all", seed), *more)]
        return route(edits, alone, rule, Nobody()).ids

    positions = torch.arange(4000)
    first = draw(1, 2, positions)
    assert torch.equal(first[5:9], draw(1, 2, positions[5:9]))
    assert not torch.equal(first, draw(2, 2, positions)) and not torch.equal(first, draw(1, 3, positions))
    assert bool((first[:, 0] != first[:, 1]).all())
    share = torch.bincount(first.reshape(-1), minlength=E) / first.numel()
    assert float((share - 1 / E).abs().max()) < 0.015
    assert set(draw(1, 2, positions, wb.reroute.ban(0, [0, 4])).unique().tolist()) == {1, 2, 3, 5}


@pytest.mark.parametrize("kind", KINDS)
@given(logits=logit_rows, moved=st.permutations(range(E)))
def test_permute_exchanges_experts_and_keeps_weights(
    kind: str, logits: torch.Tensor, moved: list[int]
) -> None:
    ids, weights, routed = _apply(kind, logits, [(wb.reroute.permute(0, moved), everyone)])
    assert routed.ids.tolist() == [[moved[i] for i in row] for row in ids.tolist()]
    assert torch.equal(routed.weights, weights)


@pytest.mark.parametrize("kind", KINDS)
@given(logits=logit_rows, tau=st.sampled_from([0.5, 1.0, 3.0]))
def test_temperature_equals_a_router_with_divided_logits(kind: str, logits: torch.Tensor, tau: float) -> None:
    _, _, routed = _apply(kind, logits, [(wb.reroute.temperature(0, tau), everyone)])
    ids, weights = native_choice(kind, logits / tau)
    assert torch.equal(routed.ids, ids) and torch.equal(routed.weights, weights)


@given(
    logits=logit_rows,
    given_scores=st.permutations([0.05, 0.1, 0.15, 0.2, 0.22, 0.28]),
    alpha=st.integers(0, 100),
)
def test_score_mix_decides_choice_and_weights(
    logits: torch.Tensor, given_scores: list[float], alpha: int
) -> None:
    edit = wb.reroute.scores(0, given_scores, alpha=alpha / 100)
    ids, weights, routed = _apply("softmax", logits, [(edit, everyone)])
    for n, row in enumerate(logits.tolist()):
        mixed = [
            (1 - alpha / 100) * s + alpha / 100 * g
            for s, g in zip(_shares("softmax", row), given_scores, strict=True)
        ]
        ordered = sorted(mixed, reverse=True)
        if ordered[K - 1] - ordered[K] > 1e-6:
            used, given_weights = used_slots(routed, n)
            assert set(used) == set(sorted(range(E), key=lambda i: -mixed[i])[:K])
            assert given_weights == pytest.approx([mixed[i] for i in used], rel=1e-4)
    if alpha == 0:
        assert torch.equal(routed.ids, ids) and torch.equal(routed.weights, weights)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(logits=logit_rows)
def test_weights_are_remixed_with_a_stated_normalisation(kind: str, logits: torch.Tensor) -> None:
    ids, weights, uniform = _apply(kind, logits, [(wb.reroute.uniform(0), everyone)])
    assert torch.equal(uniform.ids, ids)
    np.testing.assert_allclose(uniform.weights, weights.mean(-1, keepdim=True).expand(-1, K), rtol=1e-6)
    same = _apply(kind, logits, [(wb.reroute.weights(0, scale=1.0, normalise="keep-sum"), everyone)])[2]
    assert torch.equal(same.weights, weights) and not bool(same.edited.any())
    doubled = _apply(kind, logits, [(wb.reroute.weights(0, scale={3: 2.0}), everyone)])[2]
    np.testing.assert_allclose(doubled.weights, weights * torch.where(ids == 3, 2.0, 1.0), rtol=1e-6)
    kept = _apply(kind, logits, [(wb.reroute.weights(0, scale={3: 2.0}, normalise="keep-sum"), everyone)])[2]
    np.testing.assert_allclose(kept.weights.sum(-1), weights.sum(-1), rtol=1e-5)
    one = _apply(kind, logits, [(wb.reroute.weights(0, scale=3.0, normalise="one"), everyone)])[2]
    np.testing.assert_allclose(one.weights.sum(-1), torch.ones(4), rtol=1e-5)
    values = _apply(kind, logits, [(wb.reroute.weights(0, values=[0.75, 0.25]), everyone)])[2]
    best = weights.argmax(-1)
    for n in range(4):
        if weights[n, 0] != weights[n, 1]:
            assert float(values.weights[n, best[n]]) == 0.75 and float(values.weights[n, 1 - best[n]]) == 0.25


def test_stages_follow_each_other_whatever_the_order_of_the_plan() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0, -2.0]] * 4)
    edits = [
        wb.reroute.uniform(0), wb.reroute.permute(0, [1, 2, 3, 4, 5, 0]), wb.reroute.force(0, 5), wb.reroute.top_k(0, 3),
        wb.reroute.ban(0, 0), wb.reroute.temperature(0, 2.0),
    ]  # fmt: skip
    want = _apply("softmax", logits, [(e, everyone) for e in reversed(edits)])[2]
    got = _apply("softmax", logits, [(e, everyone) for e in edits])[2]
    assert torch.equal(got.ids, want.ids) and torch.equal(got.weights, want.weights)
    assert set(got.ids[0].tolist()) == {
        2,
        3,
        0,
    }  # best three without 0 are 1, 2, 3; 5 replaces 3; then all move up one
    assert wb.Plan(edits).hash == wb.Plan(list(reversed(edits))).hash


def test_tokens_outside_the_scope_of_a_larger_k_keep_their_own() -> None:
    logits = torch.randn(4, E, generator=torch.Generator().manual_seed(1))
    where = torch.tensor([True, False, False, True])
    ids, weights, routed = _apply("softmax-norm", logits, [(wb.reroute.top_k(0, 4), where)])
    assert (
        routed.ids.shape == (4, 4)
        and (routed.ids[1:3, 2:] == -1).all()
        and (routed.weights[1:3, 2:] == 0).all()
    )
    assert torch.equal(routed.ids[1:3, :2], ids[1:3]) and torch.equal(routed.weights[1:3, :2], weights[1:3])
    assert routed.edited.tolist() == where.tolist()


def test_weights_that_cannot_be_normalised_are_refused() -> None:
    logits = torch.zeros(4, E)
    with pytest.raises(EditRefused, match="sum to zero"):
        _apply("softmax", logits, [(wb.reroute.weights(0, scale=0.0, normalise="one"), everyone)])
