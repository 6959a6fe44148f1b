"""Matched random controls: the same amount of change on other units, counted in the plan where the plan says it, and in the
rows of the runs where only a run does."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import CONFIGS, build_tiny
from transformers import AutoConfig, AutoModelForCausalLM

import workbench as wb
from workbench.errors import PlanError
from workbench.experiments import beside_oracle, matched_random, sweep
from workbench.experiments.depth_router import FoundPath, plan_of, train_paths
from workbench.runtime.artefacts import Artefact
from workbench.runtime.depth.routers import DepthRouter
from workbench.runtime.sae import Sae

IDS = [(7 * n * n + 3 * n) % 64 for n in range(60)]
TEXTS = [[(a * n * n + 3 * n) % 64 for n in range(24)] for a in (1, 5, 7)]
LONG = [(7 * n * n + 3 * n) % 64 for n in range(300)]
LAYERS = 8


def dense(**changed: Any) -> Any:
    """A tiny dense model with other numbers of layers or positions."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **CONFIGS["llama"] | changed))
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.15)
    return model.eval()


@pytest.fixture(scope="module")
def deep() -> Any:
    """A dense model of eight layers, so that there is something to draw from."""
    one = wb.open(dense(num_hidden_layers=LAYERS), store=":memory:")
    yield one
    one.close()


@pytest.fixture(scope="module")
def sparse() -> Any:
    one = wb.open(build_tiny("olmoe"), store=":memory:")
    yield one
    one.close()


def controls(one: Any, plan: Any, like: Any = None, count: int = 6) -> list[wb.Plan]:
    """Several controls of a plan, each drawn twice and accepted by the model; not all the same."""
    plan = plan if isinstance(plan, wb.Plan) else wb.Plan([plan])
    found = [matched_random(plan, one.anatomy, seed, like=like) for seed in range(count)]
    assert found == [matched_random(plan, one.anatomy, seed, like=like) for seed in range(count)]
    for control in found:
        control.check(one.anatomy)
    assert len({control.hash for control in found}) > 1
    return found


def acts(one: Any, control: wb.Plan, ids: list[int] = IDS) -> Any:
    """A run of the control, which must change something."""
    run = one.run(ids, control)
    assert not torch.equal(run.logits, one.run(ids, record=None).logits)
    return run


def shares(one: Any, run: Any, unit: str = "block") -> dict[int, float]:
    """Share of the decided tokens that ran, by layer."""
    rows = one.sql(
        "SELECT layer, avg(CAST(event <> 'skip' AS INTEGER)) FROM depth WHERE run = ? AND unit = ? GROUP BY layer",
        [run.id, unit],
    ).fetchall()
    return dict(rows)


def near(found: float, wanted: float, drawn: int) -> bool:
    """Whether a share of ``drawn`` independent draws is where chance puts it (four standard errors)."""
    return abs(found - wanted) <= 4 * max(wanted * (1 - wanted), 1 / drawn) ** 0.5 / drawn**0.5


# What the plan says


@settings(max_examples=60)
@given(st.lists(st.integers(0, LAYERS - 1), min_size=1, max_size=12), st.integers(0, 1000))
def test_a_path_keeps_its_steps_skips_repeats_order_and_ends(deep: Any, path: list[int], seed: int) -> None:
    plan = wb.Plan([wb.skip.path(path)])
    (control,) = matched_random(plan, deep.anatomy, seed)
    other = list(control.path)

    def times(of: list[int]) -> list[int]:
        return sorted(Counter(of).get(layer, 0) for layer in range(LAYERS))

    def turned(of: list[int]) -> int:
        return sum(one > two for one, two in combinations(of, 2))

    assert len(other) == len(path) and times(other) == times(path)
    first, last = path[0] == 0, path[-1] == LAYERS - 1 and len(path) > 1
    assert (not first or other[0] == 0) and (not last or other[-1] == LAYERS - 1)
    inside = slice(int(first), len(path) - int(last))
    assert turned(other[inside]) == turned(path[inside])
    assert (control.kv, control.enabled) == ("per-visit", True)


