"""Sessions without edits are made once and opened again: nothing stays on the model, and nobody's hooks are passed by."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import build_tiny
from torch import nn

import workbench as wb
from workbench.runtime.hooks.mounts import Mounts

IDS = [5, 17, 3, 60, 22, 9, 41, 8]
TABLES = ("routing", "router", "contribution", "sparsity", "attention_rank", "expert_stat")


def hooks(model: nn.Module) -> list[int]:
    return [
        len(found)
        for module in model.modules()
        for found in (
            module._forward_hooks, module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs,
            module._forward_hooks_with_kwargs,
        )
    ]  # fmt: skip


def rows(bench: Any, run: Any, tables: tuple[str, ...] = TABLES) -> dict[str, list[Any]]:
    """What was recorded of ``run``, without its number and its seconds."""
    return {
        table: bench.sql(
            f"SELECT * EXCLUDE (run) FROM {table} WHERE run = ? ORDER BY ALL", [run.id]
        ).fetchall()
        for table in tables
    }


@pytest.mark.parametrize("family", ["olmoe", "llama"])
@pytest.mark.parametrize("kernels", ["auto", "model"])
def test_a_session_opened_again_records_the_same_and_leaves_nothing(
    bench: Any, family: str, kernels: str
) -> None:
    one = bench(family, kernels=kernels)
    before = hooks(one.model)
    first = one.run(IDS)
    assert hooks(one.model) == before
    again = one.run(IDS)
    assert hooks(one.model) == before
    assert rows(one, first) == rows(one, again)
    assert one.session([wb.Plan()], wb.Record(), [{}]) is one.session([wb.Plan()], wb.Record(), [{}])
    everything = wb.Record(logit_lens=True, logit_effect=True, census=True, attention_map=True)
    full = [one.run(IDS, record=everything) for _ in range(2)]
    also = ("logit_effect", "neuron_rate", "attention_map")
    assert rows(one, full[0], also) == rows(one, full[1], also) and any(rows(one, full[0], also).values())
    assert hooks(one.model) == before


def test_each_record_has_its_own(bench: Any) -> None:
    """Two thresholds in turns: what one sets on the kernels, the other must not leave there."""
    one = bench("olmoe")
    narrow, wide = wb.Record(threshold=1e-6), wb.Record(threshold=10.0)
    runs = [one.run(IDS, record=record) for record in (narrow, wide, narrow, wide)]
    shares = [
        one.sql("SELECT avg(below_share) FROM sparsity WHERE run = ?", [run.id]).fetchone()[0] for run in runs
    ]
    assert shares[0] == shares[2] < 0.5 and shares[1] == shares[3] == 1.0


def test_hooks_of_the_user_come_and_go_between_runs(bench: Any) -> None:
    """What they change is recorded: ours stand behind those that are there when a session opens."""
    one = bench("olmoe")
    plain = one.run(IDS)
    outlet = one.anatomy.layer(0).mlp_outlet.module
    handle = outlet.register_forward_hook(lambda _m, _a, out: 3.0 * out)
    changed = one.run(IDS)
    with wb.open(build_tiny("olmoe"), store=":memory:") as fresh:
        fresh.anatomy.layer(0).mlp_outlet.module.register_forward_hook(lambda _m, _a, out: 3.0 * out)
        expected = rows(fresh, fresh.run(IDS), ("contribution",))
    assert rows(one, changed, ("contribution",)) == expected != rows(one, plain, ("contribution",))
    handle.remove()
    assert torch.equal(one.run(IDS).logits, plain.logits)
    assert len(outlet._forward_hooks) == 0


def test_an_open_session_is_not_opened_again(bench: Any) -> None:
    one = bench("olmoe")
    with one.session([wb.Plan()], wb.Record(), [{}]) as outer:
        assert one.session([wb.Plan()], wb.Record(), [{}]) is not outer


def test_edits_before_and_after_do_not_reach_it(bench: Any) -> None:
    one = bench("olmoe")
    first = one.run(IDS)
    plan = wb.Plan([wb.reroute.ban("all", 1), wb.skip.mlp(1), wb.mask.heads(0, [0])])
    edited = one.run(IDS, plan=plan)
    again = one.run(IDS)
    assert not torch.equal(edited.logits, first.logits) and torch.equal(again.logits, first.logits)
    assert rows(one, first) == rows(one, again)


def test_a_run_that_fails_leaves_nothing_and_the_next_one_runs(bench: Any) -> None:
    one = bench("olmoe")
    first = one.run(IDS)
    before = hooks(one.model)

    def fail(*_: Any) -> None:
        raise RuntimeError("the user's own")

    handle = one.anatomy.blocks[1].module.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="the user's own"):
        one.run(IDS)
    handle.remove()
    assert hooks(one.model) == before
    assert rows(one, one.run(IDS)) == rows(one, first)


def test_what_is_set_comes_off_even_where_a_callback_fails() -> None:
    def fail() -> None:
        raise RuntimeError("no way back")

    module, mounts = nn.Linear(2, 2), Mounts()
    mounts.after(module, lambda *_: None)
    mounts.before(module, lambda *_: None, with_kwargs=True)
    assert sum(hooks(module)) == 3 and mounts.repeatable
    mounts.close()
    mounts.again()
    assert sum(hooks(module)) == 3
    mounts.callback(fail)
    assert not mounts.repeatable
    with pytest.raises(RuntimeError, match="no way back"):
        mounts.close()
    assert sum(hooks(module)) == 0
