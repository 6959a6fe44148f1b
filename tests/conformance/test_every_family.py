"""What edits mean, on every family with a proved rule, against the model's own code.

The references know nothing of the workbench's rules: minus infinity is put into what the model's router itself computes (the
correction bias, or the product of input and weight), and the model goes on from there.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
import transformers
from torch.nn import functional as F

import workbench as wb
from workbench.anatomy import expert_inputs
from workbench.conformance.families import SPARSE, build
from workbench.errors import ModelError

IDS = [5, 17, 3, 60, 22, 9, 41, 8, 33, 19]
OTHER = IDS[::-1]
ROUTING = wb.Record(contribution=False, sparsity=False, attention_rank=False)
FAST = ("gpt_oss", "deepseek_v3")
OWN_K = ("phimoe", "gemma4_text", "longcat_flash")  # take their k from somewhere else than the router
Choice = dict[int, float]


@pytest.fixture(
    scope="module", params=[f if f in FAST else pytest.param(f, marks=pytest.mark.slow) for f in SPARSE]
)
def one(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A bench on the model's own kernels, with a tiny model of each family; opened once for all tests of a family."""
    try:
        model = build(request.param)
    except ModelError as error:
        pytest.skip(error.problem)
    with wb.open(model, kernels="model", store=":memory:") as opened:
        moes = [block.moe for block in opened.anatomy.blocks if block.moe is not None]
        if not any(moe.proved for moe in moes):
            pytest.skip(f"refused by name in this release of transformers: {moes[0].reason}")
        yield opened


def layer_of(one: Any) -> int:
    """The last layer whose rule is proved."""
    return int([b.layer for b in one.anatomy.blocks if b.moe is not None and b.moe.proved][-1])


def bare(one: Any, ids: list[int] = IDS) -> torch.Tensor:
    with torch.no_grad():
        return one.model(torch.tensor([ids]), use_cache=False).logits[0].float()


def routes(one: Any, run: Any) -> dict[tuple[int, int], Choice]:
    found: dict[tuple[int, int], Choice] = {}
    query = "SELECT layer, position, expert, weight FROM routing WHERE run = ?"
    for layer, position, expert, weight in one.sql(query, [run.id]).fetchall():
        found.setdefault((layer, position), {})[expert] = weight
    return found


def busiest(one: Any, run: Any, layer: int) -> list[int]:
    """Experts of ``layer``, the most used first."""
    counts = Counter(e for (n, _), choice in routes(one, run).items() if n == layer for e in choice)
    return [expert for expert, _ in counts.most_common()]


def near(one: torch.Tensor, other: torch.Tensor) -> bool:
    return float((one - other).norm() / other.norm()) < 2e-5


