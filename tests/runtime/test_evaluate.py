"""Scoring items: losses against one forward per option, last-token edits against a full pass, and the work they cost."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import FAMILIES, each

import workbench as wb
from workbench.errors import EditRefused, PlanError, WorkbenchError
from workbench.interventions import Plan, mask, reroute, skip
from workbench.runtime import evaluate as module
from workbench.runtime.resume import first_edited, read_prompts


class Letters:
    """A tokenizer of single characters."""

    eos_token_id = None

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [2 + ord(letter) % 60 for letter in text]}

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


def items_of(choices: list[str], count: int = 4) -> pd.DataFrame:
    """Prompts of three lengths with the same options."""
    prompts = [("hello world", "some prompt", "short")[n % 3] + "abcdefgh"[n] for n in range(count)]
    return pd.DataFrame(
        {"prompt": prompts, "answer": choices[1], "choices": [choices] * count, "mine": range(count)}
    )


SINGLE, SEVERAL = ["a", "b", "c", "d"], ["ab", "cde", "f"]
LAST_TOKEN = {
    "ban": reroute.ban(1, [0, 3], tokens="prompt_last"),
    "allow": reroute.allow(2, [1, 6], tokens="prompt_last"),
    "force": reroute.force(1, 4, weight=0.7, tokens="prompt_last"),
    "bias": reroute.bias(0, {2: 3.0}, tokens="prompt_last"),
    "temperature": reroute.temperature([1, 2], 3.0, tokens="each_step"),
    "permute": reroute.permute(2, [1, 0, 3, 2, 5, 4, 7, 6], tokens="prompt_last"),
    "random": reroute.random([1, 2], seed=3, tokens="each_step"),
    "top_k": reroute.top_k(1, 4, tokens="prompt_last"),
    "uniform": reroute.uniform(1, tokens="prompt_last"),
    "weights": reroute.weights(2, scale=0.2, tokens="each_step"),
    "condition": reroute.ban(2, [0, 3, 5, 6], tokens="prompt_last", where="entropy.1 < 100"),
    "heads": mask.heads(1, [0, 2], tokens="prompt_last"),
}


def by_hand(bench: Any, items: pd.DataFrame, plan: Plan) -> np.ndarray:
    """Losses from one row per option under the plan, with positions written out for the prompt's last token."""
    texts, plans, spans = [], [], []
    for prompt, choices in zip(items["prompt"], items["choices"], strict=True):
        for choice in choices:
            ids = Letters()(prompt + choice)["input_ids"]
            last = len(prompt) - 1
            written = {"prompt_last": (last,), "each_step": tuple(range(last, len(ids)))}
            written["generated"] = tuple(range(last + 1, len(ids) - 1)) or (len(ids) - 1,)
            edits = [
                edit.model_copy(update={"tokens": written.get(str(edit.tokens), edit.tokens)})
                for edit in plan
            ]
            texts.append(ids)
            plans.append(Plan(edits))
            spans.append(range(last + 1, len(ids)))
    losses = []
    for run, ids, span in zip(bench.run(texts, plans=plans, record=None), texts, spans, strict=True):
        log_p = run.logits.log_softmax(-1)
        losses.append(-sum(float(log_p[n - 1, ids[n]]) for n in span))
    return np.array(losses).reshape(len(items), -1)


@pytest.mark.slow
@pytest.mark.parametrize("family", each(FAMILIES))
@pytest.mark.parametrize("choices", [SINGLE, SEVERAL], ids=["single", "several"])
def test_losses_equal_one_pass_per_option_in_either_way_of_reading(
    bench: Any, family: str, choices: list[str]
) -> None:
    made, items = bench(family, tokenizer=Letters()), items_of(choices)
    plans = [Plan(), Plan([mask.heads(1, [0], tokens=[2])]), Plan([mask.heads(2, [1], tokens="prompt_last")])]
    if family != "llama":
        plans += [
            Plan([reroute.ban(0, [1, 2])]),
            Plan([skip.block(1), reroute.ban(2, 3, tokens="prompt_last")]),
        ]
    table = made.evaluate(items, plans=plans)
    for number, plan in enumerate(plans):
        own = table[table["plan_number"] == number]
        np.testing.assert_allclose(np.array(own["losses"].tolist()), by_hand(made, items, plan), atol=2e-5)
        assert (own["plan"] == plan.hash).all() and own["mine"].tolist() == list(range(4))
        best = [choices[int(np.argmin(losses))] for losses in own["losses"]]
        assert own["prediction"].tolist() == best
        assert own["correct"].tolist() == [one == choices[1] for one in best]


