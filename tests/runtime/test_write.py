"""Edits that write a site: patches, directions, custom functions. Every site changes the logits or is refused."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
import torch
import transformers

import workbench as wb
from workbench.address import WRITE_SITES
from workbench.conformance.families import build
from workbench.errors import EditRefused, PlanError
from workbench.interventions.site import SiteEdit

A = [5, 17, 3, 60, 22, 9, 41, 8]
B = [7, 30, 11, 4, 51, 23, 6, 14]
LAYER = 1
SITES = ("resid_pre", "attn_head_out", "attn_out", "expert_out", "mlp_out", "resid_post")


@wb.edit("mlp_out")
def louder(value: Any, place: Any, by: float = 2.0) -> Any:
    return value * by


@wb.edit("router_logits")
def flipped(value: Any, place: Any) -> Any:
    return -value


@wb.edit("expert_scores", causal=False)
def averaged(value: Any, place: Any) -> Any:
    return value.mean(dim=1, keepdim=True).expand_as(value)


@wb.edit("attn_head_out")
def odd(value: Any, place: Any) -> Any:
    assert value.shape[:2] == place.positions.shape == place.tokens.shape and place.layer == LAYER
    return torch.where((place.positions % 2 == 1)[..., None, None], 0.0, value)


@wb.edit("resid_post")
def broken(value: Any, place: Any) -> Any:
    return value[..., :3]


@pytest.mark.parametrize("kernels", ["auto", pytest.param("model", marks=pytest.mark.slow)])
@pytest.mark.parametrize("site", SITES)
def test_a_patch_puts_the_other_runs_values_in(bench: Any, site: str, kernels: str) -> None:
    one = bench("olmoe", kernels=kernels)
    a, b = one.run(A), one.run(B, wb.reroute.ban(0, 2))
    run = one.run(A, wb.patch(site, b, LAYER, tokens=[2, 5]))
    want, own = b.tensor(site, layers=LAYER), a.tensor(site, layers=LAYER)
    if site != "expert_out":  # which is written into the sum, not into the slots that are read
        got = run.tensor(site, layers=LAYER)
        torch.testing.assert_close(got[[2, 5]], want[[2, 5]], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got[:2], own[:2], rtol=1e-5, atol=1e-5)
    assert float((run.logits - a.logits).abs().max()) > 1e-3, "no effect"
    torch.testing.assert_close(run.logits[:2], a.logits[:2], rtol=1e-5, atol=1e-5)
    # Identity: a run patched from itself.
    torch.testing.assert_close(one.run(A, wb.patch(site, a, LAYER)).logits, a.logits, rtol=1e-5, atol=1e-5)
    # Maps, and a generation under a patch.
    mapped = one.run(A, wb.patch(site, b, LAYER, tokens=6, token_map={6: 1}))
    assert float((mapped.logits[6] - a.logits[6]).abs().max()) > 1e-4
    if site != "expert_out":
        torch.testing.assert_close(mapped.tensor(site, layers=LAYER, tokens=6), want[1], rtol=1e-5, atol=1e-6)
        below = one.run(A, wb.patch(site, b, 2, layer_map={2: LAYER}))
        torch.testing.assert_close(below.tensor(site, layers=2), want, rtol=1e-5, atol=1e-6)
    assert torch.equal(one.generate(A, 2, wb.patch(site, b, LAYER)).tokens[:8], a.tokens)
    batch = one.run([B, A], plans=[None, wb.patch(site, b, LAYER, tokens=[2, 5])])
    torch.testing.assert_close(batch[1].logits, run.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(batch[0].logits, one.run(B).logits, rtol=1e-4, atol=1e-5)


def test_patching_the_whole_stream_gives_the_other_runs_end(bench: Any) -> None:
    one = bench("olmoe")
    b = one.run(B)
    assert torch.equal(one.run(A, wb.patch("resid_post", b, 2)).logits, b.logits)


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["auto", "model"])
def test_the_output_of_an_expert_is_read_and_written(bench: Any, kernels: str) -> None:
    one = bench("olmoe", kernels=kernels)
    a, b = one.run(A), one.run(B)
    slots = a.tensor("expert_out", layers=LAYER)
    weights = a.tensor("expert_weights", layers=LAYER)
    assert slots.shape == (8, 2, 32)
    torch.testing.assert_close(
        (weights.unsqueeze(-1) * slots).sum(1), a.tensor("mlp_out", layers=LAYER), rtol=1e-4, atol=1e-5
    )
    patched = one.run(A, wb.patch("expert_out", b, LAYER, tokens=[3]))
    other = b.tensor("expert_out", layers=LAYER)
    wanted = (weights.unsqueeze(-1) * other).sum(1)[3]
    torch.testing.assert_close(
        patched.tensor("mlp_out", layers=LAYER, tokens=3), wanted, rtol=1e-4, atol=1e-5
    )


@wb.edit("mlp_act")
def stronger(value: Any, place: Any, by: float = 2.0) -> Any:
    assert value.shape[:2] == place.positions.shape
    return value * by


@pytest.mark.parametrize("kernels", ["auto", "model"])
def test_neurons_of_experts_are_read_and_written(bench: Any, kernels: str) -> None:
    one = bench("olmoe", kernels=kernels)
    a, b = one.run(A), one.run(B)
    found = a.tensor("mlp_act", layers=LAYER)
    ids, slots = a.tensor("expert_ids", layers=LAYER), a.tensor("expert_out", layers=LAYER)
    down = one.model.model.layers[LAYER].mlp.experts.down_proj.detach()
    torch.testing.assert_close(torch.einsum("tkf,tkhf->tkh", found, down[ids]), slots, rtol=1e-4, atol=1e-5)
    run = one.run(A, stronger(LAYER, by=3.0, tokens=[2, 5]))
    own, after = a.tensor("mlp_out", layers=LAYER), run.tensor("mlp_out", layers=LAYER)
    torch.testing.assert_close(after[[2, 5]], 3 * own[[2, 5]], rtol=1e-4, atol=1e-5)
    assert torch.equal(after[:2], own[:2])
    assert torch.equal(one.run(A, stronger(LAYER, by=1.0)).logits, a.logits)
    assert one.generate(A, 2, stronger(LAYER, by=1.0)).tokens.tolist()[:8] == A
    # A patch takes neurons of the same expert alone.
    assert torch.equal(one.run(A, wb.patch("mlp_act", a, LAYER)).logits, a.logits)
    patched = one.run(A, wb.patch("mlp_act", b, LAYER))
    theirs, weights = b.tensor("mlp_act", layers=LAYER), a.tensor("expert_weights", layers=LAYER)
    same = (ids == b.tensor("expert_ids", layers=LAYER)).unsqueeze(-1)
    assert bool(same.any()) and not bool(same.all())
    mixed = torch.einsum("tkf,tkhf->tkh", torch.where(same, theirs, found), down[ids])
    torch.testing.assert_close(
        patched.tensor("mlp_out", layers=LAYER), (weights.unsqueeze(-1) * mixed).sum(1), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("family", ["gpt_oss", pytest.param("aria_text", marks=pytest.mark.slow),
                                    pytest.param("nemotron_h", marks=pytest.mark.slow)])  # fmt: skip
def test_banks_with_biases_transposed_or_without_a_gate_show_their_neurons_too(
    bench: Any, family: str
) -> None:
    one = bench(build(family))
    bank = one.anatomy.layer(LAYER).moe.experts
    if not hasattr(bank, "_apply_gate"):
        pytest.skip(f"transformers {transformers.__version__} has no {type(bank).__name__} in its registry")
    a = one.run(A)
    base, ids = a.tensor("mlp_act", layers=LAYER), a.tensor("expert_ids", layers=LAYER)
    down = bank.down_proj.detach() if bank.is_transposed else bank.down_proj.detach().mT
    out = torch.einsum("tkf,tkfh->tkh", base, down[ids])
    if bank.has_bias:
        out = out + bank.down_proj_bias.detach()[ids]
    torch.testing.assert_close(out, a.tensor("expert_out", layers=LAYER), rtol=1e-4, atol=1e-5)
    run = one.run(A, stronger(LAYER, by=3.0, tokens=[2]))
    weights = a.tensor("expert_weights", layers=LAYER)
    added = 2 * (weights.unsqueeze(-1) * torch.einsum("tkf,tkfh->tkh", base, down[ids])).sum(1)[2]
    change = run.tensor("resid_post", layers=LAYER)[2] - a.tensor("resid_post", layers=LAYER)[2]
    torch.testing.assert_close(change, added, rtol=1e-3, atol=1e-4)


def test_neurons_of_a_bank_that_is_not_known_are_refused_with_the_reason(bench: Any) -> None:
    one = bench(build("dbrx"))
    with pytest.raises(
        EditRefused, match="cannot be reached: DbrxExperts is not in transformers' experts registry"
    ):
        one.run(A, stronger(LAYER))
    with pytest.raises(EditRefused, match="cannot be reached"):
        one.run(A).tensor("mlp_act", layers=LAYER)


def test_neurons_of_a_dense_model_are_patched_and_what_is_not_there_is_refused(bench: Any) -> None:
    dense = bench("llama")
    a, b = dense.run(A), dense.run(B)
    run = dense.run(A, wb.patch("mlp_act", b, LAYER, tokens=[4]))
    assert torch.equal(
        run.tensor("mlp_act", layers=LAYER, tokens=4), b.tensor("mlp_act", layers=LAYER, tokens=4)
    )
    assert float((run.logits - a.logits).abs().max()) > 1e-3
    sparse = bench("olmoe")
    with pytest.raises(EditRefused, match="not in this store"):
        sparse.run(A, wb.patch("resid_post", 12345, LAYER))
    with pytest.raises(PlanError, match="not recorded"):
        wb.patch("resid_post", sparse.run(B, record=None), LAYER)
    with pytest.raises(EditRefused, match="has no site"):
        dense.run(A, wb.patch("expert_out", b, LAYER))


@pytest.mark.slow
@pytest.mark.parametrize("site", ["resid_pre", "attn_out", "mlp_out", "resid_post"])
@pytest.mark.parametrize("op", ["ablate", "add", "clamp"])
def test_directions(bench: Any, site: str, op: str) -> None:
    one = bench("olmoe")
    base = one.run(A)
    vector = torch.linspace(-1, 2, 32)
    value = {} if op == "ablate" else {"value": 3.0}
    run = one.run(A, wb.mask.direction(LAYER, vector, op=op, site=site, tokens=slice(2, 5), **value))
    before, after = (r.tensor(site, layers=LAYER) for r in (base, run))
    unit = vector / vector.norm()
    if op == "add":
        torch.testing.assert_close(after[2:5], before[2:5] + 3 * vector, rtol=1e-5, atol=1e-5)
    else:
        wanted = torch.full((3,), 0.0 if op == "ablate" else 3.0)
        torch.testing.assert_close(after[2:5] @ unit, wanted, rtol=1e-4, atol=1e-5)
        off = lambda x: x - (x @ unit)[:, None] * unit  # noqa: E731
        torch.testing.assert_close(off(after[2:5]), off(before[2:5]), rtol=1e-4, atol=1e-5)
    assert torch.equal(after[:2], before[:2]) and float((run.logits - base.logits).abs().max()) > 1e-3
    if op == "add":
        assert torch.equal(
            one.run(A, wb.mask.direction(LAYER, vector, op="add", value=0.0, site=site)).logits, base.logits
        )
    with pytest.raises(EditRefused, match="there are 32 channels"):
        one.run(A, wb.mask.direction(LAYER, [1.0, 2.0], site=site))


def test_a_custom_edit_does_what_its_function_does(bench: Any) -> None:
    one = bench("olmoe")
    base = one.run(A)
    run = one.run(A, louder(LAYER, by=1.5, tokens=[3]))
    torch.testing.assert_close(
        run.tensor("mlp_out", layers=LAYER)[3], 1.5 * base.tensor("mlp_out", layers=LAYER)[3]
    )
    heads = one.run(A, odd(LAYER)).tensor("attn_head_out", layers=LAYER)
    assert float(heads[1::2].abs().max()) == 0 < float(heads[::2].abs().min(-1).values.max())
    logits = base.tensor("router_logits", layers=LAYER)
    chosen = one.run(A, flipped(LAYER)).tensor("expert_ids", layers=LAYER)
    assert [set(row) for row in chosen.tolist()] == [set(row) for row in (-logits).topk(2).indices.tolist()]
    same = one.run([A, B], averaged(LAYER))[0].tensor("expert_ids", layers=LAYER)
    assert len({frozenset(row) for row in same.tolist()}) == 1
    with pytest.raises(EditRefused, match="later tokens"):
        one.generate(A, 2, averaged(LAYER))
    with pytest.raises(EditRefused, match="of the shape that was given"):
        one.run(A, broken(LAYER))
    assert one.generate(A, 3, louder(LAYER, phase="decode")).tokens.tolist()[:8] == A


def test_a_custom_edit_is_data_that_only_its_function_can_load() -> None:
    plan = wb.Plan([louder(LAYER, by=1.5), odd(LAYER, tokens=[1])])
    assert wb.Plan.from_json(plan.to_json()) == plan
    assert eval(plan.to_python(), {"wb": wb, "slice": slice}) == plan
    assert plan.hash != wb.Plan([louder(LAYER, by=2.5), odd(LAYER, tokens=[1])]).hash
    for field, value, says in (
        ("name", "somewhere.else", "is registered"),
        ("source", "0" * 16, "is not the one the plan was made with"),
    ):
        data = json.loads(plan.to_json())
        data["edits"][0][field] = value
        with pytest.raises(PlanError, match=says):
            wb.Plan.from_json(json.dumps(data))
    with pytest.raises(PlanError, match="No function called"):
        wb.custom("nobody")
    with pytest.raises(PlanError, match="cannot be read"):
        wb.edit("mlp_out")(len)
    with pytest.raises(PlanError, match="without its site"):
        wb.edit(lambda value, place: value)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="does not take the values of a site and a place"):

        @wb.edit("mlp_out")
        def alone(value: Any) -> Any:
            return value


@pytest.mark.slow
def test_edits_of_one_site_act_in_the_order_of_the_plan(bench: Any) -> None:
    one = bench("olmoe")
    vector = torch.linspace(-1, 2, 32)
    add = wb.mask.direction(LAYER, vector, op="add", site="mlp_out")
    first, then = one.run(A, wb.Plan([add, louder(LAYER)])), one.run(A, wb.Plan([louder(LAYER), add]))
    native = one.run(A).tensor("mlp_out", layers=LAYER)
    torch.testing.assert_close(
        first.tensor("mlp_out", layers=LAYER), 2 * (native + vector), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        then.tensor("mlp_out", layers=LAYER), 2 * native + vector, rtol=1e-5, atol=1e-5
    )
    assert first.plan.hash != then.plan.hash
    bias, turned = wb.reroute.bias(LAYER, {3: 2.0}), flipped(LAYER)
    assert not bias.commutes(turned) and not turned.commutes(bias)
    orders = [
        one.run(A, wb.Plan(edits)).tensor("router_logits", layers=LAYER)
        for edits in ([bias, turned], [turned, bias])
    ]
    assert torch.equal(*orders)  # what is read is the router's own output
    chosen = [
        one.run(A, wb.Plan(edits)).tensor("expert_scores", layers=LAYER)
        for edits in ([bias, turned], [turned, bias])
    ]
    assert not torch.equal(*chosen)


@pytest.mark.slow
def test_arrays_are_named_by_their_content_and_kept_in_the_store(bench: Any) -> None:
    one = bench("olmoe")
    vector = torch.linspace(-1, 2, 32).repeat(1, 1)
    edit = wb.mask.direction([LAYER], vector, op="add", site="mlp_out")
    assert edit.vector == wb.blob(vector) != wb.blob(vector + 1)
    plan = wb.Plan([edit])
    run = one.run(A, plan)
    text = plan.to_json()
    assert len(text) < 600 and wb.Plan.from_json(text) == plan
    kept = one.sql(
        "SELECT dtype, shape, octet_length(data) FROM blob WHERE blob = ?", [edit.vector.blob]
    ).fetchall()
    assert kept == [("float32", [1, 32], 128)]
    arrays = importlib.import_module("workbench.interventions.blob")._ARRAYS
    taken = arrays.pop(edit.vector.blob)
    again = one.run(A, wb.Plan.from_json(text))
    assert torch.equal(again.logits, run.logits) and (edit.vector.numbers == taken).all()
    arrays.pop(edit.vector.blob)
    with pytest.raises(EditRefused, match="not at hand"):
        bench("olmoe").run(A, wb.Plan.from_json(text))


def test_every_written_site_is_a_site_of_the_table() -> None:
    fields = SiteEdit.model_fields["site"].annotation
    names = {name for part in fields.__args__ for name in part.__args__}
    assert names <= set(WRITE_SITES)
