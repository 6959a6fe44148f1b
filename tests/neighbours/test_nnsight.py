"""An nnsight model opens like any model, with the real package; traces see our edits, and a plan runs inside one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import build_tiny

import workbench as wb
from workbench.address import Address
from workbench.errors import AddressError, EditRefused

nnsight = pytest.importorskip("nnsight")

IDS = [5, 17, 3, 60, 22, 9, 41, 8]
BATCH = torch.tensor([IDS])
FAMILIES = ("olmoe", pytest.param("mixtral", marks=pytest.mark.slow), "llama")


def _value(traced: Any, place: str) -> torch.Tensor:
    """The named place in one trace."""
    with torch.no_grad(), traced.trace(BATCH, use_cache=False):
        value = traced
        for name in place.split("."):
            value = value[int(name)] if name.isdigit() else getattr(value, name)
        saved = (value[0] if isinstance(value, tuple) else value).clone().save()
    return saved


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_that_both_have_is_equal(bench: Any, family: str) -> None:
    traced = nnsight.NNsight(build_tiny(family))
    one = bench(traced, kernels="model")
    run = one.run(IDS)
    compared = set()
    for address in one.anatomy.sites():
        moe = address.layer is not None and one.anatomy.layer(address.layer).moe is not None
        if address.site.nnsight is None or (address.name == "mlp_act" and moe):
            continue
        paths = {layer: one.anatomy.paths(layer) for layer in range(3)}
        place = address.nnsight(paths[address.layer or 0])
        assert Address.from_nnsight(place, paths) == address
        theirs = _value(traced, place)[0]
        ours = (
            run.logits
            if address.layer is None
            else run.tensor(address.name, layers=address.layer, tokens="all")
        )
        assert torch.equal(ours.reshape(theirs.shape), theirs), address
        compared.add(address.name)
    assert compared >= {"resid_pre", "resid_post", "attn_head_out", "logits"}
    with pytest.raises(AddressError, match="No site has the meaning"):
        Address.from_nnsight("model.layers.0.mlp.output", paths)


@wb.edit("attn_head_out")
def doubled_heads(value: Any, place: Any) -> Any:
    return value * 2


@wb.edit("router_logits")
def inverted(value: Any, place: Any) -> Any:
    return -value


@wb.edit("expert_out")
def louder_experts(value: Any, place: Any) -> Any:
    return value * 2


PLANS = [
    wb.reroute.ban(layers=1, experts=[0, 1, 2]),
    wb.reroute.force(layers=[0, 2], experts=[5]),
    wb.reroute.bias(layers="all", delta={4: 5.0}),
    wb.reroute.top_k(layers=1, k=4),
    wb.reroute.weights(layers=2, values=[0.2, 0.9]),
    wb.mask.heads(layers=1, heads=[0, 2]),
    wb.reroute.ban(layers=1, experts=[0, 1, 2], tokens=[2, 5]),
    wb.reroute.pseudo(layers=1, experts=[1, 2, 3], output="copy"),
    wb.mask.experts(layers=2, experts=[0, 1, 2, 3], replacement="identity"),
    wb.mask.direction(layers=1, vector=[1.0, -1.0] * 16, op="add"),
    wb.mask.direction(layers=[0, 2], vector=[1.0, -1.0] * 16, site="mlp_out", tokens=[3]),
    wb.mask.direction(layers=1, vector=[1.0, -1.0] * 16, site="resid_pre", op="clamp", value=2.0),
    wb.skip.mlp(layers=1, tokens=[1, 4]),
    wb.skip.attention(layers=2),
    wb.skip.block(layers=1),
    doubled_heads(layers=1, tokens=[2, 3]),
    inverted(layers=2),
]


@pytest.mark.parametrize("family", ["olmoe", pytest.param("mixtral", marks=pytest.mark.slow)])
def test_a_plan_inside_a_trace_equals_the_local_run(bench: Any, family: str) -> None:
    traced = nnsight.NNsight(build_tiny(family))
    one = bench(traced, kernels="model")
    base = one.run(IDS).logits
    for edit in [*PLANS, wb.Plan([PLANS[0], PLANS[5], PLANS[3].model_copy(update={"layers": (2,)})])]:
        with torch.no_grad(), traced.trace(BATCH, use_cache=False):
            one.write_into(traced, edit, IDS)
            logits = traced.output.logits.save()
        expected = one.run(IDS, edit).logits
        if str(getattr(edit, "kind", "")).startswith("skip."):  # a local run computes the other tokens alone
            torch.testing.assert_close(logits[0], expected, rtol=1e-4, atol=1e-5)
        else:
            assert torch.equal(logits[0], expected), edit
        assert not torch.equal(expected, base)
    with torch.no_grad(), traced.trace(BATCH, use_cache=False):
        one.write_into(traced, wb.Plan(), IDS)
        logits = traced.output.logits.save()
    assert torch.equal(logits[0], base)


def test_what_a_trace_cannot_do_is_refused(bench: Any) -> None:
    traced = nnsight.NNsight(build_tiny("olmoe"))
    one = bench(traced)
    for edit, says in (
        (wb.skip.block(layers=1, tokens=[3]), "the others would still attend"),
        (wb.skip.repeat(layers=1), "changes how a module computes"),
        (wb.mask.weights(layers=1, ratio=0.5), "changes how a module computes"),
        (wb.mask.tokens(tokens=[2]), "changes how a module computes"),
        (wb.reroute.smooth(layers=1), "does not flow through any module"),
        (louder_experts(layers=1), "needs the weights of the experts"),
        (wb.patch("resid_post", one.run(IDS), 1), "reads another run"),
    ):
        with pytest.raises(EditRefused, match=f"cannot be written into a trace: .*{says}"):
            one.write_into(traced, edit, IDS)
    with pytest.raises(EditRefused, match="experts are left|legal experts|cannot|fewer"):
        one.write_into(traced, wb.reroute.ban(layers=1, experts=list(range(7))), IDS)


def test_their_edits_reach_a_recorded_run_of_the_same_trace(bench: Any) -> None:
    """Hooks of a session fire inside a trace, and a trace of an open model leaves no edit behind."""
    traced = nnsight.NNsight(build_tiny("olmoe"))
    one = bench(traced, kernels="model")
    base = one.run(IDS).logits
    with torch.no_grad(), traced.trace(BATCH, use_cache=False):
        traced.model.layers[1].mlp.experts.inputs = (
            (
                *traced.model.layers[1].mlp.experts.inputs[0][:2],
                traced.model.layers[1].mlp.experts.inputs[0][2] * 2,
            ),
            traced.model.layers[1].mlp.experts.inputs[1],
        )
        doubled = traced.output.logits.save()
    assert not torch.equal(doubled[0], base)
    assert torch.equal(one.run(IDS).logits, base)
    scaled = one.run(IDS, wb.reroute.weights(layers=1, scale=2.0, normalise="as-is"))
    torch.testing.assert_close(doubled[0], scaled.logits)
