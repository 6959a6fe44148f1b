"""Applying re-routes to tensors, against a slow reference in plain Python, for softmax and sigmoid rules with groups."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.anatomy import RoutingRule
from workbench.errors import EditRefused
from workbench.interventions.routing import route

E, K = 6, 2


def _rule(kind: str) -> RoutingRule:
    bias = torch.linspace(-0.3, 0.3, E)
    return {
        "softmax": RoutingRule("olmoe", "softmax", K),
        "softmax-norm": RoutingRule("mixtral", "softmax", K, normalise=True),
        "topk_softmax": RoutingRule("gpt_oss", "topk_softmax", K),
        "sigmoid": RoutingRule(
            "glm4_moe", "sigmoid", K, normalise=True, eps=1e-20, scale=2.5, bias=lambda: bias
        ),
    }[kind]


KINDS = ("softmax", "softmax-norm", "topk_softmax", "sigmoid")


def _weights(kind: str, logits: list[float], ids: list[int]) -> list[float]:
    """Combine weights of ``ids`` by the textbook formula of the family."""
    if kind == "topk_softmax":
        total = sum(math.exp(logits[i]) for i in ids)
        return [math.exp(logits[i]) / total for i in ids]
    if kind == "sigmoid":
        raw = [1 / (1 + math.exp(-logits[i])) for i in ids]
        return [2.5 * r / sum(raw) for r in raw]
    total = sum(math.exp(x) for x in logits)
    raw = [math.exp(logits[i]) / total for i in ids]
    return [r / sum(raw) for r in raw] if kind == "softmax-norm" else raw


def _best(kind: str, logits: list[float], legal: set[int]) -> list[int]:
    bias = np.linspace(-0.3, 0.3, E)
    score = [1 / (1 + math.exp(-x)) + bias[i] if kind == "sigmoid" else x for i, x in enumerate(logits)]
    return sorted(sorted(legal), key=lambda i: -score[i])[:K]


def _native(kind: str, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rule = _rule(kind)
    ids = rule.choose(rule.selection(rule.scores(logits)))
    return ids, rule.weigh(rule.scores(logits), ids)


def _apply(kind: str, logits: torch.Tensor, edits: list[tuple[Any, torch.Tensor]]) -> Any:
    ids, weights = _native(kind, logits)
    return (
        ids,
        weights,
        route(edits, logits, ids, weights, _rule(kind), lambda edit: pytest.fail("no replay here")),
    )


everyone = torch.ones(4, dtype=torch.bool)
logit_rows = st.lists(
    st.lists(st.integers(-300, 300), min_size=E, max_size=E, unique=True), min_size=4, max_size=4
).map(lambda rows: torch.tensor(rows, dtype=torch.float32) / 100)


@pytest.mark.parametrize("kind", KINDS)
@given(logits=logit_rows, banned=st.sets(st.integers(0, E - 1), min_size=1, max_size=E - K))
def test_ban_takes_the_next_best_with_unedited_scores(
    kind: str, logits: torch.Tensor, banned: set[int]
) -> None:
    _, _, routed = _apply(kind, logits, [(wb.reroute.ban(0, banned), everyone)])
    for row, ids, weights in zip(logits.tolist(), routed.ids.tolist(), routed.weights.tolist(), strict=True):
        assert set(ids) == set(_best(kind, row, set(range(E)) - banned))
        assert weights == pytest.approx(_weights(kind, row, ids), rel=1e-5)


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
            assert weights == pytest.approx(_weights(kind, removed, ids), rel=1e-5)


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
            _weights(kind, row, routed.ids[n].tolist()), rel=1e-5
        )


@pytest.mark.parametrize("kind", KINDS)
@given(logits=logit_rows, delta=st.lists(st.integers(-200, 200), min_size=E, max_size=E))
def test_bias_equals_a_router_with_that_bias(kind: str, logits: torch.Tensor, delta: list[int]) -> None:
    vector = [d / 100 + 0.0013 for d in delta]  # the offset breaks ties between biased rows of hundredths
    _, _, routed = _apply(kind, logits, [(wb.reroute.bias(0, vector), everyone)])
    biased = logits + torch.tensor(vector)
    ids, weights = _native(kind, biased)
    assert torch.equal(routed.ids, ids)
    assert torch.equal(routed.weights, weights)


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
    other = _weights("softmax", logits[0].tolist(), routed.ids[0].tolist())[1 - at]
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
    ids, weights = _native("softmax", logits)
    other_ids, other_weights = torch.tensor([[5, 4]] * 3), torch.tensor([[0.7, 0.1]] * 3)
    known = torch.tensor([True, False, True])
    where = torch.tensor([True, True, False])
    routed = route(
        [(wb.reroute.replay(1), where)],
        logits,
        ids,
        weights,
        _rule("softmax"),
        lambda e: (other_ids, other_weights, known),
    )
    assert routed.ids.tolist() == [[5, 4], ids[1].tolist(), ids[2].tolist()]
    assert torch.equal(routed.weights[0], other_weights[0]) and torch.equal(routed.weights[1:], weights[1:])
    assert routed.edited.tolist() == [True, False, False]