@pytest.mark.parametrize("kind", LAST_TOKEN)
@pytest.mark.parametrize(
    "choices",
    [pytest.param(SINGLE, id="single"), pytest.param(SEVERAL, id="several", marks=pytest.mark.slow)],
)
def test_a_last_token_edit_gives_what_a_full_pass_gives(
    bench: Any, kind: str, choices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, items = bench("olmoe", tokenizer=Letters()), items_of(choices)
    plan = Plan([LAST_TOKEN[kind]])
    assert first_edited(plan, made.anatomy, 6) is not None
    quick = made.evaluate(items, plans=[None, plan, Plan([LAST_TOKEN["permute"]])])
    monkeypatch.setattr(module, "first_edited", lambda *_: None)
    full = made.evaluate(items, plans=[None, plan, Plan([LAST_TOKEN["permute"]])])
    np.testing.assert_allclose(
        np.array(quick["losses"].tolist()), np.array(full["losses"].tolist()), atol=2e-5
    )
    losses = np.array(quick["losses"].tolist()).reshape(3, len(items), -1)
    assert np.abs(losses[1] - losses[0]).max() > 1e-3


def test_only_the_last_token_runs_again_and_only_from_the_edited_layer_on(bench: Any) -> None:
    made, items = bench("olmoe", tokenizer=Letters()), items_of(SINGLE)
    tokens: Counter[int] = Counter()
    for block in made.anatomy.blocks:

        def count(_: Any, args: tuple[Any, ...], layer: int = block.layer) -> None:
            tokens[layer] += args[0].shape[:-1].numel()

        block.moe.router.register_forward_pre_hook(count)
    edits = [reroute.allow(2, [n, n + 1], tokens="prompt_last") for n in range(6)]
    made.evaluate(items, plans=[None, *edits, reroute.ban(1, 0, tokens="prompt_last")])
    prompts, rows = sum(map(len, items["prompt"])), len(items)
    assert tokens == {0: prompts, 1: prompts + rows, 2: prompts + 7 * rows}


def test_every_item_may_have_its_own_plan(bench: Any) -> None:
    made, items = bench("olmoe", tokenizer=Letters()), items_of(SINGLE)
    own = [Plan([reroute.allow(1, [n, 7], tokens="prompt_last")]) for n in range(4)]
    table = made.evaluate(items, plans=[own, None])
    for number, plan in enumerate(own):
        alone = made.evaluate(items.iloc[[number]], plans=[plan])
        row = table[(table["plan_number"] == 0) & (table["item"] == number)]
        assert row["plan"].item() == plan.hash
        np.testing.assert_allclose(row["losses"].item(), alone["losses"].item(), atol=2e-5)
    with pytest.raises(PlanError, match="2 plans for 4 items"):
        made.evaluate(items, plans=[own[:2]])


def test_plans_of_one_batch_may_share_an_edit(bench: Any) -> None:
    made, items = bench("olmoe", tokenizer=Letters()), items_of(SINGLE)
    shared = reroute.permute([1, 2], [1, 2, 3, 0, 5, 6, 7, 4], tokens="prompt_last")
    own = [Plan([shared, reroute.allow(1, [n, n + 4], tokens="prompt_last")]) for n in range(4)]
    copies = [Plan.from_json(plan.to_json()) for plan in own]
    first, second = (np.array(made.evaluate(items, plans=[p])["losses"].tolist()) for p in (own, copies))
    np.testing.assert_allclose(first, second, atol=2e-5)
    np.testing.assert_allclose(
        first, [by_hand(made, items.iloc[[n]], own[n])[0] for n in range(4)], atol=2e-5
    )


def test_a_replayed_route_at_the_last_token_takes_the_short_way(bench: Any) -> None:
    made, items = bench("olmoe", tokenizer=Letters()), items_of(SINGLE, count=2)
    runs = [
        made.run(prompt, reroute.ban(1, [0, 1]), record=wb.Record(attention_rank=False))
        for prompt in items["prompt"]
    ]
    replays = [Plan([reroute.replay(run, layers=[1], tokens="prompt_last")]) for run in runs]
    table = made.evaluate(items, plans=[replays, reroute.ban(1, [0, 1], tokens="prompt_last")])
    first, second = (np.array(group["losses"].tolist()) for _, group in table.groupby("plan_number"))
    np.testing.assert_allclose(first, second, atol=2e-5)


def test_which_plans_leave_earlier_tokens_alone(bench: Any) -> None:
    facts = bench("olmoe").anatomy

    def first(*edits: Any) -> int | None:
        return first_edited(Plan(edits), facts, 10)

    assert first() == 3
    assert first(reroute.ban(2, 0, tokens="prompt_last"), reroute.ban(1, 0, tokens=[9])) == 1
    assert first(reroute.ban(2, 0, tokens=[8])) is None
    assert first(reroute.ban(2, 0, tokens=slice(9, None))) == 2
    assert first(reroute.ban(2, 0, tokens=slice(8, None))) is None
    assert first(reroute.ban(0, 0, tokens="generated")) == 3
    assert first(reroute.ban(0, 0)) is None
    assert first(reroute.ban(0, 0, phase="decode")) == 3
    assert first(reroute.ban(0, 0, where="margin < 0.05")) is None
    assert first(reroute.ban(1, 0, tokens="prompt_last", where="margin < 0.05")) == 1
    assert first(reroute.ban(2, 0, tokens="prompt_last", where="margin.1 < 0.05")) == 1
    assert first(skip.block(1)) is None
    assert first_edited(Plan([reroute.ban(0, 0, tokens="prompt")]), facts, 1) == 0


def test_a_cache_that_forgets_gets_full_passes(bench: Any) -> None:
    from tiny_models import CONFIGS
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    model = MixtralForCausalLM(MixtralConfig(**CONFIGS["mixtral"] | {"sliding_window": 4})).eval()
    made, items = bench(model, tokenizer=Letters()), items_of(SINGLE)
    with made.running():
        assert read_prompts(made, torch.tensor([[3, 4, 5, 6, 7]])) is None
    plan = Plan([reroute.ban(1, [0, 1], tokens="prompt_last")])
    table = made.evaluate(items, plans=[None, plan])
    losses = np.array(table["losses"].tolist()).reshape(2, len(items), -1)
    np.testing.assert_allclose(losses[1], by_hand(made, items, plan), atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("scope", [{"tokens": "generated"}, {"phase": "decode"}])
def test_edits_of_an_options_own_tokens_leave_the_first_one_alone(bench: Any, scope: dict[str, str]) -> None:
    made, items = bench("olmoe", tokenizer=Letters()), items_of(SEVERAL)
    plan = Plan([reroute.weights([0, 1, 2], scale=0.2, **scope)])
    table = made.evaluate(items, plans=[None, plan, reroute.ban(1, 0, tokens="prompt_last")])
    plain, edited, _ = np.array(table["losses"].tolist()).reshape(3, len(items), -1)
    np.testing.assert_allclose(
        edited,
        by_hand(made, items, Plan([reroute.weights([0, 1, 2], scale=0.2, tokens="generated")])),
        atol=2e-5,
    )
    assert (np.abs(edited - plain) > 1e-4).tolist() == [[True, True, False]] * len(items)
    with pytest.raises(EditRefused, match="generated tokens"):
        made.evaluate(items_of(SINGLE), plans=[plan])


def test_prompts_of_one_token_and_small_batches(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TOKENS", 5)
    monkeypatch.setattr(module, "_CONTEXT", 5)
    made = bench("olmoe", tokenizer=Letters())
    items = pd.DataFrame({"prompt": ["q", "q", "ab"], "answer": "a", "choices": [SEVERAL] * 3})
    plans = [Plan(), Plan([reroute.ban(1, [0, 1], tokens="prompt_last")])]
    losses = np.array(made.evaluate(items, plans=plans)["losses"].tolist()).reshape(2, 3, -1)
    for row, plan in zip(losses, plans, strict=True):
        np.testing.assert_allclose(row, by_hand(made, items, plan), atol=2e-5)


def test_progress_counts_items_times_plans(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    made = bench("olmoe", tokenizer=Letters())
    made.evaluate(items_of(SINGLE), plans=[None, reroute.ban(1, 0, tokens="prompt_last")], progress=True)
    assert "100%" in capsys.readouterr().out


@pytest.mark.slow
def test_refusals(bench: Any) -> None:
    made, items = bench("olmoe", tokenizer=Letters()), items_of(SEVERAL)
    with pytest.raises(WorkbenchError, match="no column 'choices'"):
        made.evaluate(items.drop(columns="choices"))
    with pytest.raises(WorkbenchError, match="cannot be scored by 'words'"):
        made.evaluate(items, score="words")
    with pytest.raises(EditRefused, match="scoped to rows"):
        made.evaluate(items, plans=[reroute.ban(1, 0, rows=[0])])
    with pytest.raises(EditRefused, match="names expert 9"):
        made.evaluate(items, plans=[None, reroute.ban(1, 9, tokens="prompt_last")])
    with pytest.raises(WorkbenchError, match="no tokenizer"):
        bench("olmoe").evaluate(items)
    long = items.assign(choices=[["x" * 60, "y"]] * 4)
    with pytest.raises(WorkbenchError, match="but the model takes 64"):
        made.evaluate(long)
    with pytest.raises(WorkbenchError, match="choices is empty"):
        made.evaluate(items.assign(choices=[["", "y"]] * 4))
