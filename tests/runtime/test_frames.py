"""Numbers as data frames and arrays hold them are taken wherever Python's own are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.address import integers
from workbench.analysis import routing_vectors
from workbench.errors import AddressError, PromptError
from workbench.store import Store

IDS = [5, 17, 3, 60, 22, 9, 41, 8]


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_integers_are_those_of_python_in_their_order(values: list[int]) -> None:
    for given_as in (
        values,
        tuple(values),
        np.array(values, dtype=np.int64),
        pd.Series(values, dtype="int64"),
    ):
        found = integers(given_as, "layer")
        assert found == tuple(values) and all(type(one) is int for one in found)
    for one in values[:1]:
        assert integers(np.int64(one), "layer") == integers(one, "layer") == (one,)


@pytest.mark.parametrize(
    "value", [True, "1", b"1", 1.0, None, slice(0, 3), [1, True], [1, "2"], np.array([1.0]), [np.bool_(True)]]
)
def test_what_is_no_integer_is_refused(value: Any) -> None:
    with pytest.raises(AddressError, match="is not a layer number"):
        integers(value, "layer")


def test_numbers_of_a_frame_name_runs_layers_experts_and_tokens(bench: Any, tmp_path: Path) -> None:
    one = bench("olmoe")
    base, edited = one.run(np.array(IDS)), one.run([np.int64(token) for token in IDS], wb.reroute.ban(1, 3))
    plain = one.run(IDS)
    assert torch.equal(base.logits, plain.logits)
    assert torch.equal(one.run(np.array([IDS], dtype=np.int32)).logits, plain.logits)
    batch = one.run([np.array(IDS), np.array(IDS[:3])])
    assert [len(run.tokens) for run in batch] == [8, 3]

    rows = one.sql("SELECT run, layer, expert FROM routing WHERE run = ? AND layer = 1", [base.id]).df()
    run, layer, expert = (rows[column][0] for column in rows)
    assert all(isinstance(value, np.integer) for value in (run, layer, expert))
    assert wb.reroute.ban(layer, [expert]) == wb.reroute.ban(1, int(expert))
    assert wb.reroute.ban(rows.layer, rows.expert.unique()[:2]).layers == (1,)
    assert wb.skip.block(layer, tokens=rows.layer.unique()) == wb.skip.block(1, tokens=[1])
    assert wb.mask.heads(layer, expert % 2) == wb.mask.heads(1, int(expert) % 2)
    assert wb.Record(layers=rows.layer.unique()) == wb.Record(layers=[1])

    assert one.diff(run, np.int64(edited.id)).flips.equals(one.diff(base.id, edited.id).flips)
    expected = one.sql("FROM expert_load(?)", [base.id]).fetchall()
    assert one.sql("FROM expert_load(?)", [run]).fetchall() == expected
    assert one.sql("FROM expert_load($run)", {"run": run}).fetchall() == expected
    assert routing_vectors(one, run).equals(routing_vectors(one, base.id))
    assert torch.equal(
        base.tensor("resid_post", layers=layer, tokens=np.int64(2)),
        base.tensor("resid_post", layers=1, tokens=2),
    )
    assert one.counterfactual(base, 2, layer).equals(one.counterfactual(base, 2, 1))

    with Store.open(one.store.export(tmp_path / "one.duckdb", runs=rows.run.unique())) as other:
        assert other.sql("SELECT run FROM run").fetchall() == [(base.id,)]
        assert other.delete(run) == 1


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda one, _: one.run(b"abc"), "bytes is not a prompt"),
        (lambda one, _: one.run(torch.tensor([1.5, 2.0])), "dtype torch.float32 are not integers"),
        (lambda one, _: one.run(torch.tensor([True, False])), "dtype torch.bool are not integers"),
        (lambda one, _: one.run(np.array(["a"])), "dtype <U1 are not integers"),
        (lambda one, _: one.run(np.array([1, "a"], dtype=object)), "dtype object are not integers"),
        (lambda one, _: one.run(np.array([[1, 2], [3, 4]])), "not one sequence"),
        (lambda one, _: one.run([1, True]), "not a prompt"),
        (lambda one, run: one.diff("a", run), "str is not a run"),
        (lambda one, run: one.diff(run, 1.5), "float is not a run"),
    ],
)
def test_what_only_looks_like_numbers_is_refused(
    bench: Any, ask: Callable[[Any, Any], Any], words: str
) -> None:
    one = bench("olmoe")
    run = one.run(IDS)
    with pytest.raises(PromptError, match=words):
        ask(one, run)
