"""Expert banks that the fused layer does not cover: our products around the model's own gate, and what they report."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import routing_kernels
import torch
import transformers
from torch import Tensor

import workbench as wb
from workbench.runtime.attach import bank_of, experts

IDS = torch.arange(1, 21)[None]
SIZES = {"hidden_size": 20, "intermediate_size": 28, "moe_intermediate_size": 28, "hidden_act": "silu"}
# transformers' module and class, what its config says beside the sizes, and what the fused layer says of it
BANKS = {
    "gpt_oss": ("GptOssExperts", {"num_local_experts": 5, "swiglu_alpha": 1.7, "swiglu_limit": 0.5}, "has biases"),
    "openai_privacy_filter": (
        "OpenAIPrivacyFilterExperts", {"num_local_experts": 5, "swiglu_alpha": 1.7, "swiglu_limit": 0.4}, "has biases",
    ),
    "aria": ("AriaExperts", {"moe_num_experts": 5}, "holds its weights transposed"),
    "nemotron_h": (
        "NemotronHExperts", {"n_routed_experts": 5, "moe_latent_size": None, "mlp_hidden_act": "relu2"}, "without a gate",
    ),
    "muse_spark": (
        "MuseSparkExperts", {"num_local_experts": 5, "moe_hidden_size": 20, "post_norm_eps": 1e-5}, "normalises",
    ),
    "hy_v4": ("HYV4Experts", {"num_local_experts": 5, "swiglu_limit": 0.3}, "gates its neurons in its own way"),
}  # fmt: skip


def make_bank(family: str, dtype: torch.dtype = torch.float32) -> Any:
    name, options, _ = BANKS[family]
    source = pytest.importorskip(f"transformers.models.{family}.modeling_{family}")
    torch.manual_seed(0)
    bank = getattr(source, name)(SimpleNamespace(**SIZES, **options))
    if not hasattr(bank, "_apply_gate"):
        pytest.skip(f"transformers {transformers.__version__} has no {name} in its registry")
    for parameter in bank.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return bank.to(dtype).requires_grad_(False)


def choice(tokens: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    x, weights = torch.randn(tokens, 20, generator=random), torch.rand(tokens, 2, generator=random)
    return x.to(dtype), torch.rand(tokens, 5, generator=random).argsort(1)[:, :2], weights.to(dtype)


def own(bank: Any, *arguments: Tensor) -> Tensor:
    return type(bank).forward.__wrapped__(bank, *arguments)


@pytest.mark.parametrize("family", BANKS)
def test_any_make_of_bank_gives_the_models_numbers(family: str) -> None:
    bank = make_bank(family)
    assert BANKS[family][2] in experts.unfit_bank(bank) and experts.unfit_parts(bank, "cpu") == ""
    x, ids, weights = choice(9)
    experts.attach_bank(bank, "cpu")
    found: list[tuple[routing_kernels.ExpertRows, Tensor, Tensor, float]] = []
    run = experts.experts_function("eager")
    want = own(bank, x, ids, weights)
    plain = run(bank, x, ids, weights)
    assert (plain - want).norm() <= 1e-5 * want.norm()
    here = bank_of(bank)
    assert here is not None
    here.sink = lambda out, ids, weights, seconds: found.append((out, ids, weights, seconds))
    assert torch.equal(run(bank, x, ids, weights), plain)
    ((out, executed, weighed, seconds),) = found
    assert seconds > 0 and torch.equal(executed, ids) and torch.equal(weighed, weights)
    assert (
        out.counts.tolist() == torch.bincount(ids.flatten(), minlength=5).tolist() and int(out.dropped) == 0
    )
    for slot in range(2):  # what one slot alone adds, with a weight of 1, is what its norm is of
        alone = own(bank, x, ids[:, slot : slot + 1], torch.ones(9, 1))
        torch.testing.assert_close(out.norms[0, :, slot], alone.norm(dim=1), rtol=1e-5, atol=1e-6)
    experts.detach_bank(bank)
    assert bank_of(bank) is None


def test_a_dropped_slot_is_left_out_and_costs_nothing() -> None:
    bank = make_bank("gpt_oss")
    x, ids, weights = choice(9)
    experts.attach_bank(bank, "cpu")
    run = experts.experts_function("eager")
    want = own(bank, x, ids, weights.masked_fill(ids == 2, 0.0))
    for parameter in bank.parameters():  # what is left out is not read
        parameter[2] = torch.nan
    dropped = run(bank, x, ids.masked_fill(ids == 2, -1), weights.masked_fill(ids == 2, torch.nan))
    assert (dropped - want).norm() <= 1e-5 * want.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_near_as_the_models_own(dtype: torch.dtype) -> None:
    bank, exact = make_bank("gpt_oss", dtype), make_bank("gpt_oss", dtype).double()
    x, ids, weights = choice(9, dtype)
    experts.attach_bank(bank, "cpu")
    want = own(exact, x.double(), ids, weights.double())
    ours = experts.experts_function("eager")(bank, x, ids, weights)
    theirs = own(bank, x, ids, weights)
    assert (ours - want).norm() <= 1.2 * (theirs - want).norm()


def test_a_bank_that_does_something_else_than_its_flags_say_keeps_its_own() -> None:
    bank = make_bank("aria")
    assert experts.unfit_parts(bank, "cpu") == ""
    bank._apply_gate = lambda rows: rows.chunk(2, dim=-1)[0]
    assert "computes something else than its flags say" in experts.unfit_parts(bank, "cpu")
    bank.down_proj = None
    assert "our products do not read" in experts.unfit_parts(bank, "cpu")
    assert "not in transformers' experts registry" in experts.unfit_parts(torch.nn.Linear(2, 2), "cpu")


def test_a_whole_model_of_such_banks_runs_and_reports(bench: Any) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "gpt_oss", vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, num_local_experts=4, num_experts_per_tok=2, pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in model.named_parameters():
        if "bias" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    choices: list[Tensor] = []
    for layer in model.model.layers:
        layer.mlp.router.register_forward_hook(lambda _, __, out: choices.append(out[2].clone()))
    with torch.no_grad():
        want = model(IDS).logits
        tokens = model.generate(IDS, max_new_tokens=6, do_sample=False)
    theirs, choices = choices[:2], []
    for kernels in ("auto", "cpu"):
        one = bench(model, kernels=kernels)
        paths = [p for p in one.kernel_paths if p.part == "experts"]
        assert {p.path for p in paths} == {"composed"} and "has biases" in paths[0].reason
        choices.clear()  # opening has asked the routers already
        with torch.no_grad():
            found = one.model(IDS).logits
            assert (found - want).norm() <= 1e-5 * want.norm()
            assert all(torch.equal(a, b) for a, b in zip(choices[:2], theirs, strict=True))
            assert torch.equal(one.model.generate(IDS, max_new_tokens=6, do_sample=False), tokens)
        run = one.run(IDS, record=wb.Record())
        counted = one.sql(f"select count(norm), min(norm) from routing where run = {run.id}").fetchone()
        assert counted[0] == 2 * 20 * 2 and counted[1] > 0
        one.close()
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, want)