def test_paths_act_and_differ(deep: Any) -> None:
    found = controls(deep, wb.skip.path([0, 1, 3, 4, 4, 5, 7]))
    assert all(plan.edits[0].path[0] == 0 and plan.edits[0].path[-1] == 7 for plan in found)
    for control in found[:3]:
        acts(deep, control)


@settings(max_examples=40)
@given(st.permutations(range(LAYERS)), st.integers(0, 1000))
def test_layers_change_their_names_and_none_falls_together(deep: Any, order: list[int], seed: int) -> None:
    a, b, c, d, e, f, *_ = order
    plan = wb.Plan([
        wb.skip.block([a, b]), wb.skip.repeat(c, 3, kv="share-first"), wb.skip.attention(d, tokens=[3], kv="compute"),
        wb.skip.alias(e, f), wb.skip.mlp(f),
    ])  # fmt: skip
    block, repeat, attention, alias, mlp = matched_random(plan, deep.anatomy, seed)
    named = [*block.layers, *repeat.layers, *attention.layers, *alias.layers, alias.source]
    assert len(named) == len(set(named)) == 6 and mlp.layers == (alias.source,), "what was shared is shared"
    assert (repeat.times, repeat.kv, attention.tokens, attention.kv) == (3, "share-first", (3,), "compute")
    assert matched_random(plan, deep.anatomy, seed) == wb.Plan([block, repeat, attention, alias, mlp])


@pytest.mark.slow
def test_static_depth_acts(deep: Any) -> None:
    for edit in (
        wb.skip.repeat([2, 5], 2),
        wb.skip.alias([2, 5], 1),
        wb.skip.alias(3, 1, unit="mlp"),
        wb.skip.mlp([1, 2]),
    ):
        for control in controls(deep, edit)[:2]:
            acts(deep, control)
    # A copy from the layer before cannot be had in the first: those draws are not taken.
    for control in controls(deep, wb.skip.block([2, 3, 4, 5, 6, 7], tokens=[4], kv="copy-last"), count=3):
        assert 0 not in control.edits[0].layers and len(control.edits[0].layers) == 6


@pytest.mark.slow
def test_schedules_skip_as_many_layers(deep: Any) -> None:
    for edit, count in (
        (wb.skip.policy("uniform", speed_up=1.6), 3), (wb.skip.policy("middle", radius=1.6), 4),
        (wb.skip.policy("middle", radius=1.6, unit="attention", kv="absent", phase="prefill"), 4),
        (wb.skip.policy("uniform", speed_up=1.6, protect=[0, 5]), 3),
    ):  # fmt: skip
        native = deep.run(IDS, edit)
        for control in controls(deep, edit)[:3]:
            (made,) = control
            assert len(made.layers) == count and not {0, LAYERS - 1} & set(made.layers)
            assert made.phase == edit.phase and made.kv == edit.kv
            run = acts(deep, control)
            events = "SELECT unit, count(*) FROM depth WHERE run = ? AND event = 'skip' GROUP BY unit"
            assert deep.sql(events, [run.id]).fetchall() == deep.sql(events, [native.id]).fetchall()
            kept = (
                "SELECT count(*) FROM depth WHERE run = ? AND event = 'skip' AND list_contains(?, position)"
            )
            assert deep.sql(kept, [run.id, list(edit.protect)]).fetchone() == (0,)


@pytest.mark.slow
def test_decaying_depth_leaves_out_as_many_layers_at_every_token(deep: Any) -> None:
    edit = wb.skip.policy("decay", alpha=0.8, first=2, min_layers=3)

    def gone(run: Any) -> dict[int, list[int]]:
        rows = deep.sql(
            "SELECT position, layer FROM depth WHERE run = ? AND event = 'skip' ORDER BY ALL", [run.id]
        ).fetchall()
        found: dict[int, list[int]] = {}
        for position, layer in rows:
            found.setdefault(position, []).append(layer)
        return found

    native = gone(deep.generate(IDS[:20], 9, edit))
    assert [len(native[p]) for p in range(20, 28)] == [2, 3, 4, 5, 5, 5, 5, 5]
    sets = set()
    for control in controls(deep, edit)[:3]:
        other = gone(deep.generate(IDS[:20], 9, control))
        assert {p: len(layers) for p, layers in other.items()} == {
            p: len(layers) for p, layers in native.items()
        }
        assert all(min(layers) >= 2 for layers in other.values())
        sets |= {tuple(layers) for layers in other.values()}
    assert len(sets) > 8, "every token draws anew"


