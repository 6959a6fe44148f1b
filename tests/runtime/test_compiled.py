"""Compiled models: a graph that was compiled before passes hooks by, so runs go through the model as it is written."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import workbench as wb

IDS = [5, 17, 3, 60, 22, 9]


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
def test_edits_act_on_a_compiled_model(bench: Any, tiny: Any, whole: bool) -> None:
    plain = bench(tiny("olmoe"), kernels="model")
    base, banned = plain.run(IDS).logits, plain.run(IDS, wb.reroute.ban(1, [0, 1, 2])).logits
    model = tiny("olmoe")
    if whole:
        model = torch.compile(model, backend="eager")
    else:
        model.compile(backend="eager")
    with torch.no_grad():
        model(torch.tensor([IDS]), use_cache=False)  # the graph exists before any hook does
    one = bench(model, kernels="model")
    assert torch.equal(one.run(IDS).logits, base)
    run = one.run(IDS, wb.reroute.ban(1, [0, 1, 2]))
    assert torch.equal(run.logits, banned) and not torch.equal(banned, base)
    routed = one.sql(
        "SELECT count(*) FROM routing WHERE run = ? AND layer = 1 AND expert < 3", [run.id]
    ).fetchone()
    assert routed == (0,)
    with torch.no_grad():
        assert torch.equal(model(torch.tensor([IDS]), use_cache=False).logits[0], base)
