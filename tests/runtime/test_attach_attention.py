"""Attention on our kernel inside models: the model's own numbers, blocks left out, and what is reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import build_tiny
from torch import Tensor

import workbench as wb
from workbench.errors import EditRefused
from workbench.runtime.attach import AttentionCall, AttentionOptions, AttentionReport, ask_attention
from workbench.runtime.attach.mask_rule import read_mask

COMMON: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "pad_token_id": 0, "eos_token_id": None,
}  # fmt: skip
# What each family's attention adds to the plain softmax.
ODD: dict[str, dict[str, Any]] = {
    "gemma2": {
        "sliding_window": 24,
        "attn_logit_softcapping": 1.5,
        "query_pre_attn_scalar": 8,
    },  # window, cap
    "gpt_oss": {"sliding_window": 24, "num_local_experts": 4, "num_experts_per_tok": 2},  # window, sinks
    "mistral": {"sliding_window": 24},
}
TOKENS = 90


def build(family: str, own: str, seed: int = 0) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    if family not in ODD:
        model = build_tiny(family, seed)
    else:
        torch.manual_seed(seed)
        config = AutoConfig.for_model(family, **(COMMON | ODD[family]))
        model = AutoModelForCausalLM.from_config(config).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    model.set_attn_implementation(own)
    return model


def batch(length: int = TOKENS) -> tuple[Tensor, dict[str, Tensor]]:
    """Tokens and, by name, what may be padded: nothing, the ends, the beginnings."""
    ids = torch.randint(1, 60, (3, length), generator=torch.Generator().manual_seed(1))
    right = torch.ones_like(ids)
    right[1, length // 2 :] = 0
    return ids, {"none": torch.ones_like(ids), "right": right, "left": right.flip(1)}


CASES = [
    ("olmoe", "sdpa"),
    ("llama", "eager"),
    ("gemma2", "eager"),
    ("gpt_oss", "eager"),
    ("mistral", "sdpa"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "own"), CASES)
def test_our_attention_gives_the_models_numbers(bench: Any, family: str, own: str) -> None:
    model = build(family, own)
    ids, pads = batch(60 if family in ("olmoe", "llama") else TOKENS)
    with torch.no_grad():
        want = {name: model(ids, attention_mask=pad).logits for name, pad in pads.items()}
        said = model.generate(ids[:1, :30], max_new_tokens=20, do_sample=False)
    one = bench(model, kernels="cpu")
    with torch.no_grad():
        for name, pad in pads.items():
            valid, found = pad.bool(), one.model(ids, attention_mask=pad).logits
            assert (found - want[name])[valid].norm() <= 1e-5 * want[name][valid].norm(), name
        assert torch.equal(one.model.generate(ids[:1, :30], max_new_tokens=20, do_sample=False), said)
    paths = [p for p in one.kernel_paths if p.part == "attention"]
    assert [p.path for p in paths] == ["ours"] * len(paths) and len(paths) == one.anatomy.num_layers


def test_a_model_with_attention_of_its_own_kind_keeps_it(bench: Any, monkeypatch: Any) -> None:
    from transformers.models.llama import modeling_llama

    own = modeling_llama.eager_attention_forward

    def squared(*args: Any, **kwargs: Any) -> Any:
        out, weights = own(*args, **kwargs)
        return out * out.abs(), weights

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", squared)
    model = build("llama", "eager")
    ids = batch(60)[0]
    with torch.no_grad():
        want = model(ids).logits
    one = bench(model, kernels="cpu")
    with torch.no_grad():
        assert torch.equal(one.model(ids).logits, want)
    path = next(p for p in one.kernel_paths if p.part == "attention")
    assert path.path == "model" and "not the plain softmax" in path.reason


def test_calls_that_are_not_worth_it_run_on_the_models_own(bench: Any) -> None:
    model = build("llama", "sdpa")
    ids, pads = batch(60)
    with torch.no_grad():
        want = model(ids, attention_mask=pads["right"]).logits
    one = bench(model)
    with torch.no_grad():
        assert torch.equal(one.model(ids, attention_mask=pads["right"]).logits, want)
    assert {(p.part, p.path) for p in one.kernel_paths} == {("attention", "mixed"), ("mlp", "model")}


# Requests


def some_blocks(share: float = 0.6, block: int = 16, heads: int = 4) -> Callable[[AttentionCall], Tensor]:
    """A mask that depends on positions alone, so that a cached pass keeps the same blocks."""

    def kept(call: AttentionCall) -> Tensor:
        first, rows, columns = call.grid(block)
        made = torch.rand(heads, 16, 16, generator=torch.Generator().manual_seed(5)) < share
        return made[:, first : first + rows, :columns]

    return kept


def ask_everywhere(one: Any, asker: Callable[[AttentionCall], AttentionOptions | None]) -> Callable[[], None]:
    stops = [ask_attention(block.attention.module, asker) for block in one.anatomy.blocks]
    return lambda: [stop() for stop in stops] and None


@pytest.mark.slow
@pytest.mark.parametrize(("family", "own"), [("llama", "sdpa"), ("gemma2", "eager"), ("gpt_oss", "eager")])
@pytest.mark.parametrize("pad", ["none", "left"])
def test_kept_blocks_are_those_of_a_masked_map(bench: Any, family: str, own: str, pad: str) -> None:
    """Our kernel leaves out what the model's own function masks; both report the same masses, lse and sketch."""
    ids, pads = batch(60 if family == "llama" else TOKENS)
    kept = some_blocks()
    logits, reports = {}, {}
    for kernels in ("auto", "model"):
        one = bench(build(family, own), kernels=kernels)
        found: list[AttentionReport] = []

        def asker(call: AttentionCall, found: list[AttentionReport] = found) -> AttentionOptions:
            extra = torch.arange(call.keys * 2.0).reshape(-1, 2).sin()
            return AttentionOptions(
                kept(call), 16, extra_values=extra, want_lse=True, want_block_mass=True, sink=found.append
            )

        ask_everywhere(one, asker)
        with torch.no_grad():
            logits[kernels] = one.model(ids, attention_mask=pads[pad]).logits
        reports[kernels] = found
    valid = pads[pad].bool()
    difference = (logits["auto"] - logits["model"])[valid].norm()
    assert difference <= 2e-5 * logits["model"][valid].norm()
    for ours, theirs in zip(reports["auto"], reports["model"], strict=True):
        assert ours.kernel == "cpu" and theirs.kernel == own and theirs.reason and not ours.reason
        assert ours.skipped > 0 == theirs.skipped and ours.executed + ours.skipped == theirs.executed
        rows = valid[:, None, :].expand_as(ours.lse)
        torch.testing.assert_close(ours.lse[rows], theirs.lse[rows], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.sketch[rows], theirs.sketch[rows], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.block_mass, theirs.block_mass, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_reports_change_no_bit_and_a_full_mask_is_no_mask(bench: Any) -> None:
    ids, pads = batch(200)
    for family, own in (("mistral", "sdpa"), ("gemma2", "eager")):  # both kernels: ours from 128 tokens on
        one = bench(build(family, own))
        for pad in ("none", "right"):
            with torch.no_grad():
                plain = one.model(ids, attention_mask=pads[pad]).logits
                found: list[AttentionReport] = []
                for options in (
                    {"sink": found.append},
                    {"sink": found.append, "want_lse": True, "want_block_mass": True, "block": 32},
                    {"sink": found.append, "extra_values": torch.randn(200, 3)},
                    {"block_mask": torch.ones(7, 7, dtype=torch.bool), "block": 32},
                ):
                    stop = ask_everywhere(one, lambda _, options=options: AttentionOptions(**options))
                    assert torch.equal(one.model(ids, attention_mask=pads[pad]).logits, plain)
                    stop()
            assert {r.skipped for r in found} == {0} and len(found) == 6
            assert found[2].block_mass.shape == (3, 4, 7, 7) and found[0].lse is None


def test_cached_and_uncached_passes_keep_the_same_blocks(bench: Any) -> None:
    one = bench(build("llama", "sdpa"))
    ids = batch(60)[0][:1]
    kept = some_blocks()
    ask_everywhere(one, lambda call: AttentionOptions(kept(call), 16))
    with torch.no_grad():
        whole = one.model(ids).logits
        cache, parts, at = None, [], 0
        for size in (21, 1, 1, 30, 7):  # begins and ends inside blocks
            out = one.model(ids[:, at : at + size], past_key_values=cache, use_cache=True)
            cache, at = out.past_key_values, at + size
            parts.append(out.logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-5)


def test_rows_of_a_batch_keep_their_own_blocks(bench: Any) -> None:
    one = bench(build("llama", "sdpa"))
    ids = batch(60)[0]
    kept = some_blocks()

    def run(rows: list[int], mask: Callable[[AttentionCall], Tensor | None]) -> Tensor:
        stop = ask_everywhere(one, lambda call: AttentionOptions(mask(call), 16))
        with torch.no_grad():
            out = one.model(ids[rows]).logits
        stop()
        return out

    def second_alone(call: AttentionCall) -> Tensor:
        mask = kept(call)[None].repeat(3, 1, 1, 1)
        mask[[0, 2]] = True
        return mask

    together = run([0, 1, 2], second_alone)
    with torch.no_grad():
        plain = one.model(ids).logits
    assert torch.equal(together[[0, 2]], plain[[0, 2]])
    torch.testing.assert_close(together[1], run([1], kept)[0], rtol=1e-4, atol=1e-5)
    assert (together[1] - plain[1]).abs().max() > 1e-3


def test_several_askers_join_at_the_finest_blocks(bench: Any) -> None:
    one = bench(build("llama", "sdpa"))
    ids = batch(60)[0][:1]
    fine, coarse = torch.zeros(4, 4, dtype=torch.bool), torch.ones(2, 2, dtype=torch.bool)
    fine[:, 0] = fine.diagonal()[:] = True
    fine |= torch.eye(4, dtype=torch.bool)
    coarse[1, 0] = False
    found: list[AttentionReport] = []
    module = one.anatomy.layer(0).attention.module
    for mask, block, columns in ((fine, 16, 1), (coarse, 32, 2)):
        options = AttentionOptions(
            mask,
            block,
            extra_values=torch.full((60, columns), block / 16.0),
            want_block_mass=True,
            sink=found.append,
        )
        ask_attention(module, lambda _, options=options: options)
    with torch.no_grad():
        one.model(ids)
    ours, theirs = found
    assert ours.block_mass.shape[2:] == (4, 4) and theirs.block_mass.shape[2:] == (2, 2)
    pooled = ours.block_mass.unflatten(3, (2, 2)).unflatten(2, (2, 2)).sum((3, 5))
    torch.testing.assert_close(theirs.block_mass, pooled)
    assert not theirs.block_mass[:, :, 1, 0].any() and not ours.block_mass[:, :, 3, 2].any()
    torch.testing.assert_close(ours.sketch, torch.ones(1, 4, 60, 1))
    torch.testing.assert_close(theirs.sketch, torch.full((1, 4, 60, 2), 2.0))


def test_bad_requests_are_refused(bench: Any) -> None:
    one = bench(build("llama", "sdpa"))
    module = one.anatomy.layer(0).attention.module
    for options, problem in (
        ({"block": 48}, "no attention blocks of 48"),
        ({"block_mask": torch.ones(2, 2, dtype=torch.bool)}, r"\[2, 2\]. Give booleans \[..., 1, 1\]"),
        ({"block_mask": torch.ones(1, 1)}, "is torch.float32"),
        ({"extra_values": torch.ones(3, 1)}, r"are \[3, 1\]. Give a row for each of the 60 keys"),
    ):
        stop = ask_attention(module, lambda _, o=options: AttentionOptions(sink=lambda _: None, **o))
        with pytest.raises(EditRefused, match=problem), torch.no_grad():
            one.model(batch(60)[0])
        stop()
    with pytest.raises(EditRefused, match="does not go through"):
        ask_attention(torch.nn.Linear(2, 2), lambda _: None)


def test_a_compiled_model_and_a_gradient_go_through(bench: Any) -> None:
    one = bench(build("llama", "sdpa"), kernels="cpu")
    ids = batch(60)[0]
    embedded = one.model.get_input_embeddings()(ids).detach().requires_grad_()
    one.model(inputs_embeds=embedded).logits.square().sum().backward()
    own = wb.open(build("llama", "sdpa"), store=":memory:", kernels="model")
    other = embedded.detach().clone().requires_grad_()
    own.model(inputs_embeds=other).logits.square().sum().backward()
    own.close()
    assert (embedded.grad - other.grad).norm() <= 1e-4 * other.grad.norm()


# Reading a mask


@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(20, 20), (1, 20), (5, 20)])
def test_a_mask_is_read_as_the_rule_that_made_it(additive: bool, queries: int, keys: int) -> None:
    position = torch.arange(keys - queries, keys)[:, None]
    key = torch.arange(keys)
    for window in (0, 4):
        for start, end in ((0, keys), (3, keys), (0, 17)):
            allowed = (key <= position) & (key >= start) & (key < end)
            if window:
                allowed = allowed & (key > position - window)
            mask = torch.stack(
                [allowed, (key <= position) & ((key > position - window) if window else True)]
            )[:, None]
            mask = (
                torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
                if additive
                else mask
            )
            rule = read_mask(mask, 2, queries, keys, True)
            assert rule is not None and rule.causal
            again = (key <= position) & ((key > position - rule.window) if rule.window else True)
            for row in range(2):
                low = 0 if rule.starts is None else rule.starts[row]
                high = keys if rule.lengths is None else rule.lengths[row]
                seen = mask[row, 0] if not additive else mask[row, 0] == 0
                assert torch.equal(again & (key >= low) & (key < high), seen)


def test_masks_that_are_no_rule_are_not_read() -> None:
    causal = torch.ones(1, 1, 8, 8, dtype=torch.bool).tril()
    assert read_mask(causal, 1, 8, 8, True) == (True, 0, None, None)
    holes = causal.clone()
    holes[0, 0, 7, 3] = False
    bias = torch.randn(1, 1, 8, 8)
    for mask in (holes, bias, causal.expand(1, 2, 8, 8)):
        assert read_mask(mask, 1, 8, 8, True) is None
    assert read_mask(torch.ones(1, 1, 8, 8, dtype=torch.bool), 1, 8, 8, True) == (False, 0, None, None)
