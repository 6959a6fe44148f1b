"""Trainable edits: their gradients are those of the model, and freezing keeps what was learnt."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import workbench as wb
from workbench.errors import AddressError, EditRefused, PlanError

IDS = [5, 17, 3, 60, 22, 9]
GOLD = 11


def loss(bench: Any, edit: Any) -> torch.Tensor:
    return -bench.run(IDS, edit).logits[-1].log_softmax(-1)[GOLD]


@pytest.mark.parametrize(
    "site", ["router_logits", "scores", "expert_weights", "resid_pre", "attn_out", "mlp_out", "resid_post"]
)
@pytest.mark.parametrize("tokens", [[3, 5], pytest.param("all", marks=pytest.mark.slow)])
def test_gradients_are_those_of_finite_differences(bench: Any, tiny: Any, site: str, tokens: Any) -> None:
    model = tiny("olmoe-norm").double()
    model.set_experts_implementation("eager")  # grouped products know no fp64
    one = bench(model, kernels="model")
    param = one.param(site, layers=[0, 2], tokens=tokens)
    size = 32 if site.startswith(("resid", "attn", "mlp")) else 8
    assert param.tensor.shape == ((2, size) if tokens == "all" else (2, 2, size))
    value = loss(one, param.edit())
    value.backward()
    gradient = param.tensor.grad
    assert float(gradient.abs().max()) > 1e-6
    assert all(p.grad is None and p.requires_grad for p in one.model.parameters())
    direction = torch.randn(
        param.tensor.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    step = 2e-3  # the routers compute in fp32, so smaller steps drown in rounding
    with torch.no_grad():
        param.tensor += step * direction
        up = float(loss(one, param.freeze()))
        param.tensor -= 2 * step * direction
        down = float(loss(one, param.freeze()))
    measured = (up - down) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(measured, rel=2e-2, abs=2e-4)


@pytest.mark.slow
def test_our_kernels_carry_gradients_too(bench: Any, tiny: Any) -> None:
    found = {}
    for kernels in ("auto", "model"):
        one = bench(tiny("olmoe"), kernels=kernels)
        param = one.param("scores", layers=[1, 2], tokens="prompt_last")
        loss(one, param.edit()).backward()
        found[kernels] = param.tensor.grad
    torch.testing.assert_close(found["auto"], found["model"], rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_training_lowers_the_loss_and_freezing_keeps_it(bench: Any) -> None:
    one = bench("olmoe")
    param = one.param("scores", layers=[0, 1, 2], tokens="prompt_last")
    optimiser = torch.optim.SGD([param.tensor], lr=0.05)
    first = float(loss(one, param.edit()).detach())
    assert first == pytest.approx(float(loss(one, None)), rel=1e-6)  # zeros change nothing
    for _ in range(5):
        optimiser.zero_grad()
        value = loss(one, param.edit())
        value.backward()
        optimiser.step()
    frozen = wb.Plan([param.freeze()])
    kept = float(loss(one, frozen))
    assert kept < first
    assert kept == pytest.approx(float(loss(one, param.edit()).detach()), rel=1e-6)
    assert wb.Plan.from_json(frozen.to_json()) == frozen
    assert one.generate(IDS, 2, frozen).plan == frozen
    with torch.no_grad():
        param.tensor.zero_()
    assert float(loss(one, frozen)) == pytest.approx(kept, rel=1e-6)


@pytest.mark.slow
def test_what_cannot_be_trained_is_refused(bench: Any) -> None:
    one = bench("olmoe")
    with pytest.raises(AddressError, match="cannot be trained"):
        one.param("attn_pattern", layers=0)
    with pytest.raises(AddressError, match="no layer 9"):
        one.param("scores", layers=9)
    with pytest.raises(EditRefused, match="has no site"):
        bench("llama").param("scores", layers=0)
    param = one.param("mlp_out", layers=0)
    with pytest.raises(PlanError, match="no data yet"):
        wb.Plan([param.edit()]).to_json()
    with pytest.raises(PlanError, match="cannot be recorded"):
        one.run(IDS, param.edit(), record=wb.Record())
    with pytest.raises(PlanError, match="no gradients"):
        one.generate(IDS, 2, param.edit())