@pytest.mark.slow
def test_capacities_and_shares_stay(deep: Any, sparse: Any) -> None:
    width = deep.anatomy.hidden_size
    router = DepthRouter("linear", {"3.weight": torch.randn(width), "3.bias": torch.zeros(1)})
    name = deep.add(router.artefact())
    source = deep.calibrate(TEXTS)
    for edit, kept in (
        (wb.skip.tokens([2, 3], capacity=0.5, kv="compute", protect=0), {"capacity": 0.5, "protect": (0,)}),
        (wb.skip.tokens(3, capacity=0.25, score="router", router=name, gate="both"), {"capacity": 0.25, "gate": "none"}),
        (wb.skip.tokens(3, capacity=0.25, score="position"), {"threshold": 0.75}),
        (wb.skip.policy("random", share=0.4), {"share": 0.4}),
        (wb.mask.heads(1, ratio=0.5, criterion="magnitude"), {"ratio": 0.5, "criterion": "random"}),
        (wb.mask.neurons(2, ratio=0.5, criterion="activation", source=source), {"ratio": 0.5, "source": None}),
        (wb.mask.activations(2, sparsity=0.5, source=source), {"method": "random", "sparsity": 0.5}),
        (wb.mask.attention(1, "pooled", keep=0.5, block=16), {"pattern": "random", "keep": 0.5}),
        (wb.mask.weights(1, "q_proj", ratio=0.3), {"criterion": "random", "ratio": 0.3}),
        (wb.mask.weights(1, shape="n:m", n=2, m=4), {"n": 2, "m": 4, "parts": ()}),
    ):  # fmt: skip
        for control in controls(deep, edit)[:2]:
            (made,) = control
            assert {name: getattr(made, name) for name in kept} == kept and made.layers == edit.layers
            acts(deep, control)
    # An evenly spread share is a share of any text, not one that begins with the first token.
    even = deep.run(IDS, wb.skip.tokens([2, 3], capacity=0.25, score="position"))
    spread = [
        acts(deep, c)
        for c in controls(deep, wb.skip.tokens([2, 3], capacity=0.25, score="position"), count=12)
    ]
    assert set(shares(deep, even).values()) == {0.25}
    assert near(float(np.mean([list(shares(deep, run).values()) for run in spread])), 0.25, 12 * 2 * 60)
    (given,) = controls(sparse, wb.mask.activations(1, "given", neurons=range(8)))[0]
    assert len(given.neurons) == 8
    acts(sparse, wb.Plan([given]))


@pytest.mark.slow
def test_given_weight_masks_become_random_ones_of_the_same_share(deep: Any, sparse: Any) -> None:
    random = torch.Generator().manual_seed(0)
    layer = deep.model.model.layers[1]
    masks = {
        f"1.{part}": torch.rand(weight.shape, generator=random) < share
        for part, weight, share in (
            ("q_proj", layer.self_attn.q_proj.weight, 0.7), ("up_proj", layer.mlp.up_proj.weight, 0.3)
        )
    }  # fmt: skip
    plan = wb.mask.weights(
        1, ["q_proj", "up_proj"], criterion="given", source=deep.add(Artefact("masks", masks))
    )
    native = deep.run(IDS, plan)
    work = (
        "SELECT layer, sum(skipped) / sum(executed + skipped) FROM cost "
        "WHERE run = ? AND op = 'masked_matmul' GROUP BY layer"
    )
    ((_, wanted),) = deep.sql(work, [native.id]).fetchall()
    for control in controls(deep, plan)[:2]:
        assert {edit.parts for edit in control} == {("q_proj",), ("up_proj",)}
        ((_, found),) = deep.sql(work, [acts(deep, control).id]).fetchall()
        assert found == pytest.approx(wanted, abs=0.5 / 32)  # whole entries of rows of 32
    bank = sparse.model.model.layers[1].mlp.experts
    many = {
        f"1.experts.{e}.{name}": torch.rand(getattr(bank, name)[e].shape, generator=random) < 0.4
        for e in range(8) for name in ("gate_up_proj", "down_proj")
    }  # fmt: skip
    plan = wb.mask.weights(1, "experts", criterion="given", source=sparse.add(Artefact("masks", many)))
    ((edit,),) = {tuple(control) for control in controls(sparse, plan)[:1]}
    assert edit.parts == ("experts",) and edit.ratio == pytest.approx(0.6, abs=0.02)
    acts(sparse, wb.Plan([edit]))


