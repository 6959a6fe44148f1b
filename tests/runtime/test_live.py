"""Live generation: one token a step, edits at the next token, rewinding and branching, each timeline a run of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import build_tiny

import workbench as wb
from workbench.errors import EditRefused, PromptError

IDS = [5, 17, 3, 60, 22, 9, 41, 8]
FAMILIES = ("olmoe", "llama")


def steps(live: Any, count: int) -> list[int]:
    return [live.step().token for _ in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_stepping_generates_what_generate_does(bench: Any, family: str) -> None:
    one = bench(family)
    whole = one.generate(IDS, 8)
    live = one.live(IDS)
    assert steps(live, 8) == whole.tokens[8:].tolist()
    run = live.finish()
    assert run.tokens.tolist() == whole.tokens.tolist()
    torch.testing.assert_close(run.logits, whole.logits, rtol=1e-4, atol=1e-4)
    tables = ("routing", "contribution", "token", "sparsity")
    for table in tables:
        query = f"SELECT position, count(*) FROM {table} WHERE run = ? GROUP BY position ORDER BY position"
        assert one.sql(query, [run.id]).fetchall() == one.sql(query, [whole.id]).fetchall(), table


def test_a_step_computes_exactly_one_token(bench: Any) -> None:
    model = build_tiny("olmoe")
    fed: list[int] = []
    model.model.layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: fed.append((args[0] if args else kwargs["hidden_states"]).shape[1]),
        with_kwargs=True,
    )
    live = bench(model).live(IDS)
    fed.clear()
    steps(live, 3)
    assert fed == [len(IDS) - 1, 1, 1, 1]
    live.rewind(2)
    live.edit(wb.mask.heads(1, 0))
    fed.clear()
    steps(live, 2)
    assert fed == [1, 1]


def test_an_edit_acts_at_the_next_token_and_on_no_earlier_one(bench: Any) -> None:
    one = bench("olmoe")
    plan = wb.Plan([wb.reroute.ban("all", [0, 1, 2])])
    live = one.live(IDS)
    steps(live, 3)
    live.edit(plan)
    steps(live, 3)
    run = live.finish()
    banned = one.sql(
        "SELECT DISTINCT position FROM routing WHERE run = ? AND expert IN (0, 1, 2) ORDER BY 1", [run.id]
    ).fetchall()
    assert (
        banned and max(position for (position,) in banned) < 10
    )  # the token of the fourth step is number 10
    base = one.live(IDS)
    steps(base, 3)
    assert torch.equal(run.logits[:10], base.logits[:10])
    scoped = one.run(run.tokens[:-1].tolist(), wb.reroute.ban("all", [0, 1, 2], tokens=slice(10, None)))
    torch.testing.assert_close(run.logits, scoped.logits, rtol=1e-4, atol=1e-4)
    switched = one.sql("SELECT step, plan FROM run_plan WHERE run = ? ORDER BY step", [run.id]).fetchall()
    assert switched == [(0, wb.Plan().hash), (4, plan.hash)]


def test_rewinding_starts_a_timeline_of_its_own(bench: Any) -> None:
    one = bench("olmoe")
    live = one.live(IDS)
    first = steps(live, 6)
    old = live.run
    live.rewind(4)
    assert live.run != old and live.tokens == IDS + first[:2]
    assert steps(live, 4) == first[2:], "without an edit the same tokens come again"
    again = live.finish()
    assert one.sql("SELECT parent FROM run WHERE run = ?", [again.id]).fetchone() == (old,)
    rows = "SELECT position, layer, expert, weight FROM routing WHERE run = ? ORDER BY ALL"
    kept = [row for row in one.sql(rows, [old]).fetchall() if row[0] < 9]
    assert [row for row in one.sql(rows, [again.id]).fetchall() if row[0] < 9] == kept
    counts = one.sql(
        "SELECT DISTINCT count(*) FROM routing WHERE run = ? GROUP BY position, layer", [again.id]
    )
    assert counts.fetchall() == [(2,)], "every token has its routes once"
    tokens = one.sql("SELECT count(*) FROM token WHERE run = ?", [old]).fetchone()
    assert tokens == (len(IDS) + 6,), "the timeline that was left is kept whole"


def test_rewinding_and_editing_changes_only_what_follows(bench: Any) -> None:
    one = bench("olmoe")
    live = one.live(IDS)
    steps(live, 5)
    before = live.logits.clone()
    live.rewind(3)
    live.edit(wb.skip.block(1).model_copy(update={"enabled": False}))
    live.edit(wb.mask.heads("all", [0, 1, 2]))
    steps(live, 3)
    assert torch.equal(live.logits[:9], before[:9])
    assert not torch.allclose(live.logits[9], before[9], atol=1e-3)


def test_branches_go_their_own_way(bench: Any) -> None:
    one = bench("olmoe")
    live = one.live(IDS)
    steps(live, 3)
    other = live.branch()
    other.edit(wb.mask.heads("all", [0, 1, 2]))
    rest, changed = steps(live, 4), steps(other, 4)
    assert rest == one.generate(IDS, 7, record=None).tokens[11:].tolist()
    a, b = live.finish(), other.finish()
    assert a.id != b.id and a.tokens[:11].tolist() == b.tokens[:11].tolist()
    assert not torch.allclose(a.logits[11], b.logits[11], atol=1e-3)
    assert one.sql("SELECT parent FROM run WHERE run = ?", [b.id]).fetchone() == (a.id,)
    assert len(changed) == 4


def test_a_draw_depends_on_seed_and_position_alone(bench: Any) -> None:
    live = bench("olmoe").live(IDS, temperature=1.5, seed=4)
    first = steps(live, 5)
    live.rewind(3)
    assert steps(live, 3) == first[2:]


def test_a_cache_that_cannot_be_cut_is_read_again(bench: Any) -> None:
    from tiny_models import CONFIGS
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model("mixtral", **CONFIGS["mixtral"] | {"sliding_window": 4})
    one = bench(AutoModelForCausalLM.from_config(config).eval())
    live = one.live(IDS)
    first = steps(live, 6)
    live.rewind(4)
    assert steps(live, 4) == first[2:]
    live.edit(wb.mask.heads(0, 0))
    live.step()
    with pytest.raises(EditRefused, match="cannot be cut"):
        live.rewind(1)


def test_what_cannot_be_done_is_refused(bench: Any) -> None:
    one = bench("olmoe")
    live = one.live(IDS)
    with pytest.raises(PromptError, match="Nothing has been generated"):
        live.finish()
    with pytest.raises(PromptError, match="cannot be taken back"):
        live.rewind(1)
    live.step()
    with pytest.raises(EditRefused, match="looks at later tokens"):
        live.edit(wb.skip.tokens(1, capacity=0.5, causal=False))
    with pytest.raises(EditRefused, match="expert 99"):
        live.edit(wb.reroute.ban(0, 99))
    live.step()
    run = live.finish()
    assert live.finish() is run
    with pytest.raises(PromptError, match="finished"):
        live.step()
    full = one.live([1] * 63)
    full.step()
    assert full.ended
    with pytest.raises(PromptError, match="ended"):
        full.step()


def test_an_interrupted_generation_keeps_what_was_generated(bench: Any) -> None:
    one = bench("olmoe")

    def stop(step: Any) -> None:
        if step.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one.generate(IDS, 10, on_step=stop)
    one.store.flush()
    assert one.sql("SELECT tokens FROM run").fetchall() == [(11,)]
    assert one.run(IDS).id is not None
