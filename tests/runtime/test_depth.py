"""Depth as it is executed: against a decoder read token by token by hand, in generation, in batches, and by counting."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from depth_by_hand import logits_by_hand
from tiny_models import build_tiny
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import workbench as wb
from workbench.errors import EditRefused, PlanError
from workbench.runtime.passes import Pass

IDS = [5, 17, 3, 60, 22, 9, 41, 8, 33, 2, 19, 50]
SKIP_KV = ("absent", "compute", "copy-last")
REPEAT_KV = ("per-visit", "share-first", "overwrite")


def events(bench: Any, run: Any, unit: str = "block") -> dict[tuple[int, int], tuple[str, str | None]]:
    rows = bench.sql(
        "SELECT layer, position, event, kv FROM depth WHERE run = ? AND unit = ?", [run.id, unit]
    ).fetchall()
    return {(layer, position): (event, kv) for layer, position, event, kv in rows}


def uncached(bench: Any, run: Any, plan: Any) -> Tensor:
    """Logits of one pass over all tokens of a generation, with its own prompt length."""
    ids = run.tokens[:-1].unsqueeze(0)
    plan = plan if isinstance(plan, wb.Plan) else wb.Plan([plan])
    with bench.running(), bench.session([plan], None, [{}]) as session:
        positions = torch.arange(ids.shape[1]).unsqueeze(0)
        session.begin(Pass(0, positions, None, torch.tensor([run.prompt_tokens]), ids))
        return bench.model(input_ids=ids, use_cache=False).logits[0].float()


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-4)


PLANS: dict[str, Any] = {
    "attention": wb.skip.attention(1),
    "mlp": wb.skip.mlp(1),
    "alias": wb.skip.alias(2, 0),
    "alias of attention": wb.skip.alias(2, 0, unit="attention"),
    "alias of MLP": wb.skip.alias(2, 0, unit="mlp"),
    "repeated attention": wb.skip.repeat(1, 3, unit="attention"),
    "repeated MLP": wb.skip.repeat(1, 3, unit="mlp"),
    "reindexed": wb.skip.tokens([1, 2], capacity=0.5, positions="reindex", score="random"),
    "tokens past an MLP": wb.skip.tokens([1, 2], capacity=0.5, unit="mlp", score="norm"),
    "uniform": wb.skip.policy("uniform", speed_up=1.5),
    "middle": wb.skip.policy("middle", radius=1),
    "random": wb.skip.policy("random", share=0.5),
    "scattered decay": wb.skip.policy("decay", alpha=0.7, scattered=True, seed=1),
} | {
    f"{name}, {kv}": edit
    for kv in SKIP_KV
    for name, edit in {
        "capacity": wb.skip.tokens([1, 2], capacity=0.4, kv=kv, protect=0),
        "random": wb.skip.tokens([1, 2], capacity=0.5, kv=kv, score="random"),
        "position": wb.skip.tokens([1, 2], capacity=0.3, kv=kv, score="position"),
        "attention of tokens": wb.skip.tokens([1, 2], capacity=0.5, kv=kv, unit="attention", score="random"),
        "some tokens": wb.skip.block(1, kv=kv, tokens=[3, 4, 9, 13]),
        "generated tokens": wb.skip.block([1, 2], kv=kv, tokens="generated"),
        "decay": wb.skip.policy("decay", alpha=0.7, kv=kv),
        "early exit": wb.skip.policy("early_exit", similarity=0.3, kv=kv),
        "nested": wb.Plan([
            wb.skip.attention([1, 2], kv=kv, tokens=[3, 4, 13]),
            wb.skip.tokens([1, 2], capacity=0.5, kv=kv, score="random", seed=3),
        ]),
    }.items()
} | {
    f"{name}, {kv}": edit
    for kv in REPEAT_KV
    for name, edit in {
        "repeat": wb.skip.repeat(1, 2, kv=kv),
        "repeat of some": wb.skip.repeat(1, 3, kv=kv, tokens=[2, 3, 7, 13]),
        "path": wb.skip.path([0, 2, 1, 1], kv=kv),
    }.items()
}  # fmt: skip


@pytest.mark.slow
def test_cached_decoding_equals_an_uncached_pass_under_every_policy(bench: Any) -> None:
    for family in ("olmoe", "llama"):
        one = bench(family)
        base = one.generate(IDS, 4, record=None)
        for name, plan in PLANS.items():
            run = one.generate(IDS, 4, plan, record=None)
            difference = float((run.logits - uncached(one, run, plan)).abs().max())
            assert difference < 2e-4, f"{family}, {name}: {difference}"
            assert not torch.equal(run.logits[: len(IDS) + 1], base.logits[: len(IDS) + 1]), (
                f"{name} has no effect"
            )


@pytest.mark.slow
@pytest.mark.parametrize("kv", SKIP_KV)
@pytest.mark.parametrize("family", ["olmoe", "llama"])
def test_tokens_that_skip_a_block_leave_what_the_policy_says(bench: Any, family: str, kv: str) -> None:
    one = bench(family)
    run = one.run(IDS, wb.skip.tokens([1, 2], capacity=0.5, score="random", kv=kv))
    told = events(one, run)
    assert set(told) == {(layer, t) for layer in (1, 2) for t in range(len(IDS))}
    assert {event for event, _ in told.values()} == {"skip", "execute"}
    assert {policy for event, policy in told.values() if event == "skip"} == {kv}
    skipped = {cell for cell, (event, _) in told.items() if event == "skip"}
    want = logits_by_hand(build_tiny(family), IDS, lambda n, t: int((n, t) not in skipped), kv=kv)
    close(run.logits, want)


@pytest.mark.slow
@pytest.mark.parametrize("kv", SKIP_KV)
def test_tokens_that_skip_an_attention_leave_what_the_policy_says(bench: Any, kv: str) -> None:
    one = bench("llama")
    run = one.run(IDS, wb.skip.attention([1, 2], tokens=[0, 3, 4, 8], kv=kv))
    gone = {(layer, t) for layer in (1, 2) for t in (0, 3, 4, 8)}
    assert events(one, run, "attn") == dict.fromkeys(gone, ("skip", kv))
    want = logits_by_hand(
        build_tiny("llama"), IDS, lambda n, t: 1, kv=kv, attention=lambda n, t: (n, t) not in gone
    )
    close(run.logits, want)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["olmoe", "llama"])
def test_skipped_sublayers_add_nothing(bench: Any, family: str) -> None:
    one, model = bench(family), build_tiny(family)
    close(
        one.run(IDS, wb.skip.mlp(1)).logits,
        logits_by_hand(model, IDS, lambda n, t: 1, mlp=lambda n, t: n != 1),
    )
    close(
        one.run(IDS, wb.skip.attention(1)).logits,
        logits_by_hand(model, IDS, lambda n, t: 1, attention=lambda n, t: n != 1),
    )
    some = one.run(IDS, wb.skip.mlp(1, tokens=[2, 5]))
    close(
        some.logits,
        logits_by_hand(model, IDS, lambda n, t: 1, mlp=lambda n, t: (n, t) not in {(1, 2), (1, 5)}),
    )


@pytest.mark.slow
@pytest.mark.parametrize("kv", REPEAT_KV)
@pytest.mark.parametrize("family", ["olmoe", "llama"])
def test_repeats_keep_their_keys_and_values_as_the_policy_says(bench: Any, family: str, kv: str) -> None:
    one = bench(family)
    run = one.run(IDS, wb.skip.repeat(1, 3, kv=kv, tokens=[2, 3, 7, 11]))
    assert events(one, run) == {(1, t): ("repeat", kv) for t in (2, 3, 7, 11)}
    want = logits_by_hand(
        build_tiny(family), IDS, lambda n, t: 3 if n == 1 and t in (2, 3, 7, 11) else 1, repeat_kv=kv
    )
    close(run.logits, want)


@pytest.mark.slow
def test_repeated_sublayers_and_paths_equal_models_with_those_layers(bench: Any) -> None:
    one = bench("llama")

    def with_layers(order: list[int], edit: Callable[[Any], None] = lambda model: None) -> Tensor:
        model = build_tiny("llama")
        layers = [copy.deepcopy(model.model.layers[n]) for n in order]
        for number, layer in enumerate(layers):
            layer.self_attn.layer_idx = number
        model.model.layers = torch.nn.ModuleList(layers)
        model.config.num_hidden_layers = len(order)
        edit(model)
        with torch.no_grad():
            return model(torch.tensor([IDS])).logits[0]

    def silent(number: int, part: str) -> Callable[[Any], None]:
        def edit(model: Any) -> None:
            for projection in (
                model.model.layers[number].self_attn.o_proj,
                model.model.layers[number].mlp.down_proj,
            ):
                if (projection is model.model.layers[number].mlp.down_proj) == (part == "mlp"):
                    torch.nn.init.zeros_(projection.weight)

        return edit

    close(one.run(IDS, wb.skip.path([0, 2, 1, 1])).logits, with_layers([0, 2, 1, 1]))
    close(one.run(IDS, wb.skip.path([2, 0])).logits, with_layers([2, 0]))
    close(one.run(IDS, wb.skip.repeat(1, 2)).logits, with_layers([0, 1, 1, 2]))
    close(one.run(IDS, wb.skip.alias(2, 0)).logits, with_layers([0, 1, 0]))
    close(one.run(IDS, wb.skip.policy("uniform", speed_up=1.5)).logits, with_layers([0, 2]))
    close(one.run(IDS, wb.skip.policy("middle", radius=1)).logits, with_layers([0, 2]))
    close(
        one.run(IDS, wb.skip.repeat(1, 2, unit="attention")).logits,
        with_layers([0, 1, 1, 2], silent(1, "mlp")),
    )
    close(
        one.run(IDS, wb.skip.repeat(1, 2, unit="mlp")).logits,
        with_layers([0, 1, 1, 2], silent(2, "attention")),
    )


def test_a_skipped_key_gets_no_attention_and_positions_stay_unless_counted_anew(bench: Any) -> None:
    """On the query axis a gate cancels in the softmax, and the released code of one paper counts positions anew."""
    one = bench("llama")
    gone = [3, 4, 7]
    keep = one.run(IDS, wb.skip.block(1, tokens=gone))
    close(keep.logits, logits_by_hand(build_tiny("llama"), IDS, lambda n, t: int(n != 1 or t not in gone)))
    # What the skipped tokens are cannot matter to the others in that layer: only layers 0 and 2 may carry it.
    only = [wb.skip.block([0, 2]), wb.skip.block(1, tokens=gone)]
    other = [t if n not in gone else 63 - t for n, t in enumerate(IDS)]
    left, right = one.run(IDS, wb.Plan(only)), one.run(other, wb.Plan(only))
    kept = [n for n in range(len(IDS)) if n not in gone]
    assert torch.equal(left.logits[kept], right.logits[kept])
    anew = one.run(IDS, wb.skip.tokens(1, threshold=1e9, protect=kept, positions="reindex"))
    assert not torch.allclose(anew.logits[5:], keep.logits[5:], atol=1e-3)
    model = build_tiny("llama")
    alone = copy.deepcopy(model)
    alone.model.layers = torch.nn.ModuleList([model.model.layers[1]])
    with torch.no_grad():
        short = alone(torch.tensor([[IDS[n] for n in kept]])).logits[0]
    first = one.run(
        IDS, wb.Plan([*only[:1], wb.skip.tokens(1, threshold=1e9, protect=kept, positions="reindex")])
    )
    close(first.logits[kept], short)


def counted(module: torch.nn.Module, seen: list[int]) -> Any:
    return module.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:-1].numel()))


def test_what_is_skipped_is_not_computed(bench: Any) -> None:
    """The work is left out, not masked afterwards: counted at the projections and at the experts."""
    model = build_tiny("llama")
    one = bench(model)
    layer = model.model.layers[1]
    names = {
        "q": layer.self_attn.q_proj, "k": layer.self_attn.k_proj, "o": layer.self_attn.o_proj, "up": layer.mlp.up_proj,
    }  # fmt: skip
    plans = {
        "none": (wb.Plan(), dict.fromkeys(names, 12)),
        "block": (wb.skip.block(1), dict.fromkeys(names, 0)),
        "absent": (wb.skip.tokens(1, capacity=0.25, score="position"), dict.fromkeys(names, 3)),
        # Each token's keys are computed once, and nothing else of the nine that skip.
        "compute": (
            wb.skip.tokens(1, capacity=0.25, score="position", kv="compute"),
            {"q": 3, "k": 12, "o": 3, "up": 3},
        ),
        "copy": (wb.skip.tokens(1, capacity=0.25, score="position", kv="copy-last"), dict.fromkeys(names, 3)),
        "attention": (wb.skip.attention(1, tokens=[0, 1]), {"q": 10, "k": 10, "o": 10, "up": 12}),
        "mlp": (wb.skip.mlp(1, tokens=[0, 1]), {"q": 12, "k": 12, "o": 12, "up": 10}),
        "repeat": (wb.skip.repeat(1, 3), dict.fromkeys(names, 36)),
        "repeated MLP": (wb.skip.repeat(1, 3, unit="mlp"), {"q": 12, "k": 12, "o": 12, "up": 36}),
    }
    for name, (plan, want) in plans.items():
        seen: dict[str, list[int]] = {part: [] for part in names}
        handles = [counted(module, seen[part]) for part, module in names.items()]
        one.run(IDS, plan)
        for handle in handles:
            handle.remove()
        rows = {part: sum(sizes) for part, sizes in seen.items()}
        if name == "compute":
            rows["q"] -= 9  # the call is made, and its answer is zeros: no product
        assert rows == want, name


def test_the_store_counts_the_work_that_was_done(bench: Any) -> None:
    one = bench("olmoe")
    run = one.run(IDS, wb.skip.tokens(1, capacity=0.25, score="position"))
    rows = one.sql(
        "SELECT op, executed, skipped FROM cost WHERE run = ? AND layer = 1 ORDER BY op", [run.id]
    ).fetchall()
    assert rows == [("block", 3, 9), ("moe_experts", 6, 0)]
    assert one.sql("SELECT DISTINCT position FROM routing WHERE run = ? AND layer = 1 ORDER BY 1", [run.id]).fetchall() == [
        (3,), (7,), (11,)
    ]  # fmt: skip
    for table in ("router", "contribution", "sparsity"):
        count = one.sql(
            f"SELECT count(DISTINCT position) FROM {table} WHERE run = ? AND layer = 1", [run.id]
        ).fetchone()
        assert count == (3,), table
    assert one.sql("SELECT count(*) FROM router WHERE run = ? AND layer = 2", [run.id]).fetchone() == (12,)


@pytest.mark.slow
def test_causal_capacity_never_looks_ahead_and_holds_its_share(bench: Any) -> None:
    one = bench("llama")
    for score in ("norm", "random"):
        edit = wb.skip.tokens("all", capacity=0.5, score=score)
        whole = events(one, one.run(IDS, edit))
        for length in (1, 5, 9):
            part = events(one, one.run(IDS[:length], edit))
            assert part == {cell: event for cell, event in whole.items() if cell[1] < length}
    ahead = wb.skip.tokens("all", capacity=0.5, causal=False)
    run = one.run(IDS, ahead)
    for layer in range(3):  # exactly the share: what is dropped is not filled up again
        assert sum(event == "execute" for (n, _), (event, _) in events(one, run).items() if n == layer) == 6
    with pytest.raises(EditRefused, match="looks at later tokens"):
        one.generate(IDS, 3, ahead)
    with pytest.raises(EditRefused, match="looks ahead"):
        one.live(IDS, wb.skip.tokens("all", capacity=0.5, causal=False, phase="prefill"))
    held = one.generate(IDS, 3, wb.skip.tokens("all", capacity=0.5, causal=False, phase="prefill"))
    assert set(events(one, held)) == {(n, t) for n in range(3) for t in range(len(IDS))}


def test_whole_sequence_capacity_keeps_the_best_of_the_pass(bench: Any) -> None:
    one = bench("llama")
    run = one.run(IDS, wb.skip.tokens(0, capacity=0.5, causal=False))
    norms = one.run(IDS, record=None).bench.model.model.embed_tokens(torch.tensor(IDS)).norm(dim=-1)
    best = set(norms.topk(6).indices.tolist())
    assert {t for (_, t), (event, _) in events(one, run).items() if event == "execute"} == best
    received = one.run(IDS, wb.skip.tokens(2, capacity=0.5, causal=False, score="attention"))
    pattern = one.run(IDS).tensor("attn_pattern", layers=[1])[0]
    best = set(pattern.mean((0, 1)).topk(6).indices.tolist())
    assert {t for (_, t), (event, _) in events(one, received).items() if event == "execute"} == best


def test_attention_received_is_that_of_the_tokens_that_ran(bench: Any) -> None:
    """Where the layer before left tokens out, only those that ran there gave attention; padding never does."""
    one = bench("llama")
    edit = wb.skip.tokens([1, 2], capacity=0.5, causal=False, score="attention", kv="compute")
    run = one.run(IDS, edit)
    told = events(one, run)
    ran = [t for t in range(len(IDS)) if told[1, t][0] == "execute"]
    layer = build_tiny("llama").model.layers[1]
    hidden = run.tensor("resid_pre", layers=[1])[0]
    with torch.no_grad():
        normed = layer.input_layernorm(hidden)
        heads, width = 4, layer.self_attn.head_dim
        query = layer.self_attn.q_proj(normed).reshape(len(IDS), heads, width).transpose(0, 1)
        key = layer.self_attn.k_proj(normed).reshape(len(IDS), -1, width).transpose(0, 1)
        cos, sin = build_tiny("llama").model.rotary_emb(hidden[None], torch.arange(len(IDS))[None])
        query, key = apply_rotary_pos_emb(query[None], key[None], cos, sin)
        scores = query[0] @ key[0].repeat_interleave(heads // key.shape[1], 0).transpose(1, 2) * width**-0.5
        causal = torch.ones(len(IDS), len(IDS), dtype=torch.bool).tril()
        pattern = scores.masked_fill(~causal, -torch.inf).softmax(-1)
    best = set(pattern[:, ran].mean((0, 1)).topk(6).indices.tolist())
    assert {t for t in range(len(IDS)) if told[2, t][0] == "execute"} == best
    short = IDS[:7]
    batch = one.run([IDS, short], edit)
    assert events(one, batch[1]) == events(one, one.run(short, edit)) and events(one, batch[0]) == told


def test_policies_choose_the_layers_they_say(bench: Any) -> None:
    one = bench("llama")
    run = one.generate(IDS, 6, wb.skip.policy("decay", alpha=0.7, first=1))
    told = events(one, run)
    for position in range(len(IDS) + 5):
        age = max(0, position - len(IDS) + 1)
        runs = max(1, int(3 * 0.7**age + 1e-9))
        executed = [layer for layer in range(3) if told[layer, position][0] == "execute"]
        assert len(executed) == runs and executed[0] == 0
    leaves = events(one, one.run(IDS, wb.skip.policy("early_exit", similarity=0.3)))
    # Layers up to `first` (1) always run, so that the first comparison that counts is of layers 1 and 2.
    assert all(leaves[layer, t][0] == "execute" for layer in (0, 1) for t in range(len(IDS)))
    later = one.run(IDS).tensor("resid_pre", layers=[1, 2])
    near = torch.cosine_similarity(later[0], later[1], dim=-1) > 0.3
    assert [leaves[2, t][0] == "skip" for t in range(len(IDS))] == near.tolist()
    shares = []
    for seed in range(4):
        random = events(one, one.run(list(range(64)), wb.skip.policy("random", share=0.3, seed=seed)))
        shares.append(sum(event == "execute" for event, _ in random.values()))
    assert 0.2 < sum(shares) / (4 * 3 * 64) < 0.4


@pytest.mark.slow
def test_identities_change_no_bit(bench: Any) -> None:
    for kernels in ("model", "auto"):
        one = bench(build_tiny("olmoe"), kernels=kernels)
        base = one.run(IDS, record=None).logits
        long = one.generate(IDS, 4, record=None).logits
        for plan in (
            wb.skip.tokens("all", capacity=1.0), wb.skip.tokens("all", threshold=-1.0), wb.skip.repeat(1, 1),
            wb.skip.path([0, 1, 2]), wb.skip.policy("uniform", speed_up=1), wb.skip.policy("middle", radius=0),
            wb.skip.policy("decay", alpha=1), wb.skip.policy("early_exit", similarity=1),
            wb.skip.policy("random", share=1.0), wb.skip.alias(1, 1), wb.skip.alias(1, 1, unit="attention"),
            wb.skip.tokens("all", capacity=1.0, unit="attention"), wb.skip.tokens("all", capacity=1.0, unit="mlp"),
        ):  # fmt: skip
            assert torch.equal(one.run(IDS, plan, record=None).logits, base), plan.describe()
            assert torch.equal(one.generate(IDS, 4, plan, record=None).logits, long), plan.describe()
            assert torch.equal(one.run(IDS, plan).logits, base), plan.describe()


@pytest.mark.slow
def test_a_batch_gives_each_row_what_it_gets_alone(bench: Any) -> None:
    one = bench("olmoe")
    prompts = [IDS, IDS[:5], IDS[3:], IDS[::-1], IDS[2:9], IDS[:7]]
    plans = [
        wb.skip.tokens([1, 2], capacity=0.5, score="random", kv="compute"), wb.skip.block(1, tokens=[2, 3]),
        wb.Plan([wb.skip.tokens([1, 2], capacity=0.5, unit="mlp"), wb.reroute.ban("all", [1, 2])]), None,
        wb.skip.repeat(1, 2, kv="overwrite"), wb.skip.path([0, 2, 1]),
    ]  # fmt: skip
    for plan, run in zip(plans, one.run(prompts, plans=plans), strict=True):
        alone = one.run(run.tokens.tolist(), plan)
        close(run.logits, alone.logits)
        work = (
            "SELECT op, layer, sum(executed), sum(skipped) FROM cost WHERE run = ? GROUP BY ALL ORDER BY ALL"
        )
        assert one.sql(work, [run.id]).fetchall() == one.sql(work, [alone.id]).fetchall()
        for table in ("depth", "routing", "router", "contribution"):
            count = f"SELECT count(*), sum(layer) FROM {table} WHERE run = ?"
            assert one.sql(count, [run.id]).fetchone() == one.sql(count, [alone.id]).fetchone(), table


def test_edits_of_other_verbs_hold_inside_by_absolute_position(bench: Any) -> None:
    """A ban, a token-skip and a head mask are one plan, replayed from its JSON to the same bits."""
    one = bench("olmoe")
    plan = wb.Plan([
        wb.reroute.ban([1, 2], [0, 1, 2], tokens=[3, 7, 11, 13]), wb.mask.heads(1, [0], tokens=[7]),
        wb.skip.tokens([1, 2], capacity=0.25, score="position", kv="compute"),
    ])  # fmt: skip
    run = one.generate(IDS, 4, plan)
    again = one.generate(IDS, 4, wb.Plan.from_json(plan.to_json()))
    assert torch.equal(run.logits, again.logits)
    rows = one.sql(
        "SELECT DISTINCT position, expert FROM routing WHERE run = ? AND layer = 1 AND position IN (3, 7, 11)",
        [run.id],
    ).fetchall()
    assert {position for position, _ in rows} == {3, 7, 11}
    assert not {expert for _, expert in rows} & {0, 1, 2}
    without = one.generate(IDS, 4, wb.Plan(plan.edits[:1] + plan.edits[2:]))
    assert torch.equal(without.logits[:7], run.logits[:7])
    assert not torch.equal(without.logits[7], run.logits[7])


def test_live_edits_of_depth_find_what_earlier_tokens_left(bench: Any) -> None:
    one = bench("llama")
    live = one.live(IDS, wb.skip.block(1))
    live.step()
    live.edit(None)
    for _ in range(2):
        live.step()
    gone = set(range(len(IDS)))
    want = logits_by_hand(build_tiny("llama"), live.tokens[:-1], lambda n, t: int(n != 1 or t not in gone))
    close(live.logits, want)
    live.rewind(1)
    twin = live.branch()
    live.step()
    twin.step()
    assert torch.equal(live.logits, twin.logits)
    close(live.logits, want)


def test_refusals(bench: Any) -> None:
    one = bench("llama")
    with pytest.raises(PlanError, match="either a threshold or a capacity"):
        wb.skip.tokens(1)
    with pytest.raises(PlanError, match="needs speed_up"):
        wb.skip.policy("uniform")
    with pytest.raises(PlanError, match="belongs to the policy decay"):
        wb.skip.policy("uniform", speed_up=2, alpha=0.5)
    with pytest.raises(PlanError, match="scattered belongs to the policy decay"):
        wb.skip.policy("middle", radius=1, scattered=True)
    with pytest.raises(PlanError, match="layer -1 is negative"):
        wb.skip.path([0, -1])
    with pytest.raises(PlanError, match="router file goes with"):
        wb.skip.tokens(1, threshold=0.5, router="00")
    for edit, words in (
        (wb.skip.tokens(0, capacity=0.5, kv="copy-last"), "layer before"),
        (wb.skip.tokens(1, capacity=0.5, score="attention"), "looks ahead"),
        (wb.skip.tokens(1, capacity=0.5, positions="reindex", kv="compute"), "counted anew"),
        (wb.skip.alias(1, 0, tokens=[3]), "all tokens"),
        (wb.skip.path([0, 1], tokens=[3]), "all tokens"),
        (wb.skip.block("all"), "no block"),
        (wb.Plan([wb.skip.path([0, 1]), wb.skip.repeat(1)]), "path"),
        (wb.skip.alias(1, 9), "no layer 9"),
    ):
        with pytest.raises((EditRefused, wb.errors.AddressError), match=words):
            one.run(IDS, edit)
    with pytest.raises(PlanError, match="not at hand"):
        one.run(IDS, wb.skip.policy("learned", router="0123456789abcdef"))


def test_eager_attention_takes_the_same_masks(bench: Any) -> None:
    model = build_tiny("llama")
    model.set_attn_implementation("eager")
    one = bench(model)
    run = one.run(IDS, wb.skip.tokens([1, 2], capacity=0.5, score="random", kv="compute"))
    gone = {cell for cell, (event, _) in events(one, run).items() if event == "skip"}
    close(
        run.logits,
        logits_by_hand(build_tiny("llama"), IDS, lambda n, t: int((n, t) not in gone), kv="compute"),
    )