# What a run says


@pytest.mark.slow
def test_thresholds_keep_the_share_of_tokens_of_each_layer(deep: Any) -> None:
    norms = deep.run(IDS, record=None).tensor("resid_pre", layers=[2, 5]).norm(dim=-1)
    for edit in (
        wb.skip.tokens([2, 5], threshold=float(norms[0].quantile(0.3)), kv="compute"),
        wb.skip.tokens([2, 5], threshold=float(norms[1].quantile(0.6)), unit="mlp", protect=[0, 1, 2], phase="prefill"),
        wb.skip.tokens(5, threshold=float(norms[1].quantile(0.5)), unit="attention", where="position >= 10"),
        wb.skip.tokens(5, threshold=0.02, score="attention", causal=False),
    ):  # fmt: skip
        unit = {"block": "block", "mlp": "mlp", "attention": "attn"}[edit.unit]
        native = deep.run(IDS, edit)
        assert native.id is not None
        wanted, pooled = shares(deep, native, unit), {}
        for control in controls(deep, edit, native, count=12):
            assert all(made.score == "random" and made.causal and made.kv == edit.kv for made in control)
            run = acts(deep, control)
            for layer, share in shares(deep, run, unit).items():
                pooled.setdefault(layer, []).append(share)
            told = "SELECT count(*) FROM depth WHERE run = ? AND unit = ? AND event = 'skip' AND list_contains(?, position)"
            assert deep.sql(
                told, [run.id, unit, [*edit.protect, *([3] if edit.where else [])]]
            ).fetchone() == (0,)
        for layer, share in wanted.items():
            found = float(np.mean(pooled.get(layer, [1.0])))  # a layer that ran every token is left alone
            assert near(found, share, 12 * 50), (edit.describe(), layer)
        with pytest.raises(PlanError, match="Only a run knows"):
            matched_random(wb.Plan([edit]), deep.anatomy, 0)
    # Of several runs, the share over all their tokens.
    edit = wb.skip.tokens(5, threshold=float(norms[1].quantile(0.5)))
    both = [deep.run(IDS, edit), deep.run(IDS[40:], edit)]
    one, other = (shares(deep, run)[5] for run in both)
    (pooled_edit,) = matched_random(wb.Plan([edit]), deep.anatomy, 0, like=both)
    assert pooled_edit.threshold == pytest.approx(1 - (60 * one + 20 * other) / 80) and one != other


