"""Labels of runs are kept as JSON has them, and what cannot be kept is refused before anything runs."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import workbench as wb
from workbench.errors import PromptError
from workbench.runtime.labels import plain


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a", "a"), (3, 3), (True, True), (None, None), (0.5, 0.5), (float("nan"), None), ([1, (2, "b")], [1, [2, "b"]]),
        ({"x": {"y": 1}}, {"x": {"y": 1}}), (np.int64(4), 4), (np.float32(0.25), 0.25), (np.bool_(True), True),
        (np.float64("nan"), None), (torch.tensor(7), 7), (pd.NA, None), (pd.NaT, None),
        (datetime.date(2024, 2, 29), "2024-02-29"),
    ],
)  # fmt: skip
def test_what_json_has_is_kept(given: Any, kept: Any) -> None:
    assert plain({"label": given}) == {"label": kept}
    assert type(plain({"label": given})["label"]) is type(kept)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("x", "type str is not a set of labels"), (5, "type int is not"), ({1: "a"}, "no text for a name"),
        ({"a": object()}, "type object"), ({"a": float("inf")}, "infinite"), ({"a": np.zeros(3)}, "type ndarray"),
        ({"a": {"b": {2}}}, "type set"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_and_loses_no_row(bench: Any, given: Any, why: str) -> None:
    one = bench("olmoe")
    before = one.run([1, 2, 3], labels={"kind": "before"})
    for ask in (
        lambda: one.run([1, 2, 3], labels=given),
        lambda: one.run([[1, 2, 3], [4, 5]], labels=[{}, given]),
        lambda: one.generate([1, 2, 3], labels=given),
        lambda: one.live([1, 2, 3], labels=given),
        lambda: one.import_routes([1, 2, 3], np.zeros((3, 3, 2), int), labels=given),
    ):
        with pytest.raises(PromptError, match=why):
            ask()
    one.store.flush()
    assert one.sql("SELECT run, labels->>'kind' FROM run").fetchall() == [(before.id, "before")]


def test_labels_of_many_prompts(bench: Any) -> None:
    one = bench("olmoe")
    runs = one.run([[1, 2, 3], [4, 5]], labels=[{"n": np.int64(1)}, {"n": 2}])
    told = dict(one.sql("SELECT run, CAST(labels->>'n' AS INTEGER) FROM run").fetchall())
    assert [told[run.id] for run in runs] == [1, 2] and [run.labels for run in runs] == [{"n": 1}, {"n": 2}]
    for wrong, why in (([{}], "1 sets of labels for 2 prompts"), ("ab", "type str")):
        with pytest.raises(PromptError, match=why):
            one.run([[1, 2, 3], [4, 5]], labels=wrong)


def test_plans_and_generations_say_what_they_are(bench: Any) -> None:
    plan = wb.Plan([wb.reroute.ban(1, 2), wb.skip.block(0)])
    assert str(plan) == "ban expert 2 in layer 1, all tokens\nskip the block in layer 0, all tokens"
    assert eval(repr(plan), {"wb": wb}) == plan
    live = bench("olmoe").live([1, 2, 3])
    live.step()
    assert repr(live) == f"Live(run={live.run}, tokens=4, open, text='')"
    live.finish()
    assert "finished" in repr(live)
