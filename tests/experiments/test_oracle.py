"""Oracle paths against an exhaustive search, on tiny models."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from workbench.errors import EditRefused, WorkbenchError
from workbench.experiments import choice_losses, oracle
from workbench.interventions import Plan, reroute

CHOICES = ["a", "b", "c", "d"]


class Letters:
    """A tokenizer of single characters."""

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [2 + ord(letter) % 60 for letter in text]}

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


@pytest.fixture
def items() -> pd.DataFrame:
    """Three prompts with the same four options."""
    table = pd.DataFrame({"prompt": ["hello", "world", "other"], "answer": ["b", "c", "a"]})
    return table.assign(choices=[CHOICES] * 3, wrong=["a", "a", "d"])


def target_losses(bench: Any, items: pd.DataFrame, plans: list[Plan], target: str) -> np.ndarray:
    scored = bench.evaluate(items, plans=plans)
    return choice_losses(scored["losses"], scored["choices"], scored[target]).reshape(len(plans), -1)


def test_choice_losses_are_those_of_a_softmax_over_the_options() -> None:
    losses = pd.Series([[1.0, 2.0, 0.5]])
    found = choice_losses(losses, pd.Series([["x", "y", "z"]]), pd.Series(["y"]))
    weights = np.exp([-1.0, -2.0, -0.5])
    assert found == pytest.approx(-np.log(weights[1] / weights.sum()))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["answer", "wrong"])
def test_one_layer_equals_an_exhaustive_search(bench: Any, items: pd.DataFrame, target: str) -> None:
    made = bench("olmoe", tokenizer=Letters())
    found = oracle(made, items, [1], target=target)
    sets = list(combinations(range(8), 2))
    plans = [Plan(), *(Plan([reroute.allow(1, one, tokens="prompt_last")]) for one in sets)]
    losses = target_losses(made, items, plans, target)
    np.testing.assert_allclose(found.table["loss_before"], losses[0])
    np.testing.assert_allclose(found.table["loss_after"], losses.min(axis=0))
    best = losses.argmin(axis=0)
    assert found.table["layer_1"].tolist() == [None if b == 0 else sets[b - 1] for b in best]
    assert any(one is not None for one in found.table["layer_1"])
    assert [plan.hash for plan in found.plans] == [plans[b].hash for b in best]


def test_layers_are_chosen_one_after_the_other_and_the_plans_give_the_losses(
    bench: Any, items: pd.DataFrame
) -> None:
    made = bench("olmoe", tokenizer=Letters())
    first, both = oracle(made, items, [1]), oracle(made, items, [2, 1])
    assert both.table["layer_1"].tolist() == first.table["layer_1"].tolist()
    assert (both.table["loss_after"] <= first.table["loss_after"] + 1e-9).all()
    scored = made.evaluate(items, plans=[both.plans])
    after = choice_losses(scored["losses"], scored["choices"], scored["answer"])
    np.testing.assert_allclose(after, both.table["loss_after"], atol=1e-5)


def test_one_path_for_several_wordings_minimises_their_mean_loss(bench: Any, items: pd.DataFrame) -> None:
    made = bench("olmoe", tokenizer=Letters())
    other = items.assign(prompt=["HELLO!", "WORLD!", "OTHER!"])
    sets = [(0, 1), (2, 5), (3, 7)]
    found = oracle(made, [items, other], [2], experts=sets)
    plans = [Plan(), *(Plan([reroute.allow(2, one, tokens="prompt_last")]) for one in sets)]
    mean = (target_losses(made, items, plans, "answer") + target_losses(made, other, plans, "answer")) / 2
    np.testing.assert_allclose(found.table["loss_after"], mean.min(axis=0))


@pytest.mark.slow
def test_refusals(bench: Any, items: pd.DataFrame) -> None:
    made = bench("olmoe", tokenizer=Letters())
    with pytest.raises(WorkbenchError, match="as many in every wording"):
        oracle(made, [items, items[:2]], [1])
    with pytest.raises(WorkbenchError, match="no column 'label'"):
        oracle(made, items, [1], target="label")
    with pytest.raises(WorkbenchError, match="not among its choices"):
        oracle(made, items.assign(answer="z"), [1])
    with pytest.raises(WorkbenchError, match="No layer"):
        oracle(made, items, [])
    with pytest.raises(EditRefused, match="no router"):
        oracle(bench("llama", tokenizer=Letters()), items, [1])