@pytest.mark.slow
def test_early_exit_and_routers_keep_their_shares_and_repeats(deep: Any, bench: Any) -> None:
    edit = wb.skip.policy("early_exit", similarity=0.9, first=3)
    native = deep.run(IDS, edit)
    wanted = shares(deep, native)
    assert 0.05 < min(wanted.values()) < 1
    pooled: dict[int, list[float]] = {}
    for control in controls(deep, edit, native, count=12):
        assert all(made.policy == "random" and made.layers[0] > 3 for made in control)
        for layer, share in shares(deep, acts(deep, control)).items():
            pooled.setdefault(layer, []).append(share)
    for layer, found in pooled.items():
        assert near(float(np.mean(found)), wanted[layer], 12 * 60)
    one = bench("llama")
    paths = [FoundPath((1, 0, 2), 0.0, 0.0), FoundPath((1, 1, 1), 0.0, 0.0), FoundPath((1, 0, 2), 0.0, 0.0)]
    plan = plan_of(one, train_paths(one, TEXTS, paths, steps=150, seed=0))
    native = one.run(TEXTS[0], plan)
    counts = "SELECT layer, event, count(*) FROM depth WHERE run = ? GROUP BY ALL"
    told = {(layer, event): count for layer, event, count in one.sql(counts, [native.id]).fetchall()}
    repeated = {layer for layer, event in told if event == "repeat"}
    assert {event for _, event in told} >= {"skip", "repeat"}
    for control in controls(one, plan, native)[:3]:
        found = one.sql(counts, [acts(one, control, TEXTS[0]).id]).fetchall()
        mine = {(layer, event): count for layer, event, count in found}
        for layer in (1, 2):
            for event in ("skip", "repeat"):
                count, wanted_count = mine.get((layer, event), 0), told.get((layer, event), 0)
                assert count == wanted_count if layer in repeated else near(count / 24, wanted_count / 24, 24)
    with pytest.raises(PlanError, match="positions of its own"):
        matched_random(plan, one.anatomy, 0, like=[native, one.run(TEXTS[0], plan)])


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["auto", "model"])
def test_attention_masks_keep_the_density_of_each_layer(bench: Any, kernels: str) -> None:
    one = bench(dense(max_position_embeddings=512), kernels=kernels)
    densities = "SELECT layer, avg(density) FROM attention_mask WHERE run = ? AND head >= ? GROUP BY layer ORDER BY layer"
    for edit in (
        wb.mask.attention([1, 2], "window", window=16, block=16),
        wb.mask.attention([1, 2], "oracle", mass=0.5, block=16, sinks=0),
        wb.mask.attention(1, "explicit", blocks=[(2, 1), (3, 0), (9, 4), (18, 0), (18, 7)], block=16, sinks=0),
        wb.mask.attention(1, "strided", stride=2, block=16, heads=[2, 3]),
        wb.mask.attention([1, 2], "pooled", mass=0.4, block=16, sinks=0),
    ):  # fmt: skip
        first = 0 if edit.heads is None else edit.heads[0]
        native = one.run(LONG, edit)
        wanted = dict(one.sql(densities, [native.id, first]).fetchall())
        pooled: dict[int, list[float]] = {}
        for control in controls(one, edit, native, count=4):
            assert all(made.pattern == "random" and made.heads == edit.heads for made in control)
            assert all(made.phase == "all" for made in control)
            for layer, density in one.sql(densities, [acts(one, control, LONG).id, first]).fetchall():
                pooled.setdefault(layer, []).append(density)
        for layer, density in wanted.items():
            assert np.mean(pooled[layer]) == pytest.approx(density, abs=0.03), (edit.describe(), layer)
    with pytest.raises(PlanError, match="at some tokens"):
        some = wb.Plan([wb.mask.attention(1, "window", window=16, block=16, tokens=[40, 41])])
        matched_random(some, one.anatomy, 0, like=one.run(LONG, some))


@pytest.mark.slow
def test_a_generation_keeps_the_density_of_prompt_and_generated_tokens(deep: Any) -> None:
    edit = wb.mask.attention([1, 2, 3], "window", window=8, block=16, sinks=0)
    text = deep.generate(IDS[:40], 20, edit)
    density = "SELECT step > 0, avg(density) FROM attention_mask WHERE run = ? GROUP BY ALL ORDER BY ALL"
    wanted = dict(deep.sql(density, [text.id]).fetchall())
    assert set(wanted) == {False, True} and max(wanted.values()) < 0.9
    found: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(6):
        control = matched_random(text.plan, deep.anatomy, seed, like=text)
        for later, value in deep.sql(density, [deep.generate(IDS[:40], 20, control).id]).fetchall():
            found[later].append(value)
    for later, values in found.items():
        assert np.mean(values) == pytest.approx(wanted[later], abs=0.05), later


