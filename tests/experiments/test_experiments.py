"""Evaluation, paired tests, matched controls and sweeps, against hand computation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import build_tiny

import workbench as wb
from workbench import experiments
from workbench.errors import PlanError, PromptError, WorkbenchError
from workbench.experiments import paired, sweep

PROMPTS = [[5, 17, 3, 60, 22], [9, 41, 8, 33, 2, 19]]


class Words:
    """A tokenizer whose words are the token ids themselves."""

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()]}

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))


@pytest.fixture
def items() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for n in range(40):
        choices = [str(c) for c in rng.choice(64, 4, replace=False)]
        if n % 2:
            choices = [f"{c} {d}" for c, d in zip(choices, rng.integers(0, 64, 4), strict=True)]
        prompt = " ".join(map(str, rng.integers(0, 64, 5 + n % 3)))
        rows.append({"prompt": prompt, "answer": choices[n % 4], "choices": choices, "level": n % 2})
    return pd.DataFrame(rows)


def test_evaluation_is_the_log_likelihood_of_each_option(bench: Any, items: pd.DataFrame) -> None:
    one = bench(build_tiny("olmoe"), tokenizer=Words())
    plan = wb.Plan([wb.skip.block(1)])
    table = one.evaluate(items, plans=[None, plan])
    assert len(table) == 80 and list(table["plan_number"].unique()) == [0, 1]
    for row in table.iloc[[0, 1, 7, 40, 41, 60]].itertuples():
        losses = []
        for choice in row.choices:
            prompt = [int(w) for w in row.prompt.split()]
            option = [int(w) for w in choice.split()]
            run = one.run(prompt + option, plan if row.plan_number else None, record=None)
            log_p = run.logits.double().log_softmax(-1)
            losses.append(-sum(float(log_p[len(prompt) - 1 + n, t]) for n, t in enumerate(option)))
        assert row.losses == pytest.approx(losses, rel=1e-4)
        assert row.prediction == row.choices[int(np.argmin(losses))] and row.correct == (
            row.prediction == row.answer
        )
    assert (table["level"] == np.tile(items["level"], 2)).all()


@pytest.mark.slow
def test_items_that_cannot_be_scored(bench: Any, items: pd.DataFrame) -> None:
    with pytest.raises(WorkbenchError, match="no column 'choices'"):
        bench(build_tiny("olmoe"), tokenizer=Words()).evaluate(items.drop(columns="choices"))
    with pytest.raises(PromptError, match="no tokenizer"):
        bench("olmoe").evaluate(items)


def test_paired_test_by_hand() -> None:
    base = np.array([1] * 10 + [0] * 10, dtype=bool)
    better = base.copy()
    better[10:16] = True
    better[0] = False
    table = pd.DataFrame({
        "item": np.tile(np.arange(20), 2), "plan_number": np.repeat([0, 1], 20), "plan": np.repeat(["a", "b"], 20),
        "correct": np.concatenate([base, better]),
    })  # fmt: skip
    row = paired(table).iloc[0]
    assert (row["items"], row["gained"], row["lost"]) == (20, 6, 1)
    assert row["difference"] == pytest.approx(0.25) and row["low"] <= 0.25 <= row["high"]
    assert row["p"] == pytest.approx(2 * (1 + 7) / 2**7)  # P(at most 1 of 7) twice, by the binomial formula
    with pytest.raises(WorkbenchError, match="no plan number 7"):
        paired(table, base=7)
    with pytest.raises(WorkbenchError, match="not scored under every plan"):
        paired(table.iloc[:-1])


@pytest.mark.slow
def test_a_sweep_compares_every_plan_with_no_plan(bench: Any) -> None:
    one = bench("olmoe")
    plans = {"skip 1": wb.Plan([wb.skip.block(1)]), "nothing": wb.Plan()}
    result = sweep(one, PROMPTS, plans, name="first", controls=2, seed=3)
    table = result.table
    assert len(table) == len(PROMPTS) * (1 + 2 * 3)
    base = table[table["plan"] == "base"].set_index("prompt")["loss"]
    for row in table.itertuples():
        assert row.loss_change == pytest.approx(row.loss - base[row.prompt])
    idle = table[(table["plan"] == "nothing")]
    assert (idle["kl"] == 0).all() and (idle["flips"] == 0).all()
    skipped = table[(table["plan"] == "skip 1") & table["control"].isna()]
    assert (skipped["kl"] > 0).all()
    summary = result.summary().set_index("plan")
    assert summary.loc["skip 1", "kl"] == pytest.approx(skipped["kl"].mean())
    assert summary.loc["skip 1", "random_loss_low"] <= summary.loc["skip 1", "random_loss_high"]
    labelled = one.sql(
        "SELECT count(*) FROM run WHERE labels->>'experiment' = ?", [str(result.experiment)]
    ).fetchone()
    assert labelled == (len(table),)
    one.store.flush()
    assert one.sql("SELECT name FROM experiment").fetchall() == [("first",)]
    for wrong in ({}, [wb.Plan()]):
        with pytest.raises(PlanError, match="named plans"):
            sweep(one, PROMPTS, wrong)  # type: ignore[arg-type]
    single = sweep(one, PROMPTS, {"skip 1": wb.skip.block(1)}).table
    np.testing.assert_array_equal(
        single["kl"], table[table["control"].isna() & (table["plan"] != "nothing")]["kl"]
    )


@pytest.mark.parametrize("wrong", ["1 2 3", [1, 2, 3], torch.tensor([1, 2, 3]), []])
def test_one_prompt_is_not_taken_apart_into_many(bench: Any, wrong: Any) -> None:
    one = bench("olmoe")
    edit = wb.mask.attention(layers="all", pattern="window", window=16)
    for ask in (
        lambda: sweep(one, wrong, {"skip": wb.skip.block(1)}),
        lambda: experiments.skip_effects(one, wrong),
        lambda: experiments.by_layer(one, wrong, wb.Plan()),
        lambda: experiments.beside_oracle(one, wrong, edit),
        lambda: experiments.search_mask(one, wrong, PROMPTS, "blocks", 1),
        lambda: experiments.search_mask(one, PROMPTS, wrong, "blocks", 1),
        lambda: one.calibrate(wrong),
    ):
        with pytest.raises(PromptError, match="list"):
            ask()
