"""Crossed runs: the routes of one on the input of the other."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import workbench as wb
from workbench.errors import EditRefused, PromptError

A = [5, 17, 3, 60, 22, 9, 41, 8]
B = [7, 30, 11, 4, 51, 23, 6, 14]


def routes(bench: Any, run: Any) -> list[tuple[Any, ...]]:
    return bench.sql(
        "SELECT layer, position, slot, expert, weight FROM routing WHERE run = ? ORDER BY ALL", [run.id]
    ).fetchall()


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["auto", "model"])
def test_effects_add_up_and_routes_are_exact(bench: Any, kernels: str) -> None:
    one = bench("olmoe", kernels=kernels)
    a, b = one.run(A), one.run(B)
    crossed = one.crossed(a, b, metric=11)
    runs, values = crossed.runs, crossed.values
    assert torch.equal(runs["a", "a"].logits, a.logits) and torch.equal(runs["b", "b"].logits, b.logits)
    assert routes(one, runs["b", "a"]) == routes(one, b) and routes(one, runs["a", "b"]) == routes(one, a)
    assert runs["b", "a"].tokens.tolist() == A and runs["a", "b"].tokens.tolist() == B
    for key, run in runs.items():
        assert values[key] == pytest.approx(float(run.logits[-1].log_softmax(-1)[11]))
    total = values["b", "b"] - values["a", "a"]
    assert crossed.router + crossed.expert + crossed.interaction == pytest.approx(total)
    assert crossed.router == pytest.approx(values["b", "a"] - values["a", "a"]) and abs(crossed.router) > 1e-4
    assert len(crossed.table()) == 4
    # By hand, on the model itself: the routes of b forced into a's pass.
    some = one.crossed(a, b, metric=lambda run: run.loss, layers=1)
    by_hand = one.run(A, wb.reroute.replay(b, layers=1))
    assert torch.equal(some.runs["b", "a"].logits, by_hand.logits)


@pytest.mark.slow
def test_maps_and_refusals(bench: Any) -> None:
    one = bench("olmoe")
    a, longer = one.run(A), one.run([9, *A])
    with pytest.raises(EditRefused, match="positions do not match"):
        one.crossed(a, longer, metric=1)
    shifted = one.crossed(a, longer, metric=1, token_map={n: n + 1 for n in range(len(A))})
    moved = [(layer, position - 1, *rest) for layer, position, *rest in routes(one, longer) if position]
    assert routes(one, shifted.runs["b", "a"]) == moved
    with pytest.raises(EditRefused, match="re-routed by its plan"):
        one.crossed(a, one.run(B, wb.reroute.ban(0, 1)), metric=1)
    with pytest.raises(PromptError, match="no routes to cross"):
        one.crossed(a, one.run(B, record=None), metric=1)


def test_a_replay_may_take_another_layer(bench: Any) -> None:
    one = bench("olmoe")
    a = one.run(A)
    run = one.run(A, wb.reroute.replay(a, layers=2, layer_map={2: 0}))
    by_layer = {layer: [r[1:] for r in routes(one, run) if r[0] == layer] for layer in (0, 2)}
    assert by_layer[2] == by_layer[0]