@pytest.mark.slow
def test_an_estimator_stands_between_its_oracle_and_chance(bench: Any) -> None:
    one = bench(dense(max_position_embeddings=512))
    for edit in (
        wb.mask.attention([1, 2], "pooled", keep=0.5, block=16, sinks=0),
        wb.mask.attention(1, "channels", channels=4, mass=0.5, block=16, sinks=0),
        wb.mask.attention(1, "window", window=16, block=16, sinks=0),
    ):
        found = beside_oracle(one, [LONG, LONG[::-1]], edit, seeds=range(4))
        layers = len(edit.layers)
        assert len(found) == 2 * 6 * layers * 4 and set(found["mask"]) == {"estimator", "oracle", "random"}
        mean = found.groupby("mask")[["density", "recall", "error"]].mean()
        assert mean.loc["oracle", "density"] == pytest.approx(mean.loc["random", "density"], abs=1e-6)
        assert mean.loc["estimator", "density"] == pytest.approx(mean.loc["oracle", "density"], abs=0.03)
        assert mean.loc["oracle", "recall"] > mean.loc["random", "recall"]
        if edit.keep is not None:
            assert mean.loc["oracle", "recall"] >= mean.loc["estimator", "recall"]
    row = found[(found["mask"] == "estimator") & (found["prompt"] == 0)].iloc[0]
    assert row["loss"] == pytest.approx(one.run(LONG, edit, record=None).loss)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "olmoe"])
def test_activations_keep_the_share_of_each_layer(bench: Any, family: str) -> None:
    one = bench(family)
    work = (
        "SELECT layer, sum(skipped + masked) / sum(executed + skipped) FROM cost WHERE run = ? AND op = 'sparse_mlp' "
        "GROUP BY layer ORDER BY layer"
    )
    source = one.calibrate(TEXTS)
    edits = [
        wb.mask.activations([1, 2], threshold=0.05, input_threshold=0.1), wb.mask.activations("all", "gate", threshold=0.1),
        wb.mask.activations([1, 2], sparsity=0.6, source=source),
    ]  # fmt: skip
    if family == "llama":
        edits.append(wb.mask.activations(1, "rank-aware", threshold=0.05, rank=4))
    for edit in edits:
        native = one.run(IDS, edit)
        wanted = dict(one.sql(work, [native.id]).fetchall())
        for control in controls(one, edit, native)[:2]:
            assert all(made.method == "random" for made in control)
            found = dict(one.sql(work, [acts(one, control).id]).fetchall())
            assert set(found) == set(wanted)
            for layer, share in wanted.items():
                assert near(found[layer], share, 48 * 60 * (2 if family == "olmoe" else 1)), edit.describe()
    with pytest.raises(PlanError, match="Only a run knows"):
        matched_random(wb.Plan([edits[0]]), one.anatomy, 0)
    both = wb.Plan([edits[0], wb.mask.neurons(2, [0])])
    with pytest.raises(PlanError, match="act together in layer 2"):
        matched_random(both, one.anatomy, 0, like=one.run(IDS, both))
    both = wb.Plan([edits[2], wb.mask.neurons(2, [0])])
    stated, _ = matched_random(both, one.anatomy, 0, like=one.run(IDS, both))
    assert (stated.method, stated.sparsity, stated.layers) == ("random", 0.6, (1, 2))


