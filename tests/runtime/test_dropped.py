"""Masked heads and experts: left out where our kernels run, computed and masked elsewhere, and the record says which."""

from __future__ import annotations

from typing import Any

import pytest
import routing_kernels
import torch
from tiny_models import build_tiny
from torch import Tensor

import workbench as wb
from workbench.runtime.attach import block_calls

IDS = [(7 * n * n + 3 * n) % 64 for n in range(40)]
HEADS = [0, 3]
LAYER = 1


def work(bench: Any, run: Any, op: str) -> list[tuple[int, int, int]]:
    """(executed, skipped, masked) in the masked layer, over all steps; empty where nothing was written."""
    found = bench.sql(
        "SELECT CAST(sum(executed) AS BIGINT), CAST(sum(skipped) AS BIGINT), CAST(sum(masked) AS BIGINT) FROM cost "
        "WHERE run = ? AND op = ? AND layer = ? HAVING count(*) > 0",
        [run.id, op, LAYER],
    )
    return found.fetchall()


def zeroed(model: Any, tokens: slice = slice(None)) -> Any:
    """The heads set to zero before the output projection by a hook of the test's own; gives what ends it."""

    def hook(_: Any, args: tuple[Tensor, ...]) -> Any:
        heads = args[0].reshape(*args[0].shape[:2], 4, -1).clone()
        heads[:, tokens, HEADS] = 0
        return (heads.reshape(args[0].shape),)

    return model.model.layers[LAYER].self_attn.o_proj.register_forward_pre_hook(hook)


