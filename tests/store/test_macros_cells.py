"""Kept sums answer what the rows answer."""

from __future__ import annotations

import math

import numpy as np

from workbench.store import schema, summary

CALLS = {
    "specialisation": "{runs}, 'language'",
    "label_information": "{runs}, 'language'",
    "label_null": "{runs}, 'language', shuffles := 5",
    "group_divergence": "{runs}, 'language'",
    "risk_difference": "{runs}, 'language', 'en', 'fr'",
    "load_divergence": "101, {runs}",
    "route_neighbours": "{runs}, {runs}",
}
PLAIN = (
    "expert_load", "load_balance", "expert_importance", "weight_profile", "dataset_entropy", "coactivation",
    "expert_affinity", "chunk_sparsity", "route_repetition", "lookahead", "saliency", "norm_rank",
    "expert_cells", "rank_cells", "pair_cells", "next_cells", "layer_cells",
)  # fmt: skip


def answers(store, runs):
    """The answers of every macro that reads cells, as sorted rows."""
    found = {}
    for name in (*PLAIN, *CALLS):
        arguments = CALLS.get(name, "{runs}").format(runs=runs)
        options = ("", ", first := true") if "first" in parameters(name) else ("",)
        for option in options:
            query = f"FROM {name}({arguments}{option})"
            found[query] = sorted(store.sql(query).fetchall(), key=str)
    return found


def parameters(name):
    return next(doc.arguments for doc in schema.macro_docs() if doc.name == name)


def same(a, b):
    assert a.keys() == b.keys()
    for query in a:
        assert len(a[query]) == len(b[query]) > 0, query
        for left, right in zip(a[query], b[query], strict=True):
            for x, y in zip(left, right, strict=True):
                close = isinstance(x, float) and math.isclose(x, y, rel_tol=1e-9, abs_tol=1e-12)
                assert close or x == y, (query, left, right)


def test_answers_do_not_change_when_sums_are_kept(record):
    recording = record(3, runs=4, tokens=40)
    store, runs = recording.store, recording.runs
    store.write(
        "routing",
        {"run": runs[0], "step": [1, 1, 2, 2], "position": [40, 40, 41, 41], "layer": 1, "slot": [0, 1, 0, 1],
         "expert": [3, 3, 0, 5], "weight": 0.0, "rank": [0, 1, 0, 1]},
    )  # fmt: skip
    before = answers(store, runs)
    assert store.sql("SELECT count(*) FROM unsummarised(?)", [runs]).fetchone() == (4,)
    assert store.summarise(runs[:2]) == 2
    assert store.sql("FROM unsummarised(?) ORDER BY id", [runs]).fetchall() == [(r,) for r in runs[2:]]
    same(before, answers(store, runs))
    assert store.summarise() == 2 and store.summarise() == 0
    rows = len(recording.routing)
    assert store.sql("SELECT sum(choices) FROM summarised").fetchone() == (rows + 4,)
    same(before, answers(store, runs))


def test_a_run_that_goes_on_is_not_summed(store):
    choice = {"step": 0, "position": 1, "layer": 0, "slot": 0, "expert": 2, "weight": 1.0, "rank": 0}
    store.write("routing", {"run": 1, **choice})
    assert store.summarise() == 0
    store.write("run", {"run": [1, 2]})
    assert store.summarise([2]) == 1, "a run without choices is done at once"
    assert store.summarise() == 1
    assert store.sql("SELECT run, choices FROM summarised ORDER BY run").fetchall() == [(1, 1), (2, 0)]


def test_pieces_hold_about_as_many_choices_as_they_may(monkeypatch):
    monkeypatch.setattr(summary, "PIECE", 10)
    runs = [(n, size) for n, size in enumerate([4, 4, 4, 30, 1, 0, 12])]
    found = list(summary.pieces(runs))
    assert [run for piece in found for run in piece] == runs
    assert all(sum(size for _, size in piece[:-1]) <= 10 for piece in found)


def test_enough_ended_runs_are_summed_by_themselves(record, monkeypatch):
    monkeypatch.setattr("workbench.store.store.SUMMARISE_AT", 100)
    recording = record(runs=2)
    recording.store.ended(99)
    assert recording.store._summer is None
    recording.store.ended(1)
    recording.store._summer.join(20)
    assert recording.ask("SELECT count(*) AS n FROM summarised").n[0] == 2
    assert np.isclose(recording.ask("SELECT sum(load) AS s FROM expert_load(101)").s[0], 3)
