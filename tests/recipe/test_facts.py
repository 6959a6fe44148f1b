"""The datasheet's numbers against independent references."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import mutual_info_score

from data.recipe import evaluate, routing_facts


def small_sample(rows: int = 12, length: int = 20) -> routing_facts.Sample:
    """Random ids of three labels."""
    ids = torch.randint(2, 64, (rows, length), generator=torch.Generator().manual_seed(0))
    counted = torch.ones(rows, length - 1, dtype=torch.bool)
    return routing_facts.Sample(ids, torch.zeros_like(ids), counted, np.arange(rows) % 3)


def test_information_equals_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 5, 4_000), rng.integers(0, 7, 4_000)
    right = np.where(rng.random(4_000) < 0.4, left, right)
    table = np.zeros((5, 7))
    np.add.at(table, (left, right), 1)
    assert routing_facts.information(table) == pytest.approx(mutual_info_score(left, right) / np.log(2))


def test_independent_sides_carry_no_information() -> None:
    assert routing_facts.information(np.outer([1.0, 2.0, 3.0], [4.0, 1.0])) == pytest.approx(0, abs=1e-12)


def test_domain_information_stands_out_of_its_null_only_where_experts_follow_domains() -> None:
    data = small_sample(rows=60)
    generator = np.random.default_rng(1)
    blind = torch.from_numpy(generator.integers(0, 4, (60, 20, 2)))
    following = torch.from_numpy(np.broadcast_to(data.label[:, None, None], (60, 20, 2)).copy())
    seen = routing_facts.Observed(torch.zeros(60, 19), torch.stack([blind, following]))
    unrelated, related = routing_facts.domain_information(seen, data, experts=4)
    assert unrelated["bits"] < 0.02
    assert related["bits"] == pytest.approx(np.log2(3))
    assert related["bits"] > 2 * related["null_high"]


def test_observed_losses_and_experts_are_the_models_own(tiny: Callable[..., Any]) -> None:
    model, data = tiny("olmoe-norm"), small_sample()
    seen = routing_facts.observe(model, data, batch=5)
    with torch.no_grad():
        out = model(data.ids, output_router_logits=True, use_cache=False)
        expected = torch.nn.functional.cross_entropy(
            out.logits[:, :-1].transpose(1, 2), data.ids[:, 1:], reduction="none"
        )
    torch.testing.assert_close(seen.loss, expected)
    chosen = torch.stack([logits.topk(2).indices.view(*data.ids.shape, 2) for logits in out.router_logits])
    assert torch.equal(seen.experts.sort(-1).values, chosen.sort(-1).values)
    load = routing_facts.loads(seen, 8)
    assert load.shape == (3, 8)
    assert np.allclose(load.sum(1), 1)


def test_random_routing_gives_different_experts_and_changes_the_loss(tiny: Callable[..., Any]) -> None:
    model, data = tiny("olmoe"), small_sample()
    seen = routing_facts.observe(model, data, routing_facts.random_experts(8, seed=0))
    assert (seen.experts[..., 0] != seen.experts[..., 1]).all()
    assert len(np.unique(seen.experts)) == 8
    assert not torch.allclose(seen.loss, routing_facts.observe(model, data).loss)
    again = routing_facts.observe(model, data, routing_facts.random_experts(8, seed=0))
    assert torch.equal(seen.loss, again.loss)
    assert not any(layer.mlp.experts._forward_pre_hooks for layer in model.model.layers)


def test_a_document_in_a_packed_row_is_read_as_if_it_stood_alone(tiny: Callable[..., Any]) -> None:
    model, data = tiny("olmoe"), small_sample(rows=2)
    data.document[:, 8:] = 1
    packed = routing_facts.observe(model, data)
    alone = routing_facts.Sample(
        data.ids[:, 8:], torch.zeros(2, 12, dtype=torch.int64), data.counted[:, 8:], data.label
    )
    seen = routing_facts.observe(model, alone)
    torch.testing.assert_close(packed.loss[:, 8:], seen.loss)
    assert torch.equal(packed.experts[:, :, 8:], seen.experts)


class Letters:
    """A tokenizer of single characters."""

    def __call__(self, texts: list[str]) -> dict[str, list[list[int]]]:
        return {"input_ids": [[2 + ord(letter) % 60 for letter in text] for text in texts]}


@pytest.mark.parametrize("task", ["recall", "sorting"])
def test_choice_scores_equal_one_forward_for_every_choice(task: str, tiny: Callable[..., Any]) -> None:
    model = tiny("olmoe")
    options = ["a", "b", "c"] if task == "recall" else ["ab", "cde", "f"]
    prompts = ["x", "hello", "longer prompt", "mid"]
    items = pd.DataFrame({"prompt": prompts, "choices": [options] * 4, "task": task})
    scores = evaluate.choice_scores(model, Letters(), items)
    for row, prompt in enumerate(prompts):
        for column, option in enumerate(options):
            ending = "<end>" if task == "sorting" else ""
            ids = torch.tensor(Letters()([prompt + option + ending])["input_ids"])
            with torch.no_grad():
                logs = model(ids).logits.log_softmax(-1)[0]
            expected = sum(float(logs[i - 1, ids[0, i]]) for i in range(len(prompt), ids.shape[1]))
            assert scores[row, column] == pytest.approx(expected, abs=1e-4)