@pytest.mark.parametrize("kernels", ["cpu", "auto", "model", "reference"])
@pytest.mark.parametrize("family", ["olmoe", "llama"])
def test_masked_heads_are_left_out_by_our_kernel_and_no_bit_differs_from_masking_them(
    bench: Any, family: str, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bench(build_tiny(family), kernels=kernels)
    plan = wb.mask.heads(LAYER, HEADS)
    handle = zeroed(one.model)
    want, text = one.run(IDS, record=None).logits, one.generate(IDS[:30], 4, record=None)
    handle.remove()
    done: list[int] = []
    own = routing_kernels.block_attention
    monkeypatch.setattr(
        block_calls.routing_kernels, "block_attention",
        lambda *a, **k: (out := own(*a, **k), done.append(int(out.executed)))[0],
    )  # fmt: skip
    run = one.run(IDS, plan)
    assert torch.equal(run.logits, want)
    ours = kernels in ("cpu", "reference")
    assert work(one, run, "attention_heads") == [(80, 80, 0) if ours else (160, 0, 80)]
    if ours:  # one block of 64: four heads in two layers, two in the masked one
        assert sorted(done) == [2, 4, 4]
    generated = one.generate(IDS[:30], 4, plan)
    assert generated.tokens.tolist() == text.tokens.tolist() and torch.equal(generated.logits, text.logits)
    assert work(one, generated, "attention_heads") == [(66, 66, 0) if ours else (132, 0, 66)]
    (kernel,) = one.sql(
        "SELECT DISTINCT backend FROM cost WHERE run = ? AND op = 'attention_heads'", [run.id]
    ).fetchone()
    assert kernel == (kernels if ours else "sdpa")


def test_heads_masked_at_some_tokens_are_computed_and_said_to_be(bench: Any) -> None:
    one = bench("llama", kernels="cpu")
    handle = zeroed(one.model, slice(5, 9))
    want = one.run(IDS, record=None).logits
    handle.remove()
    run = one.run(IDS, wb.mask.heads(LAYER, HEADS, tokens=slice(5, 9)))
    assert torch.equal(run.logits, want)
    assert work(one, run, "attention_heads") == [(160, 0, 8)]
    # Of a generation, each pass that the scope covers whole is left out whole.
    text = one.generate(IDS[:30], 4, wb.mask.heads(LAYER, HEADS, phase="decode"))
    assert work(one, text, "attention_heads") == [(6, 6, 0)]
    # Two edits that share the tokens between them cover all of them.
    split = wb.Plan(
        [wb.mask.heads(LAYER, 0, tokens=slice(0, 20)), wb.mask.heads(LAYER, 0, tokens=slice(20, None))]
    )
    assert work(one, one.run(IDS, split), "attention_heads") == [(120, 40, 0)]


@pytest.mark.slow
def test_rows_of_a_batch_drop_their_own_heads(bench: Any) -> None:
    one = bench("llama", kernels="cpu")
    plans = [
        wb.mask.heads(LAYER, HEADS),
        None,
        wb.mask.heads(LAYER, [1]),
        wb.mask.heads("all", HEADS, tokens=[2]),
    ]
    prompts = [IDS, IDS[:25], IDS[3:], IDS[:25]]
    batch = one.run(prompts, plans=plans)
    for run, prompt, plan in zip(batch, prompts, plans, strict=True):
        alone = one.run(prompt, plan)
        torch.testing.assert_close(run.logits, alone.logits, rtol=2e-4, atol=2e-4)
        assert work(one, run, "attention_heads") == work(one, alone, "attention_heads")
    assert work(one, batch[0], "attention_heads") == [(80, 80, 0)]
    assert work(one, batch[2], "attention_heads") == [(111, 37, 0)]


@pytest.mark.slow
def test_every_replacement_leaves_the_head_out_and_what_an_earlier_edit_reads_is_there(bench: Any) -> None:
    one = bench("llama", kernels="cpu")
    source = one.calibrate([IDS])
    for replacement in ("mean", "resample"):
        plan = wb.mask.heads(LAYER, HEADS, replacement=replacement, source=source)
        assert work(one, one.run(IDS, plan), "attention_heads") == [(80, 80, 0)]
    seen: list[Tensor] = []

    @wb.edit("attn_head_out")
    def watched(value: Any, place: Any) -> Any:
        seen.append(value)
        return value

    native = one.run(IDS, watched(LAYER))
    first = one.run(IDS, wb.Plan([watched(LAYER), wb.mask.heads(LAYER, HEADS)]))
    after = one.run(IDS, wb.Plan([wb.mask.heads(LAYER, HEADS), watched(LAYER)]))
    assert torch.equal(seen[1], seen[0]) and bool(seen[0][..., HEADS, :].any()), (
        "the edit reads what was computed"
    )
    assert not seen[2][..., HEADS, :].any()
    assert torch.equal(first.logits, after.logits) and not torch.equal(first.logits, native.logits)
    assert work(one, first, "attention_heads") == [(160, 0, 80)]
    assert work(one, after, "attention_heads") == [(80, 80, 0)]


@pytest.mark.slow
def test_blocks_of_heads_that_are_left_out_are_left_out_too(bench: Any) -> None:
    one = bench("llama")
    blocks = wb.mask.attention(LAYER, "explicit", blocks=[], block=16, sinks=0)
    run = one.run(IDS, wb.Plan([blocks, wb.mask.heads(LAYER, HEADS)]))
    handle = zeroed(one.model)
    assert torch.equal(run.logits, one.run(IDS, blocks, record=None).logits)
    handle.remove()
    # Of the six blocks of a causal map of three by three, two heads keep the diagonal and two keep nothing.
    assert work(one, run, "attention_blocks") == [(6, 18, 0)]
    assert work(one, run, "attention_heads") == [(80, 80, 0)]
    own = bench(build_tiny("llama"), kernels="model")
    run = own.run(IDS, wb.Plan([blocks, wb.mask.heads(LAYER, HEADS)]))
    assert work(own, run, "attention_blocks") == [(24, 0, 12)]
    assert work(own, run, "attention_heads") == [(160, 0, 80)]
    # A row that runs on our kernel is counted so, whatever runs the other rows.
    one.run([IDS, IDS], plans=[blocks, None])
    mixed = one.run([IDS, IDS], plans=[blocks, None])
    assert work(one, mixed[0], "attention_blocks") == [(12, 12, 0)]


@pytest.mark.parametrize("replacement", ["zero", "identity", "mean"])
def test_masked_experts_are_never_read_by_our_kernels(bench: Any, replacement: str) -> None:
    """Their weights may be anything: with numbers that are none in them, nothing changes."""
    one = bench("olmoe")
    source = one.calibrate([IDS]) if replacement == "mean" else None
    plan = wb.mask.experts(LAYER, [1, 4], replacement=replacement, source=source)
    want = one.run(IDS, plan)
    native = one.run(IDS)
    named = one.sql(
        "SELECT count(*) FROM routing WHERE run = ? AND layer = ? AND expert IN (1, 4)", [native.id, LAYER]
    ).fetchone()[0]
    assert work(one, want, "moe_experts") == [(80 - named, named, 0)] and named > 0
    bank = one.model.model.layers[LAYER].mlp.experts
    with torch.no_grad():
        bank.gate_up_proj[[1, 4]], bank.down_proj[[1, 4]] = torch.nan, torch.nan
    assert not torch.isfinite(one.run(IDS, record=None).logits).all()
    assert torch.equal(one.run(IDS, plan, record=None).logits, want.logits)


@pytest.mark.slow
def test_the_models_own_experts_are_computed_and_masked_and_the_record_says_so(bench: Any) -> None:
    one, ours = bench(build_tiny("olmoe"), kernels="model"), bench("olmoe")
    plan = wb.mask.experts(LAYER, [1, 4])
    run, other = one.run(IDS, plan), ours.run(IDS, plan)
    torch.testing.assert_close(run.logits, other.logits, rtol=2e-4, atol=2e-4)
    ((done, named, _),) = work(ours, other, "moe_experts")
    assert work(one, run, "moe_experts") == [(80, 0, named)] and done + named == 80
    # The same of slots that a re-route leaves empty, and of both together: a slot is counted once.
    fewer = wb.reroute.top_k(LAYER, 1)
    assert work(one, one.run(IDS, fewer), "moe_experts") == [(80, 0, 40)]
    both = wb.Plan([fewer, plan.model_copy()])
    ((done, left, _),) = work(ours, ours.run(IDS, both), "moe_experts")
    assert work(one, one.run(IDS, both), "moe_experts") == [(80, 0, left)] and done + left == 80
    assert work(one, one.run(IDS), "moe_experts") == []
    said = one.sql("SELECT op, executed, skipped, masked FROM work_left(?)", [run.id]).fetchall()
    assert ("moe_experts", 80, 0, named) in said
