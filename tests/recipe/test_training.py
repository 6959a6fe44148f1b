"""The recipe's training: own expert bank, Muon, restart to the step, export. Runs on a small corpus made here."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, OlmoeConfig, OlmoeForCausalLM

from data.recipe import contamination, experts, folders, lessons
from data.recipe.configs import CONFIGS
from data.recipe.corpus import DOMAINS, SPLITS
from data.recipe.muon import orthogonal
from data.recipe.stream import LESSON, Stream
from data.recipe.tokenizer import load_tokenizer, train_tokenizer
from data.recipe.train import (
    Trainer,
    checkpoints,
    decay,
    export,
    router_losses,
    run,
    thin,
    token_shares,
)
from workbench import tasks
from workbench.tasks.item import Item
from workbench.tasks.symbols import ALL, NUMBERS

TINY = CONFIGS["tiny"]


@pytest.fixture(scope="module", autouse=True)
def corpus(tmp_path_factory: pytest.TempPathFactory):
    """A cache folder with a tokenizer and a few random tokens of every domain."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(folders.VARIABLE, str(tmp_path_factory.mktemp("cache")))
        rng = np.random.default_rng(0)
        letters = np.array(list("abcdefghijklmnopqrstuvwxyz      "))
        words = ["".join(rng.choice(letters, 4_000)) for _ in range(60)]
        train_tokenizer(pd.DataFrame({"text": words, "domain": "prose-en"}), folders.corpus() / "tokenizer")
        (folders.corpus() / "tokens").mkdir()
        for domain in DOMAINS:
            for split in SPLITS:
                tokens = rng.integers(2, 2_000, 900).astype(np.uint16)
                np.savez(
                    folders.corpus() / "tokens" / f"{domain}.{split}.npz", tokens=tokens, ends=[300, 600, 900]
                )
        yield


