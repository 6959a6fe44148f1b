"""Routing by the textbook, one token at a time, for the tests of edits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from workbench.anatomy import RoutingRule
from workbench.interventions.routing import Native

E, K = 6, 2


def rule_of(kind: str) -> RoutingRule:
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


def textbook_weights(kind: str, logits: list[float], ids: list[int]) -> list[float]:
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


def native_choice(kind: str, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rule = rule_of(kind)
    ids = rule.choose(rule.selection(rule.scores(logits)))
    return ids, rule.weigh(rule.scores(logits), ids)


class Nobody:
    """Surroundings that are never asked."""

    def __getattr__(self, name: str) -> Any:
        pytest.fail(f"{name} is not asked for here")


def facts(logits: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor, **more: Any) -> Native:
    size = len(logits)
    given = {
        "positions": torch.arange(size), "tokens": torch.arange(size), "rows": torch.zeros(size, dtype=torch.int64),
        "steps": torch.zeros(size, dtype=torch.int64), "valid": torch.ones(size, dtype=torch.bool), "layer": 0,
    }  # fmt: skip
    return Native(logits, ids, weights, **(given | more))


def used_slots(routed: Any, n: int) -> tuple[list[int], list[float]]:
    pairs = [
        (i, w) for i, w in zip(routed.ids[n].tolist(), routed.weights[n].tolist(), strict=True) if i >= 0
    ]
    return [i for i, _ in pairs], [w for _, w in pairs]
