"""A prompt that is read in pieces is the prompt that is read at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb

PROMPT = [int(t) for t in np.random.default_rng(3).integers(1, 50, 23)]
PLANS = {
    "none": None,
    "ban": wb.reroute.ban("all", [1, 2]),
    "skip": wb.skip.tokens([1], capacity=0.5, score="random", kv="compute"),
}


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_rows_and_logits_do_not_depend_on_the_pieces(bench: Any, plan: Any) -> None:
    one = bench("olmoe")
    whole = one.generate(PROMPT, 4, plan)
    pieces = one.generate(PROMPT, 4, plan, prefill=5)
    assert torch.equal(whole.tokens, pieces.tokens)
    torch.testing.assert_close(whole.logits, pieces.logits, rtol=1e-4, atol=1e-4)
    for table, columns in (
        ("routing", "step, position, layer, slot, expert"),
        ("router", "step, position, layer, edited, dropped"),
        ("contribution", "step, position, layer"),
        ("sparsity", "step, position, layer, expert"),
        ("depth", "step, position, layer, unit, event"),
    ):
        query = f"SELECT {columns} FROM {table} WHERE run = ? ORDER BY ALL"
        assert one.sql(query, [whole.id]).fetchall() == one.sql(query, [pieces.id]).fetchall(), table
    load = "SELECT layer, expert, choices FROM expert_load(?) ORDER BY ALL"
    assert one.sql(load, [whole.id]).fetchall() == one.sql(load, [pieces.id]).fetchall()
    passes = "SELECT count(*), min(seconds) > 0 FROM cost WHERE run = ? AND op = 'pass'"
    assert one.sql(passes, [whole.id]).fetchone() == (4, True)
    assert one.sql(passes, [pieces.id]).fetchone() == (8, True)


def test_recording_changes_no_bit_of_a_prompt_in_pieces(bench: Any) -> None:
    one = bench("olmoe")
    assert torch.equal(
        one.generate(PROMPT, 3, prefill=7).logits, one.generate(PROMPT, 3, record=None, prefill=7).logits
    )


def test_what_needs_the_whole_prompt_is_refused(bench: Any) -> None:
    one = bench("olmoe")
    ahead = wb.reroute.expert_choice("all", phase="prefill")
    with pytest.raises(wb.errors.EditRefused, match="read in pieces"):
        one.generate(PROMPT, 2, ahead, prefill=5)
    with pytest.raises(wb.errors.PromptError, match="0 tokens a pass"):
        one.generate(PROMPT, 2, prefill=0)


def test_seconds_of_a_batch_are_shared_and_belong_to_passes_and_experts(bench: Any) -> None:
    one = bench("olmoe")
    runs = one.run([PROMPT, PROMPT[:6]])
    for op, groups in (("pass", 1), ("moe_experts", one.anatomy.num_layers)):
        query = "SELECT layer, seconds FROM cost WHERE op = ? AND run = ? ORDER BY layer"
        long, short = (one.sql(query, [op, run.id]).fetchall() for run in runs)
        assert len(long) == len(short) == groups
        for mine, other in zip(long, short, strict=True):
            assert mine[0] == other[0] and mine[1] / other[1] == pytest.approx(23 / 6, rel=1e-6)
    whole, experts = (
        one.sql("SELECT sum(seconds) FROM cost WHERE op = ? AND run = ?", [op, runs[0].id]).fetchone()[0]
        for op in ("pass", "moe_experts")
    )
    assert 0 < experts < whole