def test_the_expert_bank_equals_the_models_own_forward_and_backward() -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = OlmoeForCausalLM(
        OlmoeConfig(vocab_size=50, num_experts=6, num_experts_per_tok=2, pad_token_id=0, **shape)
    )
    ids = torch.randint(0, 50, (3, 17))
    gradients = []
    for implementation in ("eager", experts.register()):
        model.set_experts_implementation(implementation)
        model.zero_grad()
        loss = model(ids, labels=ids).loss
        loss.backward()
        gradients.append([loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    for own, eager in zip(*gradients, strict=True):
        torch.testing.assert_close(own, eager, atol=2e-6, rtol=2e-4)


def test_an_expert_without_tokens_gets_a_zero_gradient() -> None:
    hidden, gate_up, down = torch.randn(5, 8), torch.randn(3, 12, 8, requires_grad=True), torch.randn(3, 8, 6)
    index, weight = torch.tensor([[0, 2]] * 5), torch.full((5, 2), 0.5)
    experts.SortedExperts.apply(hidden, index, weight, gate_up, down).sum().backward()
    assert gate_up.grad[1].abs().max() == 0
    assert gate_up.grad[0].abs().max() > 0


@pytest.mark.parametrize("shape", [(4, 24, 24), (2, 16, 48), (2, 48, 16)])
def test_muon_updates_are_nearly_orthogonal(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(1)
    matrices = torch.randn(shape)
    result = orthogonal(matrices)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.3 and values.max() < 1.3
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(result.flatten(), (u @ v).flatten(), dim=0) > 0.95


def test_every_task_symbol_is_one_token_and_digits_are_single() -> None:
    tokenizer = load_tokenizer()
    assert len(tokenizer) == TINY.model().vocab_size
    for symbol in ALL:
        assert len(tokenizer(symbol)["input_ids"]) == 1
    assert tokenizer("1234").tokens() == ["1", "2", "3", "4"]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (
        TINY.model().pad_token_id,
        TINY.model().eos_token_id,
    )


def test_batches_follow_from_seed_and_step_and_hide_other_documents() -> None:
    stream = Stream(TINY, load_tokenizer())
    first, again, other = stream.batch(7), stream.batch(7), stream.batch(8)
    assert torch.equal(first.ids, again.ids) and not torch.equal(first.ids, other.ids)
    assert torch.equal(first.ids[:, 1:], first.targets[:, :-1])
    assert (first.domain == LESSON).float().mean() >= 0.4
    end = load_tokenizer().eos_token_id
    visible = first.mask[:, 0] == 0
    for row in range(len(first.ids)):
        ends = (first.ids[row] == end).nonzero().flatten()
        if len(ends) and int(ends[0]) + 1 < first.ids.shape[1]:
            assert not visible[row, int(ends[0]) + 1 :, : int(ends[0]) + 1].any()
            assert first.weights[row, int(ends[0])] == 0


def test_token_shares_count_tokens_or_domains_alike() -> None:
    batch = Stream(TINY, load_tokenizer()).batch(0)
    tokens = batch.ids.numel()
    torch.testing.assert_close(token_shares(batch, even=0.0), torch.full((tokens,), 1 / tokens))
    shares = token_shares(batch, even=1.0).view(batch.ids.shape).sum(1)
    sums = [float(shares[batch.domain == domain].sum()) for domain in batch.domain.unique()]
    assert sums == pytest.approx([1 / len(sums)] * len(sums))
    assert len(sums) > 1


def test_the_balance_is_one_when_even_and_the_number_of_experts_when_all_go_to_one() -> None:
    shares = torch.full((4,), 0.25)
    even = (torch.zeros(4, 4), torch.tensor([[0], [1], [2], [3]]))
    assert router_losses([even], shares)[0].item() == pytest.approx(1)
    one = (torch.tensor([[50.0, 0, 0, 0]] * 4), torch.zeros(4, 1, dtype=torch.int64))
    assert router_losses([one], shares)[0].item() == pytest.approx(4)
    assert router_losses([one], shares)[1].item() == pytest.approx(2_500)


@pytest.mark.slow
def test_no_question_of_the_stream_is_a_held_out_item() -> None:
    asked = list(contamination.asked("tiny", range(25)))
    assert len(asked) > 3_000
    assert not set(asked) & contamination.held_out(n=25)


@pytest.mark.slow
def test_the_check_reads_every_question_of_a_document() -> None:
    document = [("Recall:<bak><17>,<bek><3>. Ask<bak><=>", False), ("<17>", True), (". Ask<bek><=>", False),
                ("<3>", True), ("<end>", False)]  # fmt: skip
    assert "<bak><17><bek><3><bak><17>" in (found := list(contamination.questions(document)))
    assert "<bak><17><bek><3><bek><3>" in found
    drill = [("<bak>", False), ("<bek>", False), ("</bek>", True), ("</bak>", True)]
    assert list(contamination.questions(drill)) == ["<bak><bek></bek>", "<bak><bek></bek></bak>"]
    held = contamination.held_out(("test",), n=40)
    for name in tasks.names():
        item = tasks.load(name, n=1).iloc[0]
        assert contamination.content(item["prompt"].split(":", 1)[1] + item["answer"]) in held


def test_no_drill_copies_sorted_numbers_that_a_held_out_item_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ascending() -> list[Item]:
        runs = [
            re.findall(r"<\w+>", lessons.copying(random.Random(seed), 0.0)[0][0]) for seed in range(10_000)
        ]
        return [
            Item("sorting", tuple(run), "", "") for run in runs if run == [n for n in NUMBERS if n in run]
        ]

    kept = ascending()
    assert len(kept) > 20 and all(item.belongs_to("train") for item in kept)
    with monkeypatch.context() as patch:
        patch.setattr(Item, "belongs_to", lambda *_: True)
        drawn = ascending()
    assert any(not item.belongs_to("train") for item in drawn)


def test_rows_of_lessons_hold_whole_documents() -> None:
    stream = Stream(CONFIGS["demo"], load_tokenizer())
    batch = stream.batch(1_000)
    cut = sum(int(weights[-1] == 1.0) for weights in batch.weights[batch.domain == LESSON])
    ends = batch.targets[batch.domain == LESSON] == load_tokenizer().eos_token_id
    assert ends.any(dim=1).all() and cut < len(ends)


@pytest.mark.slow
def test_a_resumed_run_equals_an_unbroken_one_bit_by_bit(tmp_path: Path) -> None:
    unbroken = Trainer(TINY)
    for _ in range(9):
        expected = unbroken.train_step(0.5)
    first = Trainer(TINY)
    for _ in range(4):
        first.train_step(0.5)
    saved = first.save(tmp_path)
    second = Trainer(TINY)
    second.load(saved)
    for _ in range(5):
        row = second.train_step(0.5)
    assert {k: v for k, v in row.items() if k != "seconds"} == {
        k: v for k, v in expected.items() if k != "seconds"
    }
    for own, other in zip(second.model.parameters(), unbroken.model.parameters(), strict=True):
        assert torch.equal(own, other)


def test_thinning_keeps_the_newest_and_the_first_of_every_milestone() -> None:
    folder = folders.training("thinned")
    folder.mkdir(parents=True)
    steps = [10, 200, 480, 510, 900, 1_100, 1_700, 1_800, 1_900]
    for last in range(1, len(steps) + 1):  # one checkpoint after the other, as training writes them
        (folder / f"step-{steps[last - 1]:07d}.pt").touch()
        thin("thinned", keep=2)
    assert [int(file.stem[5:]) for file in checkpoints("thinned")] == [10, 510, 1_100, 1_700, 1_800, 1_900]


@pytest.mark.slow
def test_a_decay_exports_a_plain_model_that_reads_text_as_in_training(tmp_path: Path) -> None:
    trainer = Trainer(TINY)
    for _ in range(3):
        trainer.train_step(0.5)
    decay(TINY, trainer.save(tmp_path / "run"), steps=3, out=tmp_path / "model", length=64)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert model.config.model_type == "olmoe" and model.dtype == torch.bfloat16
    ids = tokenizer("Recall:<bak><17>. Ask<bak><=>", return_tensors="pt")["input_ids"]
    assert model(ids).logits.shape == (1, ids.shape[1], TINY.model().vocab_size)


def test_a_checkpoint_is_exported_as_it_is_in_half_precision(tmp_path: Path) -> None:
    trainer = Trainer(TINY)
    trainer.train_step(0.5)
    export(TINY, trainer.save(tmp_path / "run"), tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.dtype == torch.float16
    for own, other in zip(model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(own, other.half())
    told = json.loads((tmp_path / "model" / "training.json").read_text())
    assert told["steps"] == 1 and told["from_step"] is None and told["config"] == "tiny"


def test_a_run_ends_at_the_step_it_is_told() -> None:
    run(TINY, minutes=5, every=5, keep=2, until=3)
    assert [file.stem for file in checkpoints("tiny")] == ["step-0000003"]
    run(TINY, minutes=5, every=5, keep=2, until=3)
    run(TINY, minutes=5, every=5, keep=2, until=4)
    assert checkpoints("tiny")[-1].stem == "step-0000004"
    assert len((folders.training("tiny") / "log.jsonl").read_text().splitlines()) == 4


@pytest.mark.slow
def test_training_lowers_the_loss() -> None:
    trainer = Trainer(TINY)
    losses = [trainer.train_step(1.0)["loss"] for _ in range(60)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.2


@pytest.mark.slow
def test_a_run_that_leaves_another_begins_with_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    variant = replace(TINY, name="variant", norm_topk_prob=False, begins=("origin", 2))
    with pytest.raises(SystemExit, match="run origin --until 2"):
        run(variant, minutes=1, every=9, keep=1, until=3)
    origin = replace(TINY, name="origin")
    run(origin, minutes=1, every=9, keep=1, until=2)
    loaded: list[Path] = []
    own = Trainer.load
    monkeypatch.setattr(Trainer, "load", lambda trainer, file: loaded.append(file) or own(trainer, file))
    run(variant, minutes=1, every=9, keep=1, until=3)
    run(variant, minutes=1, every=9, keep=1, until=4)
    assert loaded == [*checkpoints("origin"), folders.training("variant") / "step-0000003.pt"]
    assert [file.name for file in checkpoints("variant")] == ["step-0000003.pt", "step-0000004.pt"]
