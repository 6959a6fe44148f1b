"""Edits of all verbs are one plan: in a pass, in a batch of several plans, in a generation, under the hand, and replayed
from its JSON to the same bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import build_tiny
from torch import Tensor

import workbench as wb
from workbench.errors import EditRefused

IDS = [(7 * n * n + 3 * n) % 64 for n in range(60)]
BLOCK = 16
ONE_PLAN = wb.Plan([
    wb.reroute.ban([1, 2], [0, 1, 2]), wb.skip.tokens([1, 2], capacity=0.5, score="random", kv="compute"),
    wb.mask.heads(1, [0]), wb.mask.attention([1, 2], "window", window=16, block=BLOCK),
    wb.mask.tokens(2, tokens=[3]), wb.mask.neurons(2, range(8)), wb.skip.attention(0, tokens=[5, 6]),
])  # fmt: skip
TABLES = ("routing", "depth", "attention_mask", "cost")


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-4)


def rows(one: Any, run: int) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that the store says of what ran, but for how long it took."""
    found = {}
    for table in TABLES:
        columns = "* EXCLUDE (run, seconds)" if table == "cost" else "* EXCLUDE (run)"
        found[table] = one.sql(f"SELECT {columns} FROM {table} WHERE run = ? ORDER BY ALL", [run]).fetchall()
    return found


def test_every_edit_of_one_plan_acts_and_it_replays_from_its_json_to_the_same_bits(bench: Any) -> None:
    one = bench("olmoe")
    again = wb.Plan.from_json(ONE_PLAN.to_json())
    run, same = one.run(IDS, ONE_PLAN), one.run(IDS, again)
    assert torch.equal(run.logits, same.logits) and run.plan.hash == same.plan.hash
    assert rows(one, run.id) == rows(one, same.id) and all(rows(one, run.id).values())
    kept = one.sql(
        "SELECT p.json FROM run_plan JOIN plan AS p USING (plan) WHERE run = ?", [run.id]
    ).fetchone()
    assert torch.equal(one.run(IDS, wb.Plan.from_json(kept[0]), record=None).logits, run.logits)
    told = one.sql(
        "SELECT DISTINCT expert FROM routing WHERE run = ? AND layer IN (1, 2)", [run.id]
    ).fetchall()
    assert not {expert for (expert,) in told} & {0, 1, 2}
    events = one.sql("SELECT unit, layer, event FROM depth WHERE run = ? GROUP BY ALL", [run.id]).fetchall()
    assert {("block", 1, "skip"), ("block", 2, "execute"), ("attn", 0, "skip")} <= set(events)
    for n in range(len(ONE_PLAN)):
        assert not torch.equal(one.run(IDS, ONE_PLAN.without(n), record=None).logits, run.logits), (
            ONE_PLAN.edits[n].kind
        )


@pytest.mark.slow
def test_a_batch_of_several_plans_replays_row_by_row(bench: Any) -> None:
    one = bench("olmoe")
    prompts = [IDS, IDS[:20], IDS[5:45], IDS[:50]]
    plans = [ONE_PLAN, None, wb.Plan(ONE_PLAN.edits[:4]), wb.Plan([ONE_PLAN.edits[1], ONE_PLAN.edits[0]])]
    batch = one.run(prompts, plans=plans)
    for row in batch:
        close(row.logits, one.run(row.tokens.tolist(), row.plan).logits)
    copies = [None if plan is None else wb.Plan.from_json(plan.to_json()) for plan in plans]
    for row, same in zip(batch, one.run(prompts, plans=copies), strict=True):
        assert torch.equal(row.logits, same.logits) and rows(one, row.id) == rows(one, same.id)


@pytest.mark.slow
def test_a_generation_replays_to_the_same_bits_and_equals_a_pass_over_its_text(bench: Any) -> None:
    one = bench("olmoe")
    again = wb.Plan.from_json(ONE_PLAN.to_json())
    text, twin = one.generate(IDS[:40], 5, ONE_PLAN), one.generate(IDS[:40], 5, again)
    assert torch.equal(text.logits, twin.logits) and rows(one, text.id) == rows(one, twin.id)
    close(text.logits, one.run(text.tokens[:-1].tolist(), ONE_PLAN).logits)
    events = one.sql(
        "SELECT DISTINCT step, event FROM depth WHERE run = ? AND unit = 'block'", [text.id]
    ).fetchall()
    assert {(0, "skip"), (0, "execute")} < set(events) and max(step for step, _ in events) == 4


@pytest.mark.slow
def test_under_the_hand_it_acts_at_the_next_token_rewinds_and_branches(bench: Any) -> None:
    one = bench("olmoe")
    plan = wb.Plan(ONE_PLAN.edits[:4])
    live = one.live(IDS[:40])
    live.step()
    live.edit(plan)
    for _ in range(4):
        live.step()
    whole = live.logits.clone()
    live.rewind(2)
    other = live.branch()
    for _ in range(2):
        live.step()
        other.step()
    assert torch.equal(live.logits, whole), "what is taken back comes again to the bit"
    assert torch.equal(other.logits, whole)
    again = one.live(IDS[:40])
    again.step()
    again.edit(wb.Plan.from_json(plan.to_json()))
    for _ in range(4):
        again.step()
    assert torch.equal(again.logits, whole)
    run, same = live.finish(), again.finish()
    banned = (
        "SELECT count(*) FROM routing WHERE run = ? AND layer IN (1, 2) AND expert < 3 AND position >= 40"
    )
    assert one.sql(banned, [run.id]).fetchone() == (0,)
    told = "SELECT * EXCLUDE (run, step) FROM depth WHERE run = ? ORDER BY ALL"  # steps count what was taken back, too
    assert one.sql(told, [same.id]).fetchall() == one.sql(told, [run.id]).fetchall()
    from_start = one.live(IDS[:40], plan)
    for _ in range(5):
        from_start.step()
    text = one.generate(IDS[:40], 5, plan, record=None)
    assert from_start.tokens == text.tokens.tolist()
    close(
        from_start.logits, text.logits
    )  # the hand reads the last token of the prompt alone, the generation with the rest


def test_patterns_that_rank_by_all_queries_are_refused_where_some_are_skipped(bench: Any) -> None:
    one = bench("olmoe")
    with pytest.raises(EditRefused, match="ranks blocks by all their queries"):
        one.run(IDS, wb.Plan([ONE_PLAN.edits[1], wb.mask.attention(1, "pooled", keep=0.5, block=BLOCK)]))


@pytest.mark.slow
def test_a_session_leaves_nothing_behind(bench: Any) -> None:
    model = build_tiny("olmoe")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one = bench(model)
    one.run(IDS, ONE_PLAN)
    with pytest.raises(EditRefused):
        one.run(IDS, wb.Plan([*ONE_PLAN.edits[:2], wb.mask.attention(1, "pooled", keep=0.5, block=BLOCK)]))
    with torch.no_grad():
        inside = model(torch.tensor([IDS])).logits[0]
    one.close()
    with torch.no_grad():
        want = build_tiny("olmoe")(torch.tensor([IDS])).logits[0]
        assert torch.equal(model(torch.tensor([IDS])).logits[0], want)
    close(inside, want)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any("forward" in module.__dict__ or module._forward_pre_hooks for module in model.modules())
