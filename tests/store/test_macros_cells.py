"""Kept sums answer what the rows answer."""

from __future__ import annotations

import math

import numpy as np
import pytest

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
    "expert_cells", "rank_cells", "pair_cells", "next_cells", "layer_cells", "place_cells", "router_cells", "part_cells",
    "sparsity_cells", "position_effect", "drops_by_position", "routing_entropy", "layer_contribution", "depth_score",
    "layer_sparsity", "expert_sparsity",
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


def write_parts(store, runs, seed=0):
    """Rows of router, contribution and sparsity on both sides of position 128, some of them unknown."""
    rng = np.random.default_rng(seed)
    for run in runs:
        cells = {
            "run": run,
            "step": 0,
            "position": np.tile([0, 1, 2, 127, 128, 300], 2),
            "layer": np.repeat([1, 2], 6),
        }
        numbers = rng.random((6, 12)).astype(np.float32)
        gaps = [None if n == 3 else float(x) for n, x in enumerate(numbers[5])]
        store.write("router", {**cells, "margin": gaps, "entropy": numbers[0], "tie": numbers[1] < 0.5,
                               "dropped": rng.integers(0, 3, 12)})  # fmt: skip
        store.write(
            "contribution", {**cells, "attn_norm": gaps, "block_norm": numbers[2], "influence": numbers[3]}
        )
        shares = {"threshold": 0.01, "zero_share": numbers[0], "below_share": numbers[4], "hoyer": gaps}
        sizes = {"expert": rng.integers(0, 3, 12), "width": rng.integers(3, 9, 12)}
        store.write("sparsity", {**cells, **sizes, **shares})


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


@pytest.mark.slow
def test_answers_do_not_change_when_sums_are_kept(record):
    recording = record(3, runs=4, tokens=40)
    store, runs = recording.store, recording.runs
    store.write(
        "routing",
        {"run": runs[0], "step": [1, 1, 2, 2], "position": [40, 40, 41, 41], "layer": 1, "slot": [0, 1, 0, 1],
         "expert": [3, 3, 0, 5], "weight": 0.0, "rank": [0, 1, 0, 1]},
    )  # fmt: skip
    write_parts(store, runs)
    before = answers(store, runs)
    assert store.sql("SELECT count(*) FROM unsummarised(?)", [runs]).fetchone() == (4,)
    assert store.summarise(runs[:2]) == 2
    assert store.sql("FROM unsummarised(?) ORDER BY id", [runs]).fetchall() == [(r,) for r in runs[2:]]
    same(before, answers(store, runs))
    assert store.summarise() == 2 and store.summarise() == 0
    rows = len(recording.routing)
    assert store.sql("SELECT sum(choices) FROM summarised").fetchone() == (rows + 4,)
    same(before, answers(store, runs))


def test_bins_of_any_width_agree_with_the_sums_of_128(record):
    recording = record(5, runs=3, tokens=3)
    store, runs = recording.store, recording.runs
    write_parts(store, runs)
    store.write(
        "routing",
        {"run": runs[0], "step": 0, "position": [127, 128, 255, 256], "layer": 1, "slot": 0, "expert": [1, 2, 2, 3],
         "weight": 1.0, "rank": 0},
    )  # fmt: skip
    store.summarise(runs[:2])
    for macro, places in (("position_effect", [0, 128, 256]), ("drops_by_position", [0, 128, 256])):
        kept = store.sql(f"FROM {macro}({runs})").df()
        rows = store.sql(f"FROM {macro}({runs}, width := 64)").df()
        assert sorted(set(kept.from_position)) == places and set(rows.from_position) >= {0, 128, 256}
        count = "choices" if macro == "position_effect" else "tokens"
        rows["place"] = rows.from_position // 128 * 128
        assert rows.groupby(["layer", "place"])[count].sum().tolist() == kept[count].tolist()


def test_a_question_may_read_some_runs_alone(record):
    recording = record(6, runs=6, tokens=20)
    store, runs = recording.store, recording.runs
    store.write("token", {"run": np.repeat(runs, 20), "step": 0, "position": np.tile(np.arange(20), 6),
                          "token": np.arange(120) % 7, "text": "a"})  # fmt: skip
    store.flush()
    assert store.sql("SELECT count(*) FROM some_runs(?, NULL)", [runs]).fetchone() == (6,)
    assert store.sql("SELECT count(*) FROM some_runs(?, 1)", [runs]).fetchone() == (6,), (
        "no size of a run is known"
    )
    cursor = store.cursor()
    cursor.execute("UPDATE run SET tokens = 20")
    chosen = [run for (run,) in store.sql("FROM some_runs(?, 41) ORDER BY id", [runs]).fetchall()]
    assert len(chosen) == 3 and set(chosen) < set(runs)
    assert store.sql("FROM some_runs(?, 41) ORDER BY id", [runs[::-1]]).fetchall() == [
        (run,) for run in chosen
    ]
    assert store.sql("SELECT count(*) FROM some_runs(?, 1)", [runs]).fetchone() == (1,)
    for macro in ("path_counts", "path_summary", "context_independence", "token_specialisation"):
        some, same = f"FROM {macro}({runs}, most := 41)", f"FROM {macro}({chosen})"
        assert (
            store.sql(some).fetchall()
            == store.sql(same).fetchall()
            != store.sql(f"FROM {macro}({runs})").fetchall()
        )


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


def test_an_expert_chosen_twice_is_in_one_choice_set(store):
    choices = {"position": [1, 1, 1, 2, 2, 2], "slot": [0, 1, 2] * 2, "expert": [3, 4, 3, 4, 4, 4]}
    store.write(
        "routing", {"run": 7, "step": 0, "layer": 2, "weight": 0.25, "rank": [0, 1, 2] * 2, **choices}
    )
    store.write("run", {"run": 7})
    ask = "SELECT expert, choices, sets FROM expert_cells(7) ORDER BY expert"
    assert store.sql(ask).fetchall() == [(3, 2, 1), (4, 4, 2)]
    assert store.summarise() == 1 and store.sql(ask).fetchall() == [(3, 2, 1), (4, 4, 2)]
