"""What edits mean, on every family: rows removed from a router, own routes replayed, ties, exchanges, sites as tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import CONFIGS, FAMILIES, MOE_FAMILIES, build_tiny, each

import workbench as wb
from workbench.runtime.sites import READABLE

IDS = [5, 17, 3, 60, 22, 9, 41, 8]
LAYER, GONE = 1, [0, 3, 6]
EXPERTS = {"mixtral": "num_local_experts"}


def without_rows(family: str) -> Any:
    """The model whose router in ``LAYER`` has no rows for the experts that are gone, and whose bank lacks them."""
    from transformers import AutoConfig, AutoModelForCausalLM

    model = build_tiny(family)
    name = EXPERTS.get(family, "num_experts")
    smaller = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family.split("-")[0], **(CONFIGS[family] | {name: 8 - len(GONE)}))
    ).eval()
    kept = [expert for expert in range(8) if expert not in GONE]
    source, target = model.model.layers[LAYER].mlp, smaller.model.layers[LAYER].mlp
    found = dict(source.named_parameters())
    with torch.no_grad():
        for key, parameter in target.named_parameters():
            parameter.copy_(found[key][kept])
    model.model.layers[LAYER].mlp = target
    return model


@pytest.mark.slow
@pytest.mark.parametrize("family", each(MOE_FAMILIES))
@pytest.mark.parametrize("kernels", ["model", "auto"])
def test_a_ban_at_the_logits_equals_a_router_without_those_rows(
    bench: Any, family: str, kernels: str
) -> None:
    one = bench(family, kernels=kernels)
    run = one.run(IDS, wb.reroute.ban(LAYER, GONE, at="logits"))
    with torch.no_grad():
        want = without_rows(family)(torch.tensor([IDS]), use_cache=False).logits[0]
    torch.testing.assert_close(run.logits, want, rtol=1e-4, atol=1e-5)
    scores = one.run(IDS, wb.reroute.ban(LAYER, GONE))
    normalised = family != "olmoe"
    # Where weights are normalised after the choice it does not matter whether the softmax knew the banned ones.
    assert torch.allclose(scores.logits, run.logits, atol=1e-4) == normalised


@pytest.mark.slow
@pytest.mark.parametrize("family", each(MOE_FAMILIES))
@pytest.mark.parametrize("kernels", ["model", "auto"])
def test_own_routes_and_permutations_there_and_back_change_no_bit(
    bench: Any, family: str, kernels: str
) -> None:
    one = bench(family, kernels=kernels)
    base = one.run(IDS)
    assert torch.equal(one.run(IDS, wb.reroute.replay(base)).logits, base.logits)
    there, back = [3, 0, 1, 2, 7, 4, 5, 6], [1, 2, 3, 0, 5, 6, 7, 4]
    both = wb.Plan([wb.reroute.permute("all", there), wb.reroute.permute("all", back)])
    assert torch.equal(one.run(IDS, both).logits, base.logits)
    generated = one.generate(IDS[:4], 4)
    again = one.generate(IDS[:4], 4, wb.reroute.replay(generated))
    assert torch.equal(again.logits, generated.logits)


def test_ties_are_counted_and_left_to_the_model(bench: Any) -> None:
    model = build_tiny("olmoe")
    with torch.no_grad():
        model.model.layers[LAYER].mlp.gate.weight[4] = model.model.layers[LAYER].mlp.gate.weight[2]
    one = bench(model)
    base = one.run(IDS)
    ties = one.sql("SELECT count(*) FROM router WHERE run = ? AND layer = 1 AND tie", [base.id]).fetchone()[0]
    logits = base.tensor("router_logits", layers=LAYER)
    best = logits.sort(descending=True, dim=-1).values
    assert ties == int((best[:, 1] == best[:, 2]).sum())
    # An edit that touches no score leaves the model's own choice among equals.
    quiet = one.run(IDS, wb.reroute.bias(LAYER, [0.0] * 8))
    assert torch.equal(quiet.tensor("expert_ids", layers=LAYER), base.tensor("expert_ids", layers=LAYER))
    zero = one.run(IDS, wb.reroute.ban(LAYER, [e for e in range(8) if e not in (2, 4, 5)]))
    taken = zero.tensor("expert_ids", layers=LAYER)
    for row, values in zip(taken.tolist(), logits.tolist(), strict=True):
        if values[5] > values[2]:
            assert (
                5 in row and len({2, 4} & set(row)) == 1
            )  # the tie at the border falls one way or the other
        else:
            assert set(row) == {2, 4}


@pytest.mark.slow
@pytest.mark.parametrize("family", each(FAMILIES))
def test_every_site_is_read_as_a_tensor_and_every_exchange_is_tried(bench: Any, family: str) -> None:
    one = bench(family)
    run = one.run(IDS)
    have = {address.name for address in one.anatomy.sites() if address.layer == LAYER}
    for site in READABLE:
        if site not in have:
            with pytest.raises(wb.errors.EditRefused):
                run.tensor(site, layers=LAYER)
            continue
        value = run.tensor(site, layers=[LAYER, 2], tokens=[1, 4])
        assert (
            value.shape[0] == 2
            and value.shape[2 if site == "attn_pattern" else 1] == 2
            and value.isfinite().all()
        )
    if family == "llama":
        with pytest.raises(wb.errors.EditRefused):
            one.counterfactual(run, token=3, layers=LAYER)
        return
    table = one.counterfactual(run, token=3, layers=[0, LAYER])
    assert len(table) == 2 * 2 * 6  # layers x chosen x others
    for row in (table.iloc[0], table.iloc[-1]):
        redone = one.run(IDS, row["plan"], record=None).logits.log_softmax(-1)[3, IDS[4]]
        own = run.logits.log_softmax(-1)[3, IDS[4]]
        assert row["next_change"] == pytest.approx(float(redone - own), abs=1e-4)