@pytest.mark.slow
def test_as_many_tokens_are_hidden_in_the_part_that_was_named(deep: Any, sparse: Any) -> None:
    hidden = "SELECT layer, sum(masked) FROM cost WHERE run = ? AND op = 'attention_tokens' GROUP BY layer ORDER BY layer"
    for edit, among, count in (
        (wb.mask.tokens([1, 2], tokens=[0, 3, 4]), range(60), 3),
        (wb.mask.tokens("all", tokens=slice(5, 25)), range(60), 20),
        (wb.mask.tokens(1, tokens=slice(20, 40), where="token < 20"), range(20, 40), None),
        (wb.mask.tokens(1, where="position > 30 and token < 30", phase="prefill"), range(60), None),
    ):  # fmt: skip
        native = deep.run(IDS, edit)
        wanted = deep.sql(hidden, [native.id]).fetchall()
        assert count is None or {masked for _, masked in wanted} == {count}
        for control in controls(deep, edit, native)[:3]:
            (made,) = control
            assert set(made.tokens) <= set(among) and made.where is None
            assert deep.sql(hidden, [acts(deep, control).id]).fetchall() == wanted
    # A condition on what a layer's own router says hides other tokens in every layer.
    edit = wb.mask.tokens([1, 2], where="margin.0 < 0.3")
    native = sparse.run(IDS, edit)
    for control in controls(sparse, edit, native)[:2]:
        assert (
            sparse.sql(hidden, [acts(sparse, control).id]).fetchall()
            == sparse.sql(hidden, [native.id]).fetchall()
        )
    text = deep.generate(IDS[:30], 8, wb.mask.tokens(1, tokens="generated", where="position > 33"))
    other = matched_random(text.plan, deep.anatomy, 0, like=text)
    assert set(other.edits[0].tokens) <= set(range(30, 37)) and len(other.edits[0].tokens) == 3
    with pytest.raises(PlanError, match="Only a run knows"):
        matched_random(wb.Plan([wb.mask.tokens(1, tokens=[3])]), deep.anatomy, 0)


def test_what_cannot_be_told_is_refused(deep: Any, sparse: Any) -> None:
    edit = wb.skip.tokens(2, threshold=1.0)
    plan = wb.Plan([edit])
    for like, words in (
        (deep.run(IDS, wb.skip.tokens(2, threshold=2.0)), "another plan"),
        (deep.run(IDS, plan, record=None), "not recorded"),
    ):  # fmt: skip
        with pytest.raises(PlanError, match=words):
            matched_random(plan, deep.anatomy, 0, like=like)
    both = wb.Plan([edit, wb.skip.policy("early_exit", similarity=0.9)])
    with pytest.raises(PlanError, match="act together in layer 2"):
        matched_random(both, deep.anatomy, 0, like=deep.run(IDS, both))
    with pytest.raises(PlanError, match="no matched random control"):
        matched_random(wb.Plan([wb.reroute.replay(1)]), sparse.anatomy, 0)


@pytest.mark.slow
def test_a_sweep_controls_such_plans_prompt_by_prompt(deep: Any) -> None:
    norms = deep.run(IDS, record=None).tensor("resid_pre", layers=2).norm(dim=-1)
    plans = {
        "threshold": wb.Plan([wb.skip.tokens(2, threshold=float(norms.quantile(0.5)))]),
        "window": wb.Plan([wb.mask.attention(3, "window", window=16, block=16), wb.skip.block(5)]),
        "path": wb.Plan([wb.skip.path([0, 1, 2, 4, 4, 5, 7])]), "hidden": wb.Plan([wb.mask.tokens(1, tokens=[2, 3])]),
    }  # fmt: skip
    found = sweep(deep, [IDS, IDS[::-1]], plans, controls=2)
    assert len(found.table) == 2 * (1 + 4 * 3)
    own = found.table[(found.table["plan"] != "base") & found.table["control"].isna()]
    assert (own["kl"] > 0).all() and len(own) == 2 * 4
    masked = "SELECT sum(masked) FROM cost WHERE run = ? AND op = 'attention_tokens'"
    for run in found.table.loc[found.table["plan"] == "hidden", "run"]:
        assert deep.sql(masked, [run]).fetchone() == (2,)
    before = deep.sql("SELECT count(*) FROM run").fetchone()
    with pytest.raises(PlanError, match="no matched random control"):
        sweep(deep, [IDS], {"patched": wb.Plan([wb.patch("resid_post", deep.run(IDS), 2)])}, controls=1)
    assert deep.sql("SELECT count(*) FROM run").fetchone()[0] == before[0] + 1, (
        "nothing runs before that is known"
    )


# Units


