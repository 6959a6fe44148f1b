"""Routing rules against an independent float64 reference, on random and on adversarial scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from workbench.anatomy import RoutingRule, router_logits
from workbench.errors import ContractError

_EXPERTS = 8


def _reference(
    rule: RoutingRule, logits: np.ndarray, bias: np.ndarray | None
) -> tuple[list[set[int]], list[dict]]:
    """Chosen sets and weights by expert, token by token, in float64 and plain loops."""
    chosen, weights = [], []
    for row in logits.astype(np.float64):
        if rule.score == "softmax":
            e = np.exp(row - row.max())
            scores = e / e.sum()
        else:
            scores = 1 / (1 + np.exp(-row)) if rule.score == "sigmoid" else row
        rank = scores if bias is None else scores + bias
        legal = set(range(len(row)))
        if rule.n_group > 1:
            size = len(row) // rule.n_group
            groups = [range(g * size, (g + 1) * size) for g in range(rule.n_group)]
            take = 2 if rule.group == "top2sum" else 1
            worth = [sum(sorted((rank[i] for i in group), reverse=True)[:take]) for group in groups]
            best = sorted(range(rule.n_group), key=lambda g: -worth[g])[: rule.topk_group]
            legal = {i for g in best for i in groups[g]}
        ids = sorted(legal, key=lambda i: -rank[i])[: rule.top_k]
        w = np.array([scores[i] for i in ids])
        if rule.score == "topk_softmax":
            w = np.exp(w - w.max()) / np.exp(w - w.max()).sum()
        if rule.normalise:
            w = w / max(w.sum() + rule.eps, rule.norm_min)
        chosen.append(set(ids))
        weights.append(dict(zip(ids, w * rule.scale, strict=True)))
    return chosen, weights


_RULES = st.builds(
    RoutingRule,
    family=st.just("test"),
    score=st.sampled_from(["softmax", "sigmoid", "topk_softmax"]),
    top_k=st.integers(1, 3),
    normalise=st.booleans(),
    eps=st.sampled_from([0.0, 1e-20, 1e-6]),
    norm_min=st.sampled_from([0.0, 1e-12]),
    scale=st.sampled_from([1.0, 2.5]),
    n_group=st.sampled_from([1, 2, 4]),
    topk_group=st.just(2),
    group=st.sampled_from(["top2sum", "max"]),
    sorted=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(rule=_RULES, seed=st.integers(0, 2**32 - 1), biased=st.booleans())
def test_a_rule_agrees_with_the_reference(rule: RoutingRule, seed: int, biased: bool) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(size=(5, _EXPERTS)).astype(np.float32) * 3
    bias = random.normal(size=_EXPERTS).astype(np.float32) if biased else None
    object.__setattr__(rule, "bias", lambda: None if bias is None else torch.from_numpy(bias))
    scores = rule.scores(torch.from_numpy(logits))
    ids = rule.choose(rule.selection(scores))
    weights = rule.weigh(scores, ids)
    chosen, expected = _reference(rule, logits, bias)
    assert ids.shape == weights.shape == (5, rule.top_k) and ids.dtype == torch.int64
    for token in range(5):
        assert set(ids[token].tolist()) == chosen[token]
        got = dict(zip(ids[token].tolist(), weights[token].tolist(), strict=True))
        assert got == pytest.approx(expected[token], rel=2e-5, abs=1e-7)


@settings(max_examples=60, deadline=None)
@given(rule=_RULES, seed=st.integers(0, 2**32 - 1), banned=st.sets(st.integers(0, _EXPERTS - 1), max_size=4))
def test_a_banned_expert_is_never_chosen_and_the_next_best_is(
    rule: RoutingRule, seed: int, banned: set[int]
) -> None:
    assume(rule.n_group == 1 and rule.top_k <= _EXPERTS - len(banned))
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(4, _EXPERTS)).astype(np.float32))
    selection = rule.selection(rule.scores(logits))
    selection[:, sorted(banned)] = -torch.inf
    ids = rule.choose(selection)
    legal = [e for e in range(_EXPERTS) if e not in banned]
    for token in range(4):
        best = sorted(legal, key=lambda e: -float(selection[token, e]))[: rule.top_k]
        assert set(ids[token].tolist()) == set(best)


def test_groups_that_are_banned_whole_are_left_out() -> None:
    rule = RoutingRule("test", "sigmoid", 2, n_group=4, topk_group=2)
    selection = torch.arange(8.0).reshape(1, 8)
    selection[:, 6:] = -torch.inf
    assert set(rule.choose(selection)[0].tolist()) == {5, 4}


def test_the_number_of_choices_can_be_replaced() -> None:
    rule = RoutingRule("test", "softmax", 2)
    assert rule.choose(torch.arange(8.0).reshape(1, 8), k=3).tolist() == [[7, 6, 5]]


@settings(max_examples=40, deadline=None)
@given(logits=hnp.arrays(np.float32, (3, _EXPERTS), elements=st.floats(-80, 80, width=32)))
def test_scores_are_the_same_from_half_precision_logits_as_from_their_fp32_copies(logits: np.ndarray) -> None:
    half = torch.from_numpy(logits).bfloat16()
    for score in ("softmax", "sigmoid", "topk_softmax"):
        rule = RoutingRule("test", score, 2)
        assert rule.scores(half).dtype == torch.float32
        assert torch.equal(rule.scores(half), rule.scores(half.float()))


def test_router_logits_are_found_by_shape_and_dtype() -> None:
    logits, weights, ids = torch.randn(6, 8), torch.rand(6, 2), torch.zeros(6, 2, dtype=torch.int64)
    orders: list[Any] = [(logits, weights, ids), (ids, weights, logits), [weights, (ids, logits)], logits,
                         {"a": ids, "b": logits}]  # fmt: skip
    for output in orders:
        assert torch.equal(router_logits(output, 8), logits)
    assert router_logits(torch.randn(2, 3, 8), 8).shape == (6, 8)


@pytest.mark.parametrize(
    "output",
    [
        (torch.randn(6, 7),),
        (torch.zeros(6, 8, dtype=torch.int64),),
        (),
        (torch.randn(6, 8), torch.rand(6, 8)),
    ],
)
def test_router_logits_that_cannot_be_told_are_refused(output: Any) -> None:
    with pytest.raises(ContractError, match="router_logits cannot be told"):
        router_logits(output, 8)
