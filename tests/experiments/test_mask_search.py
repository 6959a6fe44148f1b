"""A search over masks of one budget, against trying all of them, and its place among random masks."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

import workbench as wb
from workbench.errors import WorkbenchError
from workbench.experiments import search_mask
from workbench.experiments.mask_search import plan_of, pool_of

TEXTS = [[(a * n * n + 3 * n) % 64 for n in range(20)] for a in (1, 5, 7, 11)]


def loss(bench: Any, prompts: list[list[int]], plan: wb.Plan) -> float:
    runs = [bench.run(ids, plan, record=None) for ids in prompts]
    return sum(run.loss for run in runs) / len(runs)  # all prompts are of one length


@pytest.mark.slow
def test_enough_swaps_find_the_best_mask_of_the_budget(bench: Any) -> None:
    one = bench("llama")
    pool = pool_of(one.anatomy, "heads", [0, 1])
    assert pool == [(layer, head) for layer in (0, 1) for head in range(4)]
    every = {chosen: loss(one, TEXTS[:1], plan_of("heads", chosen)) for chosen in combinations(pool, 2)}
    found = search_mask(one, TEXTS[:1], TEXTS[1:2], "heads", 2, layers=[0, 1], swaps=60, nulls=20, seed=1)
    assert found.units == min(every, key=lambda chosen: every[chosen])
    table = found.table.set_index("mask")
    assert table.loc["found", "loss"] == pytest.approx(min(every.values()), abs=1e-5)
    assert table.loc["found", "loss"] <= table.loc["ranked", "loss"]
    assert table.loc["found", "held_out"] == pytest.approx(loss(one, TEXTS[1:2], found.plan), abs=1e-5)
    assert table.loc["none", "held_out"] == pytest.approx(loss(one, TEXTS[1:2], wb.Plan()), abs=1e-5)
    nulls = table.loc["random", "held_out"]
    assert len(nulls) == 20 and nulls.nunique() > 5
    assert found.percentile == pytest.approx((nulls >= table.loc["found", "held_out"]).mean())
    again = search_mask(one, TEXTS[:1], TEXTS[1:2], "heads", 2, layers=[0, 1], swaps=60, nulls=20, seed=1)
    assert again.plan == found.plan and again.table.equals(found.table) and found.tried <= 8 + 61


@pytest.mark.slow
@pytest.mark.parametrize(("units", "size"), [("experts", 24), ("blocks", 3), ("attentions", 3), ("mlps", 3)])
def test_every_kind_of_unit_has_a_mask_of_exactly_the_budget(bench: Any, units: Any, size: int) -> None:
    one = bench("olmoe")
    assert len(pool_of(one.anatomy, units)) == size
    found = search_mask(one, TEXTS[:1], TEXTS[1:2], units, 2, swaps=2, nulls=2)
    assert len(found.units) == 2 and 0 <= found.percentile <= 1
    named = sum(len(edit.layers) * len(getattr(edit, units, [0])) for edit in found.plan)
    assert named == 2
    assert found.table.set_index("mask").loc["found", "loss"] == pytest.approx(
        one.run(TEXTS[0], found.plan, record=None).loss, abs=1e-4
    )


def test_a_budget_that_leaves_no_choice_is_refused(bench: Any) -> None:
    one = bench("llama")
    for budget in (0, 3, 9):
        with pytest.raises(WorkbenchError, match="nothing to choose"):
            search_mask(one, TEXTS[:1], TEXTS[1:2], "blocks", budget)
