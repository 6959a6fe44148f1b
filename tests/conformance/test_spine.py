"""What every family is held to, on the model's own kernels and on ours: identity, effect, read-back, refusal, removal.

The references are independent of the workbench: routers rewritten from the published formula, blocks really removed,
projections really zeroed.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_models import FAMILIES, MOE_FAMILIES, build_tiny, each
from torch.nn import functional as F

import workbench as wb
from workbench.errors import EditRefused

IDS = [5, 17, 3, 60, 22, 9, 41, 8, 33, 2, 19, 50]
KERNELS = ("model", "auto")


@pytest.fixture(params=KERNELS)
def kernels(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def bare_logits(model: Any, ids: list[int] = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0].float()


def routes(bench: Any, run: Any) -> dict[tuple[int, int], dict[int, float]]:
    """(layer, position) -> expert -> weight, as recorded."""
    found: dict[tuple[int, int], dict[int, float]] = {}
    for layer, position, expert, weight in bench.sql(
        "SELECT layer, position, expert, weight FROM routing WHERE run = ?", [run.id]
    ).fetchall():
        found.setdefault((layer, position), {})[expert] = weight
    return found


class ReferenceRouter(torch.nn.Module):
    """The softmax router of these families, restated: optional logit bias, banned experts, its own order of steps."""

    def __init__(
        self,
        router: Any,
        family: str,
        k: int,
        ban: tuple[int, ...] = (),
        bias: dict[int, float] | None = None,
    ):
        super().__init__()
        self.weight, self.k, self.ban, self.bias = router.weight, k, list(ban), bias or {}
        self.normalise = family in ("olmoe-norm", "mixtral", "qwen3_moe")
        self.calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, hidden: torch.Tensor) -> Any:
        logits = hidden.reshape(-1, hidden.shape[-1]) @ self.weight.T
        for expert, delta in self.bias.items():
            logits = logits + delta * F.one_hot(torch.tensor(expert), logits.shape[-1])
        probabilities = logits.double().softmax(-1)
        legal = probabilities.clone()
        legal[:, self.ban] = -1.0
        ids = legal.topk(self.k, dim=-1).indices
        weights = probabilities.gather(-1, ids)
        if self.normalise:
            weights = weights / weights.sum(-1, keepdim=True)
        self.calls.append((ids, weights))
        return logits, weights.float(), ids


def reference_model(family: str, layer: int, **change: Any) -> tuple[Any, ReferenceRouter]:
    model = build_tiny(family)
    block = model.model.layers[layer].mlp
    block.gate = ReferenceRouter(block.gate, family, 2, **change)
    return model, block.gate


# Identity


@pytest.mark.slow
@pytest.mark.parametrize("family", each(FAMILIES))
def test_the_models_own_kernels_give_the_untouched_models_bits(bench: Any, family: str) -> None:
    model = build_tiny(family)
    want = bare_logits(model)
    assert torch.equal(bench(model, kernels="model").run(IDS).logits, want)


@pytest.mark.slow
@pytest.mark.parametrize("family", each(FAMILIES))
def test_our_kernels_agree_with_the_model(bench: Any, family: str) -> None:
    model = build_tiny(family)
    want = bare_logits(model)
    one = bench(model)
    assert one.kernels == "cpu"
    assert {p.path for p in one.kernel_paths if p.part == "experts"} == (
        set() if family == "llama" else {"ours"}
    )
    assert float((one.run(IDS).logits - want).norm() / want.norm()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("family", each(FAMILIES))
def test_recording_changes_no_bit(bench: Any, family: str, kernels: str) -> None:
    one = bench(family, kernels=kernels)
    off = one.run(IDS, record=None)
    assert torch.equal(one.run(IDS, record=wb.Record(scores=True)).logits, off.logits)
    assert off.id is None


@pytest.mark.slow
@pytest.mark.parametrize("family", each(FAMILIES))
def test_identity_plans_change_no_bit(bench: Any, family: str, kernels: str) -> None:
    one = bench(family, kernels=kernels)
    base = one.run(IDS)
    plans = [wb.Plan(), wb.Plan([wb.skip.block(1).model_copy(update={"enabled": False})])]
    if family != "llama":
        plans.append(wb.Plan([wb.reroute.bias("all", [0.0] * 8)]))
        plans.append(wb.Plan([wb.reroute.replay(base)]))
        chosen = {e for experts in routes(one, base).values() for e in experts}
        used = {
            layer: {e for (n, _), x in routes(one, base).items() if n == layer for e in x}
            for layer in range(3)
        }
        idle = [wb.reroute.ban(n, e) for n in range(3) for e in sorted(set(range(8)) - used[n])[:1]]
        assert chosen
        plans.append(wb.Plan(idle))
    for plan in plans:
        run = one.run(IDS, plan)
        assert torch.equal(run.logits, base.logits), plan.describe()
        assert one.sql("SELECT count(*) FROM router WHERE run = ? AND edited", [run.id]).fetchone() == (0,)


# Re-routing


@pytest.mark.slow
@pytest.mark.parametrize("family", each(MOE_FAMILIES))
def test_ban_equals_a_router_whose_score_is_minus_infinity(bench: Any, family: str, kernels: str) -> None:
    one = bench(family, kernels=kernels)
    base = one.run(IDS)
    banned = tuple(sorted({e for (layer, _), x in routes(one, base).items() if layer == 1 for e in x})[:3])
    run = one.run(IDS, wb.reroute.ban(1, banned))
    model, router = reference_model(family, 1, ban=banned)
    want = bare_logits(model)
    assert float((run.logits - base.logits).abs().max()) > 1e-3, "the ban must change something here"
    assert float((run.logits - want).norm() / want.norm()) < 1e-5
    recorded = routes(one, run)
    ids, weights = router.calls[0]
    for position in range(len(IDS)):
        wanted = dict(zip(ids[position].tolist(), weights[position].tolist(), strict=True))
        assert recorded[1, position] == pytest.approx(wanted, rel=1e-5)
        assert not set(recorded[1, position]) & set(banned)


@pytest.mark.slow
@pytest.mark.parametrize("family", each(MOE_FAMILIES))
def test_bias_equals_a_router_with_that_bias(bench: Any, family: str, kernels: str) -> None:
    one = bench(family, kernels=kernels)
    delta = {2: 1.7, 5: -0.9}
    run = one.run(IDS, wb.reroute.bias(0, delta))
    want = bare_logits(reference_model(family, 0, bias=delta)[0])
    assert float((run.logits - one.run(IDS, record=None).logits).abs().max()) > 1e-3
    assert float((run.logits - want).norm() / want.norm()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("family", each(MOE_FAMILIES))
def test_force_puts_the_expert_among_the_choices_and_native_is_kept(
    bench: Any, family: str, kernels: str
) -> None:
    one = bench(family, kernels=kernels)
    base, run = one.run(IDS), None
    run = one.run(IDS, wb.reroute.force(2, 6, tokens=[3, 4]))
    before, after = routes(one, base), routes(one, run)
    assert all(6 in after[2, position] for position in (3, 4))
    assert all(after[cell] == before[cell] for cell in before if cell[0] < 2 or cell[1] < 3)
    rows = one.sql(
        "SELECT position, edited, native FROM router WHERE run = ? AND layer = 2 ORDER BY position", [run.id]
    ).fetchall()
    for position, edited, native in rows:
        forced_in = position in (3, 4) and 6 not in before[2, position]
        assert edited == forced_in
        assert (set(native) == set(before[2, position])) if forced_in else native is None


@pytest.mark.slow
@pytest.mark.parametrize("family", each(MOE_FAMILIES))
def test_replay_of_another_run_is_exact_in_ids_and_weights(bench: Any, family: str, kernels: str) -> None:
    one = bench(family, kernels=kernels)
    source = one.run(IDS)
    other = list(reversed(IDS))
    native, crossed = one.run(other), one.run(other, wb.reroute.replay(source))
    assert routes(one, crossed) == routes(one, source)
    assert routes(one, native) != routes(one, source)
    assert not torch.equal(crossed.logits, native.logits)


# Skips and masks


@pytest.mark.slow
@pytest.mark.parametrize("family", each(FAMILIES))
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_skipped_block_equals_a_model_without_it(bench: Any, family: str, kernels: str, layer: int) -> None:
    one = bench(family, kernels=kernels)
    run = one.run(IDS, wb.skip.block(layer))
    model = build_tiny(family)
    del model.model.layers[layer]
    model.config.num_hidden_layers = 2
    want = bare_logits(model)
    assert float((run.logits - want).norm() / want.norm()) < 1e-5
    events = one.sql("SELECT DISTINCT layer, unit, event, kv FROM depth WHERE run = ?", [run.id]).fetchall()
    assert events == [(layer, "block", "skip", "absent")]
    assert one.sql(
        "SELECT count(*) FROM contribution WHERE run = ? AND layer = ?", [run.id, layer]
    ).fetchone() == (0,)


@pytest.mark.slow
@pytest.mark.parametrize("family", each(FAMILIES))
def test_masked_heads_equal_zeroed_columns_of_the_projection(bench: Any, family: str, kernels: str) -> None:
    one = bench(family, kernels=kernels)
    run = one.run(IDS, wb.mask.heads(1, [0, 3]))
    model = build_tiny(family)
    projection = model.model.layers[1].self_attn.o_proj.weight
    with torch.no_grad():
        width = projection.shape[1] // 4
        for head in (0, 3):
            projection[:, head * width : (head + 1) * width] = 0
    want = bare_logits(model)
    assert float((run.logits - one.run(IDS, record=None).logits).abs().max()) > 1e-3
    assert float((run.logits - want).norm() / want.norm()) < 1e-5


# Generation


def _plans(family: str) -> list[wb.Plan]:
    some = [wb.Plan(), wb.Plan([wb.skip.block(0)]), wb.Plan([wb.mask.heads(1, 2)])]
    if family != "llama":
        some.append(wb.Plan([wb.reroute.ban("all", [1, 4]), wb.reroute.force(2, 7), wb.skip.block(1)]))
    return some


@pytest.mark.slow
@pytest.mark.parametrize("family", each(FAMILIES))
def test_cached_generation_equals_an_uncached_pass(bench: Any, family: str, kernels: str) -> None:
    one = bench(family, kernels=kernels)
    for plan in _plans(family):
        run = one.generate(IDS, 8, plan)
        whole = one.run(run.tokens[:-1].tolist(), plan)
        assert run.logits.shape == whole.logits.shape
        torch.testing.assert_close(run.logits, whole.logits, rtol=1e-4, atol=1e-4)
        if family != "llama":
            ours, theirs = routes(one, run), routes(one, whole)
            assert {cell: set(experts) for cell, experts in ours.items()} == {
                c: set(x) for c, x in theirs.items()
            }


@pytest.mark.slow
@pytest.mark.parametrize("family", each(FAMILIES))
def test_generation_is_transformers_own(bench: Any, family: str, kernels: str) -> None:
    model = build_tiny(family)
    want = model.generate(torch.tensor([IDS]), max_new_tokens=8, do_sample=False, pad_token_id=0)[0]
    assert bench(model, kernels=kernels).generate(IDS, 8).tokens.tolist() == want.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("family", each(MOE_FAMILIES))
def test_an_edit_of_generated_tokens_leaves_the_prompt_alone(bench: Any, family: str, kernels: str) -> None:
    one = bench(family, kernels=kernels)
    base = one.generate(IDS, 6)
    run = one.generate(IDS, 6, wb.reroute.ban("all", [0, 1, 2], tokens="generated"))
    before, after = routes(one, base), routes(one, run)
    assert all(after[cell] == before[cell] for cell in before if cell[1] < len(IDS))
    assert not any(set(x) & {0, 1, 2} for cell, x in after.items() if cell[1] >= len(IDS))
    assert any(set(x) & {0, 1, 2} for cell, x in before.items() if cell[1] >= len(IDS))


# Batches


@pytest.mark.slow
@pytest.mark.parametrize("family", each(FAMILIES))
def test_a_batch_gives_each_row_what_it_gets_alone(bench: Any, family: str, kernels: str) -> None:
    one = bench(family, kernels=kernels)
    prompts = [IDS, IDS[:5], IDS[3:], IDS[::-1]]
    plans = [None, wb.mask.heads(1, 0), wb.skip.block(1), None]
    if family != "llama":
        plans[3] = wb.reroute.ban("all", [2, 3])
    batch = one.run(prompts, plans=plans)
    for prompt, plan, run in zip(prompts, plans, batch, strict=True):
        alone = one.run(prompt, plan)
        torch.testing.assert_close(run.logits, alone.logits, rtol=1e-4, atol=1e-4)
        assert run.loss == pytest.approx(alone.loss, rel=1e-4)
        if family != "llama":
            assert {c: set(x) for c, x in routes(one, run).items()} == {
                c: set(x) for c, x in routes(one, alone).items()
            }
        for table in ("contribution", "sparsity", "router", "token"):
            count = f"SELECT count(*) FROM {table} WHERE run = ?"
            assert one.sql(count, [run.id]).fetchone() == one.sql(count, [alone.id]).fetchone(), table


# Refusal and removal


def test_re_routing_a_dense_model_is_refused(bench: Any) -> None:
    one = bench("llama")
    for edit in (wb.reroute.ban(0, 1), wb.reroute.ban("all", 1)):
        with pytest.raises(EditRefused):
            one.run(IDS, edit)


@pytest.mark.slow
@pytest.mark.parametrize("family", each(FAMILIES))
def test_closing_leaves_the_model_byte_identical_and_the_users_hooks_alone(bench: Any, family: str) -> None:
    model = build_tiny(family)
    seen: list[str] = []
    mine = model.model.layers[0].register_forward_hook(lambda *_: seen.append("mine"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = copy.deepcopy(model.config)
    want = bare_logits(model)
    one = bench(model)
    one.run(IDS, wb.skip.block(1))
    with pytest.raises(EditRefused):
        one.run(IDS, wb.mask.heads(0, 99))
    one.close()
    assert torch.equal(bare_logits(model), want)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.config._attn_implementation == config._attn_implementation
    assert model.config._experts_implementation == config._experts_implementation
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    assert hooks == 1 and mine.id in model.model.layers[0]._forward_hooks
    assert "forward" not in model.model.layers[1].__dict__
    assert seen
