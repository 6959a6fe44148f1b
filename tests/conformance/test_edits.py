"""Every kind of edit on every family of the spine: it has its effect, the store says what was executed, its identity
changes no bit, and what cannot act is refused. A kind without a row here fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from tiny_models import FAMILIES, MOE_FAMILIES, build_tiny, each

import workbench as wb
from workbench.errors import EditRefused
from workbench.interventions.plan import kinds

IDS = [5, 17, 3, 60, 22, 9, 41, 8, 33, 2, 19, 50]
E, K, LAYER = 8, 2, 1

Choice = dict[int, float]
"""Experts of one token with their weights."""


@dataclass(frozen=True)
class Case:
    """An edit of layer 1 (or a function of the experts that the layer uses, which gives it), how a token's choice must
    have changed, and its neutral and impossible forms."""

    effect: Any
    holds: Callable[[Choice, Choice], bool] | None
    identity: Any | None
    refused: Any


def same_weights(before: Choice, after: Choice) -> bool:
    return sorted(before.values()) == pytest.approx(sorted(after.values()), rel=1e-5)


CASES: dict[str, Case] = {
    "reroute.ban": Case(
        lambda used: wb.reroute.ban(LAYER, used[:3]), lambda b, a: len(a) == K, None,
        wb.reroute.ban(LAYER, list(range(7)))),
    "reroute.allow": Case(
        lambda used: wb.reroute.allow(LAYER, sorted({*range(E)} - {used[0]})), lambda b, a: len(a) == K,
        wb.reroute.allow(LAYER, list(range(E))),
        wb.reroute.allow(LAYER, [4])),
    "reroute.force": Case(
        lambda used: wb.reroute.force(LAYER, used[0]), lambda b, a: len(a) == K and len(set(a) - set(b)) <= 1, None,
        wb.reroute.force(LAYER, [1, 2, 3])),
    "reroute.bias": Case(
        wb.reroute.bias(LAYER, {4: 50.0}), lambda b, a: 4 in a, wb.reroute.bias(LAYER, [0.0] * E),
        wb.reroute.bias(LAYER, {8: 1.0})),
    "reroute.temperature": Case(
        wb.reroute.temperature(LAYER, 4.0), lambda b, a: set(a) == set(b) and a != b, wb.reroute.temperature(LAYER, 1.0),
        wb.reroute.temperature(9, 2.0)),
    "reroute.scores": Case(
        wb.reroute.scores(LAYER, [0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05]), lambda b, a: set(a) == {0, 1},
        wb.reroute.scores(LAYER, [0.125] * E, alpha=0.0), wb.reroute.scores(LAYER, [1.0])),
    "reroute.top_k": Case(
        wb.reroute.top_k(LAYER, 4), lambda b, a: len(a) == 4 and set(b) < set(a), wb.reroute.top_k(LAYER, K),
        wb.reroute.top_k(LAYER, 9)),
    "reroute.top_p": Case(
        wb.reroute.top_p(LAYER, 0.999), lambda b, a: set(b) <= set(a) or set(a) < set(b), None, wb.reroute.top_p(9, 0.5)),
    "reroute.threshold": Case(
        wb.reroute.threshold(LAYER, 0.9), lambda b, a: set(a) <= set(b) and len(a) >= 1, None,
        wb.reroute.threshold(9, 0.5)),
    "reroute.rank_offset": Case(
        wb.reroute.rank_offset(LAYER, 2), lambda b, a: not set(a) & set(b) and len(a) == K,
        wb.reroute.rank_offset(LAYER, 0), wb.reroute.rank_offset(LAYER, 7)),
    "reroute.random": Case(
        wb.reroute.random(LAYER, seed=3), lambda b, a: len(a) == K, None, wb.reroute.random(9)),
    "reroute.permute": Case(
        wb.reroute.permute(LAYER, [1, 2, 3, 4, 5, 6, 7, 0]),
        lambda b, a: a == {(e + 1) % E: w for e, w in b.items()}, wb.reroute.permute(LAYER, range(E)),
        wb.reroute.permute(LAYER, [1, 0])),
    "reroute.uniform": Case(
        wb.reroute.uniform(LAYER),
        lambda b, a: set(a) == set(b) and list(a.values()) == pytest.approx([sum(b.values()) / K] * K), None,
        wb.reroute.uniform(9)),
    "reroute.weights": Case(
        wb.reroute.weights(LAYER, values=[0.2, 0.9]),
        lambda b, a: sorted(a.values()) == pytest.approx([0.2, 0.9]) and set(a) == set(b),
        wb.reroute.weights(LAYER, scale=1.0), wb.reroute.weights(LAYER, values=[1.0])),
    "reroute.smooth": Case(
        wb.reroute.smooth(LAYER, by="attention"), lambda b, a: len(a) == K, wb.reroute.smooth(LAYER, by="window", window=1),
        wb.reroute.smooth(9)),
    "reroute.group": Case(
        wb.reroute.group(LAYER, by="sample", take="running"), lambda b, a: len(a) == K,
        wb.reroute.group(LAYER, by="sample", alpha=0.0), wb.reroute.group(LAYER)),
    "reroute.copy_layer": Case(
        wb.reroute.copy_layer(LAYER, 0), lambda b, a: len(a) == K, None, wb.reroute.copy_layer(LAYER, 1)),
    "reroute.capacity": Case(
        wb.reroute.capacity(LAYER, 0.5), lambda b, a: a.items() <= b.items(), wb.reroute.capacity(LAYER, 100.0),
        wb.reroute.capacity(9)),
    "reroute.expert_choice": Case(
        wb.reroute.expert_choice(LAYER, pool="step"), lambda b, a: True, None, wb.reroute.expert_choice(9)),
    "reroute.balanced": Case(
        wb.reroute.balanced(LAYER, pool="step"), lambda b, a: len(a) == K, wb.reroute.balanced(LAYER, 100.0),
        wb.reroute.balanced(LAYER, 0.5)),
    "reroute.merge": Case(
        wb.reroute.merge(LAYER, {e: e // 2 * 2 for e in range(E)}),
        lambda b, a: a == pytest.approx({e // 2 * 2: sum(w for o, w in b.items() if o // 2 == e // 2) for e in b}),
        wb.reroute.merge(LAYER, {3: 3}), wb.reroute.merge(LAYER, {8: 0})),
    "reroute.pseudo": Case(
        lambda used: wb.reroute.pseudo(LAYER, used[:3], output="copy"), lambda b, a: a.items() <= b.items(), None,
        wb.reroute.pseudo(LAYER, 1, output="constant", vector=[1.0])),
    "skip.block": Case(wb.skip.block(LAYER), None, None, wb.skip.block("all")),
    "skip.attention": Case(wb.skip.attention(LAYER), None, None, wb.skip.attention(9)),
    "skip.mlp": Case(wb.skip.mlp(LAYER), None, None, wb.skip.mlp(9)),
    "skip.repeat": Case(wb.skip.repeat(LAYER, 2), None, wb.skip.repeat(LAYER, 1), wb.skip.repeat(9)),
    "skip.alias": Case(wb.skip.alias(LAYER, 0), None, wb.skip.alias(LAYER, LAYER), wb.skip.alias(LAYER, 9)),
    "skip.path": Case(wb.skip.path([0, 2, 1]), None, wb.skip.path([0, 1, 2]), wb.skip.path([0, 9])),
    "skip.tokens": Case(
        wb.skip.tokens(LAYER, capacity=0.5), None, wb.skip.tokens(LAYER, capacity=1.0),
        wb.skip.tokens(0, capacity=0.5, kv="copy-last")),
    "skip.policy": Case(
        wb.skip.policy("middle", radius=1), None, wb.skip.policy("middle", radius=0), wb.skip.policy("middle", radius=9)),
    "mask.direction": Case(
        wb.mask.direction(LAYER, [1.0] * 32, op="add"), None, wb.mask.direction(LAYER, [1.0] * 32, op="add", value=0.0),
        wb.mask.direction(LAYER, [1.0])),
    "mask.experts": Case(
        lambda used: wb.mask.experts(LAYER, used[:3]), None, wb.mask.experts(LAYER, ratio=0),
        wb.mask.experts(LAYER, 8)),
    "mask.heads": Case(wb.mask.heads(LAYER, [0, 2]), None, wb.mask.heads(LAYER, ratio=0), wb.mask.heads(LAYER, 4)),
    "mask.neurons": Case(
        wb.mask.neurons(LAYER, range(12)), None, wb.mask.neurons(LAYER, ratio=0), wb.mask.neurons(LAYER, 48)),
    "mask.channels": Case(
        wb.mask.channels(LAYER, range(8)), None, wb.mask.channels(LAYER, ratio=0), wb.mask.channels(LAYER, 32)),
    "mask.tokens": Case(wb.mask.tokens(LAYER, tokens=[2, 3]), None, None, wb.mask.tokens(LAYER)),
    "mask.activations": Case(
        wb.mask.activations(LAYER, "random", sparsity=0.5), None, wb.mask.activations(LAYER, "random", sparsity=0),
        wb.mask.activations(LAYER, "given", neurons=[48])),
    "mask.weights": Case(
        wb.mask.weights(LAYER, ratio=0.5), None, wb.mask.weights(LAYER, ratio=0),
        wb.mask.weights(LAYER, ratio=0.5, tokens=[1])),
}  # fmt: skip
OF_THEIR_OWN = {"reroute.replay", "mask.attention", "patch", "custom"}
# A replay and a patch need a source run, a custom edit its registration, blocks of attention more tokens than these:
# test_spine, runtime/test_write and runtime/test_attention_masks hold effect, identity and refusal.


def test_every_kind_has_its_row() -> None:
    assert set(CASES) | OF_THEIR_OWN == set(kinds())


def choices(bench: Any, run: Any) -> dict[tuple[int, int], Choice]:
    rows = bench.sql("SELECT layer, position, expert, weight FROM routing WHERE run = ?", [run.id]).fetchall()
    found: dict[tuple[int, int], Choice] = {}
    for layer, position, expert, weight in rows:
        found.setdefault((layer, position), {})[expert] = weight
    return found


@pytest.mark.slow
@pytest.mark.parametrize("family", each(FAMILIES))
@pytest.mark.parametrize("kernels", ["model", "auto"])
def test_every_kind(bench: Any, family: str, kernels: str) -> None:
    one = bench(build_tiny(family), kernels=kernels)
    base = one.run(IDS)
    native = choices(one, base)
    used = sorted({expert for (layer, _), choice in native.items() if layer == LAYER for expert in choice})
    for kind, case in CASES.items():
        effect = case.effect(used or [0, 1, 2]) if callable(case.effect) else case.effect
        if family not in MOE_FAMILIES and kind.startswith(("reroute.", "mask.experts")):
            with pytest.raises(EditRefused):
                one.run(IDS, effect)
            continue
        run = one.run(IDS, effect)
        assert float((run.logits - base.logits).abs().max()) > 1e-3, f"{kind} has no effect"
        assert torch.equal(one.run(IDS, effect, record=None).logits, run.logits), (
            f"{kind}: recording changed bits"
        )
        if case.holds is not None:
            executed = choices(one, run)
            in_layer = [set(choice) for (layer, _), choice in executed.items() if layer == LAYER]
            assert kind != "reroute.ban" or not any(chosen & set(effect.experts) for chosen in in_layer)
            assert kind != "reroute.allow" or all(chosen <= set(effect.experts) for chosen in in_layer)
            assert kind != "reroute.force" or all(set(effect.experts) <= chosen for chosen in in_layer)
            for position in range(len(IDS)):
                before, after = native[LAYER, position], executed.get((LAYER, position), {})
                assert case.holds(before, after), f"{kind} at {position}: {before} became {after}"
            assert all(executed[cell] == native[cell] for cell in native if cell[0] < LAYER)
            told = one.sql(
                "SELECT position, native FROM router WHERE run = ? AND edited", [run.id]
            ).fetchall()
            assert all(set(ids) == set(native[LAYER, position]) for position, ids in told)
            changed = {p for p in range(len(IDS)) if executed.get((LAYER, p), {}) != native[LAYER, p]}
            assert {position for position, _ in told} >= changed
        if case.identity is not None:
            assert torch.equal(one.run(IDS, case.identity, record=None).logits, base.logits), (
                f"{kind}: identity"
            )
        with pytest.raises((EditRefused, wb.errors.AddressError)):
            one.run(IDS, case.refused)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in CASES if kind.startswith(("reroute.", "mask.experts"))])
def test_cached_generation_equals_an_uncached_pass(bench: Any, kind: str) -> None:
    one = bench("olmoe")
    effect = CASES[kind].effect
    effect = effect([1, 4, 6]) if callable(effect) else effect
    if effect.looks_ahead():
        pytest.skip("its pool is the prompt, and the whole text is the prompt of the uncached pass")
    run = one.generate(IDS, 6, effect)
    whole = one.run(run.tokens[:-1].tolist(), effect)
    torch.testing.assert_close(run.logits, whole.logits, rtol=1e-4, atol=1e-4)
    assert {c: set(x) for c, x in choices(one, run).items()} == {
        c: set(x) for c, x in choices(one, whole).items()
    }


def test_ragged_choices_are_replayed_to_the_same_bits(bench: Any) -> None:
    one = bench("olmoe")
    ragged = one.run(IDS, wb.reroute.threshold("all", 0.3))
    sizes = one.sql(
        "SELECT DISTINCT count(*) FROM routing WHERE run = ? GROUP BY layer, position", [ragged.id]
    ).fetchall()
    assert len(sizes) > 1
    dropped = one.sql("SELECT sum(dropped) FROM router WHERE run = ?", [ragged.id]).fetchone()[0]
    assert dropped > 0
    assert torch.equal(one.run(IDS, wb.reroute.replay(ragged)).logits, ragged.logits)
