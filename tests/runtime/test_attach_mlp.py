"""Gated MLPs that leave neurons out on our kernel, and what stands in a model from open to close."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import build_tiny
from torch import Tensor

from workbench.errors import EditRefused
from workbench.runtime.attach import MlpCall, MlpOptions, MlpReport, ask_mlp
from workbench.runtime.attach.mlp import turned_bytes
from workbench.runtime.attach.paths import KernelPath, summary

IDS = torch.arange(1, 21)[None]


def by_hand(module: Any, x: Tensor, keep: Tensor) -> Tensor:
    hidden = module.act_fn(module.gate_proj(x)) * module.up_proj(x)
    return module.down_proj(hidden * keep)


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["auto", "model"])
def test_neurons_are_left_out(bench: Any, kernels: str) -> None:
    one = bench("llama", kernels=kernels)
    module = one.anatomy.layer(1).mlp.module
    seen: list[Tensor] = []
    found: list[MlpReport] = []
    active = torch.rand(48, generator=torch.Generator().manual_seed(0)) < 0.5

    def asker(call: MlpCall) -> MlpOptions:
        seen.append(call.hidden)
        return MlpOptions("neuron", active=active, sink=found.append)

    outputs: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, __, out: outputs.append(out))
    with torch.no_grad():
        plain = one.model(IDS).logits
        stop = ask_mlp(module, asker)
        edited = one.model(IDS).logits
        stop()
        assert torch.equal(one.model(IDS).logits, plain)
        want = by_hand(module, seen[0], active)
    handle.remove()
    assert (outputs[1][0] - want).norm() <= 1e-5 * want.norm() and not torch.equal(edited, plain)
    (report,) = found
    assert report.active_count.tolist() == [int(active.sum())] * 20 and report.kernel != "model"


def test_thresholds_hold_for_the_chosen_tokens_alone(bench: Any) -> None:
    one = bench("llama")
    module = one.anatomy.layer(0).mlp.module
    x = torch.randn(20, 32, generator=torch.Generator().manual_seed(0))
    rows = torch.zeros(20, dtype=torch.bool)
    rows[5:9] = True
    with torch.no_grad():
        plain = module(x[None])[0]
        gated = module.act_fn(module.gate_proj(x))
        edge = float(gated.abs().quantile(0.7))
        want = by_hand(module, x, gated.abs() > edge)
        stop = ask_mlp(module, lambda _: MlpOptions("cats", edge, rows=rows))
        found = module(x[None])[0]
        stop()
        stop = ask_mlp(module, lambda _: MlpOptions("teal", 0.0, 0.0))
        assert (module(x[None])[0] - plain).norm() <= 1e-5 * plain.norm()
        stop()
    assert torch.equal(found[~rows], plain[~rows])
    assert (found - want)[rows].norm() <= 1e-5 * want[rows].norm()
    assert turned_bytes(module) == 3 * 48 * 32 * 4
    # A weight that changes is turned again.
    with torch.no_grad():
        module.down_proj.weight.mul_(2)
        stop = ask_mlp(module, lambda _: MlpOptions("cats", edge))
        assert (module(x[None])[0] - 2 * want).norm() <= 1e-5 * (2 * want).norm()
        stop()


def test_two_criteria_for_one_call_are_refused(bench: Any) -> None:
    one = bench("llama")
    module = one.anatomy.layer(0).mlp.module
    ask_mlp(module, lambda _: MlpOptions("cats", 0.1))
    ask_mlp(module, lambda _: MlpOptions("teal", 0.1))
    with pytest.raises(EditRefused, match="Two edits drop neurons"), torch.no_grad():
        one.model(IDS)
    with pytest.raises(EditRefused, match="cannot be left out"):
        ask_mlp(torch.nn.Linear(2, 2), lambda _: None)


@pytest.mark.slow
def test_closing_leaves_the_model_as_it_was(bench: Any) -> None:
    for family in ("llama", "olmoe"):
        model = build_tiny(family)
        own = model.config._attn_implementation, model.config._experts_implementation
        before = {name: set(module.__dict__) for name, module in model.named_modules()}
        with torch.no_grad():
            want = model(IDS).logits
        bench(model, kernels="cpu").close()
        assert {name: set(module.__dict__) for name, module in model.named_modules()} == before
        assert (model.config._attn_implementation, model.config._experts_implementation) == own
        with torch.no_grad():
            assert torch.equal(model(IDS).logits, want)


def test_layers_that_agree_share_a_line() -> None:
    paths = [KernelPath(n, "experts", "ours", "") for n in (0, 1, 2, 5)]
    paths.append(KernelPath(3, "mlp", "model", "has biases"))
    assert summary(paths) == [("experts", "0-2, 5", "ours", ""), ("mlp", "3", "model", "has biases")]