@contextmanager
def gone(moe: Any, banned: list[int], at: str) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """While it holds the model's own router finds ``banned`` at minus infinity; gives the ids and weights it chooses.

    ``at="logits"``: in the product of input and router weight, so that no softmax knows them. ``at="scores"``: in the
    correction bias, which selection alone reads; where a family has none, in the product all the same.
    """
    bias, chosen = moe.rule.bias(), []
    with ExitStack() as undo:
        if bias is not None:
            kept = bias.detach().clone()
            undo.callback(lambda: bias.data.copy_(kept))
            bias.data.reshape(-1)[banned] = -torch.inf
        if bias is None or at == "logits":
            linear, forward = F.linear, moe.router.forward

            def removed(*args: Any, **kwargs: Any) -> torch.Tensor:
                out = linear(*args, **kwargs)
                if out.shape[-1] != moe.num_experts:
                    return out
                return out.index_fill(-1, torch.tensor(banned), -torch.inf)

            def routed(*args: Any, **kwargs: Any) -> Any:
                with mock.patch.object(F, "linear", removed):
                    return forward(*args, **kwargs)

            undo.enter_context(mock.patch.object(moe.router, "forward", routed))

        def keep(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            chosen.append(expert_inputs(args, kwargs)[1:])

        undo.callback(moe.experts.register_forward_pre_hook(keep, with_kwargs=True).remove)
        yield chosen


def test_an_empty_plan_and_own_routes_change_no_bit_and_others_routes_are_exact(one: Any) -> None:
    want = bare(one)
    base = one.run(IDS, record=ROUTING)
    assert torch.equal(base.logits, want)
    assert torch.equal(one.run(IDS, wb.reroute.replay(base), record=None).logits, want)
    source = one.run(OTHER, record=ROUTING)
    taken = one.run(IDS, wb.reroute.replay(source, layers=layer_of(one)), record=ROUTING)
    own, theirs, after = (routes(one, run) for run in (base, source, taken))
    assert {c: x for c, x in after.items() if c[0] < layer_of(one)} == {
        c: x for c, x in own.items() if c[0] < layer_of(one)
    }
    for position in range(len(IDS)):
        assert after[layer_of(one), position] == theirs[layer_of(one), position]
    crossed = one.crossed(base, source, 7, layers=layer_of(one))
    total = crossed.router + crossed.expert + crossed.interaction
    assert total == pytest.approx(crossed.values["b", "b"] - crossed.values["a", "a"], abs=1e-5)
    assert crossed.values["b", "a"] == pytest.approx(float(taken.logits[-1].log_softmax(-1)[7]), abs=1e-6)


@pytest.mark.parametrize("at", ["scores", "logits"])
def test_a_ban_is_minus_infinity_in_the_models_own_router(one: Any, at: Any) -> None:
    layer = layer_of(one)
    moe = one.anatomy.layer(layer).moe
    base = one.run(IDS, record=ROUTING)
    banned = busiest(one, base, layer)[:2]
    run = one.run(IDS, wb.reroute.ban(layer, banned, at=at), record=ROUTING)
    with gone(moe, banned, at) as chosen:
        want = bare(one)
    ((ids, weights),) = chosen
    found = routes(one, run)
    rule = moe.rule
    # A softmax that is not normalised after the choice keeps its banned experts in the sum: there the reference's weights
    # are those of at="logits", and the right ones are the untouched probabilities.
    softmax = rule.score == "softmax" and not rule.normalise and rule.norm_p is None and rule.bias() is None
    # SparseMixer weighs a choice against near rivals, banned ones among them: the reference gives the choice alone.
    rivals = rule.score == "sparsemixer" and at == "scores"
    apart = at == "scores" and (softmax or rivals)
    if apart and softmax:
        native = base.tensor("router_logits", layers=layer, tokens="all").softmax(-1)
        weights = native.gather(-1, ids) * rule.scale
    for position in range(len(IDS)):
        wanted = dict(zip(ids[position].tolist(), weights[position].tolist(), strict=True))
        assert found[layer, position].keys() == wanted.keys()
        assert rivals or found[layer, position] == pytest.approx(wanted, rel=1e-4, abs=1e-6)
        assert not set(wanted) & set(banned)
    assert not near(run.logits, base.logits), "the ban must change something here"
    assert apart or near(run.logits, want)


def test_another_k_is_that_of_the_models_own_router_and_a_force_is_among_the_choices(one: Any) -> None:
    layer = layer_of(one)
    block, moe = one.anatomy.layer(layer), one.anatomy.layer(layer).moe
    base = one.run(IDS, record=ROUTING)
    used = busiest(one, base, layer)
    rare = next((e for e in range(moe.num_experts) if e not in used), used[-1])
    forced = routes(one, one.run(IDS, wb.reroute.force(layer, rare), record=ROUTING))
    own = routes(one, base)
    for position in range(len(IDS)):
        before, after = own[layer, position], forced[layer, position]
        assert rare in after and len(after) == moe.top_k and len(set(after) - set(before)) <= 1
        assert rare not in before or after == before
    if one.anatomy.model_type in OWN_K:
        return
    modules = [
        moe.router,
        one.model.get_submodule(moe.path),
        one.model.get_submodule(moe.router_path),
        block.module,
    ]
    owner = next(module for module in modules if hasattr(module, "top_k"))
    run = one.run(IDS, wb.reroute.top_k(layer, moe.top_k + 1), record=ROUTING)
    with mock.patch.object(owner, "top_k", moe.top_k + 1):
        assert near(run.logits, bare(one))
    assert {len(x) for (n, _), x in routes(one, run).items() if n == layer} == {moe.top_k + 1}
    ragged = one.run(IDS, wb.reroute.threshold(layer, 1.5 / moe.num_experts), record=ROUTING)
    assert torch.equal(one.run(IDS, wb.reroute.replay(ragged), record=None).logits, ragged.logits)


def test_capacity_really_drops_and_weights_are_remixed(one: Any) -> None:
    layer = layer_of(one)
    moe = one.anatomy.layer(layer).moe
    base = one.run(IDS, record=ROUTING)
    run = one.run(IDS, wb.reroute.capacity(layer, 0.75, causal=False), record=ROUTING)
    places = -(-3 * moe.top_k * len(IDS) // (4 * moe.num_experts))
    query = "SELECT max(choices) FROM expert_load(?) WHERE layer = ?"
    assert (
        one.sql(query, [run.id, layer]).fetchone()[0]
        <= places
        < one.sql(query, [base.id, layer]).fetchone()[0]
    )
    own, after = routes(one, base), routes(one, run)
    for position in range(len(IDS)):
        kept = after.get((layer, position), {})
        assert kept.items() <= own[layer, position].items()
    for normalise, total in (("one", 1.0), ("keep-sum", None)):
        mixed = wb.reroute.weights(layer, scale={busiest(one, base, layer)[0]: 3.0}, normalise=normalise)
        new = routes(one, one.run(IDS, mixed, record=ROUTING))
        for position in range(len(IDS)):
            wanted = sum(own[layer, position].values()) if total is None else total
            assert sum(new[layer, position].values()) == pytest.approx(wanted, rel=1e-5)


def test_with_a_cache_in_a_batch_and_before_a_suffix_the_same_choices_are_made(one: Any) -> None:
    layer = layer_of(one)
    banned = busiest(one, one.run(IDS, record=ROUTING), layer)[:2]
    plan = wb.Plan(
        [wb.reroute.ban(layer, banned, tokens=slice(2, None)), wb.reroute.uniform(layer, tokens=[1])]
    )
    native = one.model.generate(torch.tensor([IDS]), max_new_tokens=3, do_sample=False, pad_token_id=0)[
        0
    ].tolist()
    free = one.generate(IDS, 3, record=None)
    assert free.tokens.tolist() == native
    # What the model itself makes of a cache: linear attention adds up in another order.
    own = float((free.logits - one.run(native[:-1], record=None).logits).abs().max())
    assert own < 1e-3
    text = one.generate(IDS, 3, plan, record=ROUTING)
    whole = one.run(text.tokens[:-1].tolist(), plan, record=ROUTING)
    torch.testing.assert_close(text.logits, whole.logits, rtol=1e-3, atol=2e-4 + 2 * own)
    prefix = one.run(IDS, plan, record=ROUTING)
    batch = one.run([IDS, OTHER[:6], IDS], plans=[plan, None, None], record=ROUTING)
    alone = [prefix, one.run(OTHER[:6], record=ROUTING), one.run(IDS, record=ROUTING)]
    sets = [{c: set(x) for c, x in routes(one, run).items()} for run in (text, whole, prefix, *batch, *alone)]
    assert sets[0] == sets[1]
    assert all(sets[1][cell] == chosen for cell, chosen in sets[2].items())
    for row in range(3):
        assert sets[3 + row] == sets[6 + row]
        torch.testing.assert_close(batch[row].logits, alone[row].logits, rtol=1e-3, atol=2e-4)


def test_what_experiments_need_works(one: Any) -> None:
    layer = layer_of(one)
    run = one.run(IDS, record=ROUTING)
    own = run.logits.log_softmax(-1)[4, IDS[5]]
    table = one.counterfactual(run, token=4, layers=layer)
    row = table.iloc[0]
    redone = one.run(IDS, row["plan"], record=None).logits.log_softmax(-1)
    assert row["next_change"] == pytest.approx(float(redone[4, IDS[5]] - own), abs=2e-4)
    before = routes(one, run)[layer, 4]
    after = routes(one, one.run(IDS, row["plan"], record=ROUTING))[layer, 4]
    assert set(after) == set(before) - {row["removed"]} | {row["expert"]}
    moe = one.anatomy.layer(layer).moe
    assert len(table) == moe.top_k * (moe.num_experts - moe.top_k)
    for site in (
        "router_logits",
        "expert_scores",
        "expert_ids",
        "expert_weights",
        "expert_out",
        "resid_post",
    ):
        value = run.tensor(site, layers=layer, tokens="all")
        assert value.shape[0] == len(IDS) and value.isfinite().all(), site
    delta = one.param("router_logits", layers=[layer])
    loss = one.run(IDS, delta.edit()).logits[-1].log_softmax(-1)[7]
    loss.backward()
    slope = delta.tensor.grad
    assert slope is not None and slope.isfinite().all()
    step = 3e-3
    with torch.no_grad():
        along = slope / slope.norm().clamp(min=1e-12)
        while True:
            probes = []
            for sign in (1, -1):
                delta.tensor.copy_(sign * step * along)
                probes.append(one.run(IDS, delta.freeze(), record=ROUTING))
            below, above = ({c: set(x) for c, x in routes(one, probe).items()} for probe in probes)
            if below == above:
                break
            step /= 4  # a choice flips between the two: the loss jumps there, and has no slope
            assert step > 1e-5
        values = [probe.logits[-1].double().log_softmax(-1)[7] for probe in probes]
    assert float(values[0] - values[1]) / (2 * step) == pytest.approx(float(slope.norm()), rel=0.1, abs=2e-3)


@pytest.mark.slow
def test_experts_give_one_result_in_every_implementation(one: Any, bench: Any) -> None:
    """Eager, grouped and ours: the same choices and logits in fp32, with and without an edit; and one layer on one input in
    half precision within its rounding of what fp32 gives."""
    layer = layer_of(one)
    first = one.run(IDS, record=ROUTING)
    plan = wb.reroute.ban(layer, busiest(one, first, layer)[:2])
    base, banned = first, one.run(IDS, plan, record=ROUTING)
    with torch.no_grad():
        x = first.tensor("resid_pre", layers=layer, tokens="all").reshape(len(IDS), -1)[
            :, : one.anatomy.hidden_size
        ]
        ids, weights = (
            first.tensor(site, layers=layer, tokens="all") for site in ("expert_ids", "expert_weights")
        )
        want = _called(one, layer, x, ids, weights)
    model = build(one.anatomy.model_type)  # the same weights, without what an open bench has attached
    registered = hasattr(one.anatomy.layer(layer).moe.experts, "_apply_gate")
    for name in ("eager", "grouped_mm", "ours") if registered else ("own", "ours"):
        if name in ("eager", "grouped_mm"):
            model.set_experts_implementation(name)
        kernels: Any = "auto" if name == "ours" else "model"
        other = bench(model, kernels=kernels, store=":memory:")
        for edit, reference in ((None, base), (plan, banned)):
            run = other.run(IDS, edit, record=ROUTING)
            assert near(run.logits, reference.logits), name
            own, theirs = routes(one, reference), routes(other, run)
            assert {c: set(x) for c, x in theirs.items()} == {c: set(x) for c, x in own.items()}, name
        other.close()
        halved = in_half(model)
        try:
            with torch.no_grad():
                halved(torch.tensor([IDS]))
        except RuntimeError as error:
            pytest.skip(f"transformers {transformers.__version__} cannot run it in bfloat16: {error}")
        half = bench(halved, kernels=kernels, store=":memory:")
        with torch.no_grad():
            got = _called(half, layer, x.bfloat16(), ids, weights.bfloat16())
        assert float((got.float() - want).norm() / want.norm()) < 0.02, name
        half.close()


def in_half(model: Any) -> Any:
    """A copy in bf16, but for the modules that the family says stay in fp32, as loading a checkpoint leaves them."""
    made = copy.deepcopy(model).to(torch.bfloat16)
    whole = dict((*model.named_parameters(), *model.named_buffers()))
    kept = tuple(getattr(made, "_keep_in_fp32_modules_strict", None) or ())
    for name, tensor in (*made.named_parameters(), *made.named_buffers()):
        if any(re.search(rf"(^|\.){re.escape(part)}(\.|$)", name) for part in kept):
            tensor.data = whole[name].data.clone()
    return made


def _called(one: Any, layer: int, x: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The bank's output for a choice, its arguments given as the model gives them."""
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def keep(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append((args, kwargs))

    bank = one.anatomy.layer(layer).moe.experts
    handle = bank.register_forward_pre_hook(keep, with_kwargs=True)
    one.model(torch.tensor([IDS]), use_cache=False)
    handle.remove()
    args, kwargs = seen[0]
    hidden, own_ids, own_weights = expert_inputs(args, kwargs)
    swap = {
        id(hidden): x.reshape(hidden.shape).to(hidden.dtype), id(own_ids): ids.to(own_ids.dtype),
        id(own_weights): weights.to(own_weights.dtype),
    }  # fmt: skip
    out = bank(
        *(swap.get(id(v), v) for v in args), **{name: swap.get(id(v), v) for name, v in kwargs.items()}
    )
    return torch.as_tensor(out).reshape(len(IDS), -1)
