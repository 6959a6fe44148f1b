"""Mistakes that are easy to make where parts of a network are skipped or masked, and that published code has made: each has
a check here, and the mistake is planted to show that the check finds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from depth_by_hand import logits_by_hand
from tiny_models import build_tiny

import workbench as wb
from workbench.experiments import depth_router
from workbench.runtime.attach import block_calls
from workbench.runtime.depth import decide, engine
from workbench.runtime.depth.engine import Engine

IDS = [5, 17, 3, 60, 22, 9, 41, 8, 33, 2, 19, 50]
Plant = Callable[[pytest.MonkeyPatch], None]


def found(check: Callable[[], None], plant: Plant) -> None:
    """``check`` holds, and no longer does while the mistake is made."""
    check()
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        with pytest.raises(AssertionError):
            check()
    check()


def executed(bench: Any, run: Any) -> dict[int, set[int]]:
    """The positions that ran the block, by layer."""
    rows = bench.sql(
        "SELECT layer, position FROM depth WHERE run = ? AND event = 'execute'", [run.id]
    ).fetchall()
    by_layer: dict[int, set[int]] = {}
    for layer, position in rows:
        by_layer.setdefault(layer, set()).add(position)
    return by_layer


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-4)


@pytest.mark.slow
def test_a_sublayer_reported_as_skipped_is_not_computed_and_masked_afterwards(bench: Any) -> None:
    model = build_tiny("llama")
    one = bench(model)
    layer = model.model.layers[1]
    edit = wb.skip.tokens(1, capacity=0.25, score="position")

    def check() -> None:
        seen: list[int] = []
        handles = [
            part.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:-1].numel()))
            for part in (layer.self_attn.q_proj, layer.mlp.up_proj)
        ]
        run = one.run(IDS, edit)
        for handle in handles:
            handle.remove()
        work = "SELECT executed, skipped FROM cost WHERE run = ? AND op = 'block'"
        assert one.sql(work, [run.id]).fetchall() == [(3, 9)]
        assert seen == [3, 3]

    def plant(patch: pytest.MonkeyPatch) -> None:
        own = Engine._visit

        def everything(self: Engine, source: Any, place: int, call: Any, *args: Any, **kwargs: Any) -> Any:
            self._own[source.module](
                **(call.named | {"past_key_values": None})
            )  # and what comes out is thrown away
            return own(self, source, place, call, *args, **kwargs)

        patch.setattr(Engine, "_visit", everything)

    found(check, plant)


def test_a_head_reported_as_skipped_is_not_computed_and_masked_afterwards(bench: Any) -> None:
    one = bench("olmoe", kernels="cpu")
    one.run(IDS, record=None)  # the first call of a module is compared with the model's own
    own = block_calls._one_kernel

    def check() -> None:
        blocks: list[int] = []
        with pytest.MonkeyPatch.context() as patch:
            kernel = block_calls._one_kernel
            patch.setattr(
                block_calls,
                "_one_kernel",
                lambda *args: (out := kernel(*args), blocks.append(out.executed))[0],
            )
            run = one.run(IDS, wb.mask.heads(1, [0, 3]))
        work = "SELECT executed, skipped, masked FROM cost WHERE run = ? AND op = 'attention_heads'"
        assert one.sql(work, [run.id]).fetchall() == [(24, 24, 0)]
        assert blocks == [4, 2, 4], "one block a head and layer"

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(
            block_calls, "_one_kernel", lambda *args: own(*args[:4], torch.ones_like(args[4]), *args[5:])
        )

    found(check, plant)


@pytest.mark.slow
def test_layers_chosen_by_rank_are_measured_and_not_known_by_number(bench: Any) -> None:
    texts = [[(a * n * n + 3 * n) % 64 for n in range(24)] for a in (1, 5)]
    benches = {}
    for poor in (1, 2):
        model = build_tiny("llama")
        with torch.no_grad():
            model.model.layers[poor].self_attn.q_proj.weight.mul_(60.0)
        benches[poor] = bench(model)

    def check() -> None:
        for poor, one in benches.items():
            assert depth_router.layers_by_rank(one, texts, 1) == [poor]

    found(check, lambda patch: patch.setattr(depth_router, "layers_by_rank", lambda *_: [1]))


def test_kept_tokens_keep_their_rotary_positions(bench: Any) -> None:
    one = bench("llama")
    gone = [3, 4, 7]
    want = logits_by_hand(build_tiny("llama"), IDS, lambda n, t: int(n != 1 or t not in gone))

    def check() -> None:
        close(one.run(IDS, wb.skip.block(1, tokens=gone)).logits, want)

    def plant(patch: pytest.MonkeyPatch) -> None:
        own = decide.Decider.__call__

        def counted_anew(self: Any, *args: Any) -> Any:
            return replace(own(self, *args), reindex=True)

        patch.setattr(decide.Decider, "__call__", counted_anew)

    found(check, plant)


@pytest.mark.slow
@pytest.mark.parametrize("kv", ["absent", "compute", "copy-last"])
def test_a_cache_holds_what_the_policy_of_a_skip_says(bench: Any, kv: Any) -> None:
    one = bench("llama")
    edit = wb.skip.tokens([1, 2], capacity=0.5, score="random", kv=kv)

    def check() -> None:
        run = one.generate(IDS, 4, edit)
        ran = executed(one, run)
        ids = run.tokens[:-1].tolist()
        want = logits_by_hand(build_tiny("llama"), ids, lambda n, t: int(n == 0 or t in ran[n]), kv=kv)
        close(run.logits, want)

    def plant(patch: pytest.MonkeyPatch) -> None:
        # What a token that skips leaves behind is that of another policy.
        own = decide.Decider._skip
        other = {"absent": "compute", "compute": "absent", "copy-last": "compute"}
        patch.setattr(
            decide.Decider, "_skip", lambda self, made, where, kv: own(self, made, where, other[kv])
        )

    found(check, plant)


@pytest.mark.slow
def test_a_cache_holds_every_visit_of_a_repeat(bench: Any) -> None:
    one = bench("llama")
    twice = (2, 3, 7, 12, 13)

    def check() -> None:
        run = one.generate(IDS, 4, wb.skip.repeat(1, 2, tokens=twice))
        ids = run.tokens[:-1].tolist()
        close(run.logits, logits_by_hand(build_tiny("llama"), ids, lambda n, t: 1 + (n == 1 and t in twice)))

    def plant(patch: pytest.MonkeyPatch) -> None:
        # The second visit writes into, and reads from, the slot of the first.
        patch.setattr(Engine, "_again", lambda self, first, visit, decision, layer: first)

    found(check, plant)


def test_a_gate_acts_on_the_keys_where_no_softmax_cancels_it(bench: Any) -> None:
    """What skipped tokens are cannot matter to the others, in the one layer that would carry it."""
    one = bench("llama")
    gone = [3, 4, 7]
    kept = [n for n in range(len(IDS)) if n not in gone]
    other = [t if n in kept else 63 - t for n, t in enumerate(IDS)]
    plan = wb.Plan([wb.skip.block([0, 2]), wb.skip.block(1, tokens=gone)])

    def check() -> None:
        left, right = (one.run(ids, plan).logits[kept] for ids in (IDS, other))
        assert torch.equal(left, right)
        # And the attention of a kept query is spread over the kept keys alone.
        close(
            left, logits_by_hand(build_tiny("llama"), IDS, lambda n, t: int(n == 1 and t not in gone))[kept]
        )

    def plant(patch: pytest.MonkeyPatch) -> None:
        own = engine.mask_for

        def on_the_query_axis(
            mask: Any, index: Any, valid: Any, present: Any, length: int, past: int, *rest: Any
        ) -> Any:
            seen = own(mask, index, valid, None, length, past, *rest)
            gate = torch.zeros_like(seen, dtype=torch.float32).masked_fill(
                ~seen, torch.finfo(torch.float32).min
            )
            return gate + torch.log(present.float() + 1e-9).gather(1, index)[:, None, :, None] * 0.5

        patch.setattr(engine, "mask_for", on_the_query_axis)

    found(check, plant)


@pytest.mark.slow
def test_what_a_capacity_drops_is_not_filled_up_again(bench: Any) -> None:
    one, sparse = bench("llama"), bench("olmoe")

    def depth() -> None:
        run = one.run(IDS, wb.skip.tokens("all", capacity=0.5, causal=False, protect=0))
        for layer, positions in executed(one, run).items():
            assert len(positions - {0}) <= 6 and len(positions) in (6, 7), layer

    def refill(patch: pytest.MonkeyPatch) -> None:
        own = decide._whole
        patch.setattr(
            decide, "_whole", lambda score, where, capacity: own(score, where, min(1.0, 1.5 * capacity))
        )

    found(depth, refill)
    native = sparse.run(IDS)
    before = sparse.sql(
        "SELECT layer, expert, count(*) FROM routing WHERE run = ? GROUP BY ALL HAVING count(*) > 3",
        [native.id],
    ).fetchall()
    over = sum(count - 3 for _, _, count in before)

    def experts(overflow: Any = "drop") -> None:
        # 12 tokens, 2 of 8 experts: 3 places each.
        run = sparse.run(IDS, wb.reroute.capacity("all", 1.0, causal=False, overflow=overflow))
        loads = "SELECT max(n) FROM (SELECT count(*) AS n FROM routing WHERE run = ? GROUP BY layer, expert)"
        assert sparse.sql(loads, [run.id]).fetchone() == (3,)
        first = "SELECT sum(dropped) FROM router WHERE run = ? AND layer = 0"
        wanted = sum(count - 3 for layer, _, count in before if layer == 0)
        assert sparse.sql(first, [run.id]).fetchone() == (wanted,) and over > 0 < wanted
        done, left = sparse.sql(
            "SELECT sum(executed), sum(skipped) FROM cost WHERE run = ? AND op = 'moe_experts' AND layer = 0",
            [run.id],
        ).fetchone()
        assert (done, left) == (24 - wanted, wanted)

    experts()
    with pytest.raises(AssertionError):
        experts("next")  # the edit that fills up, under the name of the one that does not


@pytest.mark.slow
def test_a_capacity_does_not_look_ahead_in_decoding(bench: Any) -> None:
    one = bench("llama")

    def check() -> None:
        edit = wb.skip.tokens("all", capacity=0.5)
        whole = executed(one, one.run(IDS, edit))
        for length in (3, 6, 9):
            part = executed(one, one.run(IDS[:length], edit))
            for layer, positions in part.items():
                assert positions == {p for p in whole[layer] if p < length}
        text = one.generate(IDS[:6], 6, edit)
        again = executed(one, one.run(text.tokens[:-1].tolist(), edit))
        assert executed(one, text) == again

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(
            decide.Decider,
            "_causal",
            lambda self, edit, score, where, cache: decide._whole(score, where, edit.capacity),
        )

    found(check, plant)
