"""The record of the work: what an edit leaves out is counted as left out, and every row names what computed it."""

from __future__ import annotations

from typing import Any

import pytest
import routing_kernels
from tiny_models import build_tiny

import workbench as wb

IDS = list(range(1, 61))


@pytest.mark.slow
def test_what_is_left_out_is_counted_and_every_row_names_its_kernels(bench: Any) -> None:
    one = bench(build_tiny("olmoe"))

    def work(run: Any, op: str) -> tuple[int, int]:
        found = "SELECT sum(executed), sum(skipped) FROM cost WHERE run = ? AND op = ? AND layer = 1"
        return one.sql(found, [run.id, op]).fetchone()

    native = one.run(IDS)
    chosen = "SELECT count(*) FROM routing WHERE run = ? AND layer = 1 AND expert IN (1, 4)"
    (named,) = one.sql(chosen, [native.id]).fetchone()
    slots = one.sql("SELECT count(*) FROM routing WHERE run = ? AND layer = 1", [native.id]).fetchone()[0]
    assert work(native, "moe_experts") == (slots, 0) and 0 < named < slots
    # Slots of two experts, half of all tokens, a quarter of the neurons, all blocks beside the diagonal.
    dropped = one.run(IDS, wb.mask.experts(1, [1, 4]))
    assert work(dropped, "moe_experts") == (slots - named, named)
    fewer = one.run(IDS, wb.skip.tokens(1, capacity=0.5, score="position"))
    assert work(fewer, "block") == (30, 30) and work(fewer, "moe_experts") == (slots // 2, 0)
    narrow = one.run(IDS, wb.mask.neurons(1, list(range(12))))
    done, left = work(narrow, "sparse_mlp")
    assert left * 4 == done + left == slots * 48
    diagonal = one.run(IDS, wb.mask.attention(1, "explicit", blocks=[], block=16, sinks=0))
    heads = one.model.config.num_attention_heads
    assert work(diagonal, "attention_blocks") == (4 * heads, 6 * heads)
    assert one.sql(
        "SELECT DISTINCT backend, isa FROM cost WHERE executed > 0 AND op <> 'pass'"
    ).fetchall() == [routing_kernels.resolve("cpu")]