def test_units_that_two_edits_name_stay_apart_or_together(sparse: Any) -> None:
    plan = wb.Plan([wb.reroute.ban(1, [0]), wb.mask.experts(1, [1, 2]), wb.mask.heads(0, [0]), wb.mask.heads(0, [0, 1]),
                    wb.reroute.bias(1, {0: 2.0}), wb.reroute.allow(2, [0, 1, 2])])  # fmt: skip
    for seed in range(10):
        ban, experts, one, two, bias, allow = matched_random(plan, sparse.anatomy, seed)
        assert len({*ban.experts, *experts.experts}) == 3 and set(one.heads) < set(two.heads)
        assert bias.delta[ban.experts[0]] == 2.0 and sorted(bias.delta) == [0.0] * 7 + [2.0]
        assert len(allow.experts) == 3


def test_matched_controls_keep_the_amount_and_change_the_units(bench: Any) -> None:
    anatomy = bench("olmoe").anatomy
    plan = wb.Plan([
        wb.reroute.ban([0, 2], [1, 2, 3], tokens=[4]), wb.reroute.force(1, 5, weight=0.5), wb.skip.block(1),
        wb.mask.heads(0, [0, 1]), wb.reroute.bias(2, {3: 1.5, 4: -1.0}),
    ])  # fmt: skip
    seen = set()
    for seed in range(20):
        control = matched_random(plan, anatomy, seed)
        assert control == matched_random(plan, anatomy, seed)
        control.check(anatomy)
        first, second, force, skipped, heads, bias = control.edits
        assert [first.layers, second.layers] == [(0,), (2,)] and first.tokens == (4,)
        assert len(set(first.experts)) == len(set(second.experts)) == 3
        assert (
            len(force.experts) == 1
            and force.weight == 0.5
            and len(heads.heads) == 2
            and len(skipped.layers) == 1
        )
        assert sorted(bias.delta) == [-1.0] + [0.0] * 6 + [1.5]
        seen.add(control.hash)
    assert len(seen) > 15
    with pytest.raises(PlanError, match="no matched random control"):
        matched_random(wb.Plan([wb.reroute.replay(1)]), anatomy, 0)


def test_a_direction_is_controlled_by_a_random_one_of_its_length(bench: Any) -> None:
    one = bench("llama")
    width = one.anatomy.hidden_size
    vector = np.linspace(-1, 2, width).astype(np.float32)
    many = np.stack([vector, 3 * vector])
    plan = wb.Plan([wb.mask.direction(1, vector, op="add"), wb.mask.direction([0, 1], many, op="add")])
    single, both = matched_random(plan, one.anatomy, seed=1)
    drawn = np.asarray(single.vector.numbers if hasattr(single.vector, "numbers") else single.vector)
    assert np.linalg.norm(drawn) == pytest.approx(np.linalg.norm(vector), rel=1e-5)
    assert abs(drawn @ vector) < 0.6 * np.linalg.norm(vector) ** 2
    assert np.linalg.norm(both.vector.numbers, axis=-1) == pytest.approx(
        np.linalg.norm(many, axis=-1), rel=1e-5
    )
    assert matched_random(plan, one.anatomy, seed=1).hash != matched_random(plan, one.anatomy, seed=2).hash
    weights = {"W_enc": torch.randn(width, 12), "W_dec": torch.randn(12, width), "b_dec": torch.zeros(width),
               "b_enc": torch.zeros(12)}  # fmt: skip
    name = one.add(Sae("standard", weights).artefact())
    asked = wb.Plan([wb.mask.direction(1, sae=name, features=[0, 1, 2], op="clamp", value=2.0)])
    drawn_features = {matched_random(asked, one.anatomy, seed=seed).edits[0].features for seed in range(4)}
    assert len(drawn_features) > 1 and all(len(set(f)) == 3 and max(f) < 12 for f in drawn_features)
    control = matched_random(asked, one.anatomy, seed=0)
    assert control.edits[0].value == 2.0 and not torch.equal(
        one.run(IDS, control, record=None).logits, one.run(IDS, record=None).logits
    )
