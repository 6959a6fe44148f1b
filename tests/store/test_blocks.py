"""Sums over blocks of runs answer what the sums of single runs answer, also when runs are added, deleted or exported."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.store import TABLES, Store, open_parquet, pools, schema, summary


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(summary, "PIECE", 1)  # every run alone, so that blocks close where they should
    monkeypatch.setattr(summary, "BLOCK", 200)  # two runs of 17 tokens, 3 layers and 2 choices
    monkeypatch.setattr(summary, "FIRST", 200)


@pytest.fixture(params=[0, 1000], ids=["sums by run", "sums by block alone"])
def _worth(request, monkeypatch):
    monkeypatch.setattr(summary, "WORTH", request.param)


Totals = tuple[dict[tuple, int], dict[tuple, tuple[int, int, float]], dict[tuple, int]]


def counted(routing: pd.DataFrame, runs: list[int]) -> Totals:
    """Tokens by pair of experts and by experts of a layer and the next, and choices by place, counted in the frame."""
    chosen = defaultdict(set)
    best = {}
    for row in routing[routing.run.isin(runs)].itertuples():
        chosen[row.run, row.position, row.layer].add(row.expert)
        if row.rank == 0:
            best[row.run, row.position, row.layer] = row.expert
    pairs: Counter[tuple] = Counter()
    following: defaultdict[tuple, np.ndarray] = defaultdict(lambda: np.zeros(3))
    after = {1: 2, 2: 5}
    for (run, position, layer), experts in chosen.items():
        opening = position == 0
        pairs.update((layer, a, b, opening) for a in experts for b in experts if a <= b)
        if layer not in after:
            continue
        reached = chosen[run, position, after[layer]]
        for a, b in itertools.product(experts, reached):
            learnt = a == best[run, position, layer] and position % 2 == 0
            tried = a == best[run, position, layer] and position % 2 == 1
            following[layer, after[layer], a, b, opening] += (1, learnt, tried / len(reached))
    asked = routing[routing.run.isin(runs)]
    places = Counter(zip(asked.layer, asked.position // 128, asked.expert, asked.position == 0, strict=True))
    return dict(pairs), {key: tuple(value) for key, value in following.items()}, dict(places)


def totals(store, runs: list[int]) -> Totals:
    """The same by the macros."""
    ask = store.sql if isinstance(store, Store) else store.execute
    pairs = ask(
        f"SELECT layer, expert, other, opening, sum(tokens) FROM pair_totals({runs}) GROUP BY ALL"
    ).fetchall()
    following = ask(
        "SELECT layer, next_layer, expert, next_expert, opening, sum(tokens), sum(seen), sum(tried) "
        f"FROM next_totals({runs}) GROUP BY ALL"
    ).fetchall()
    places = ask(
        f"SELECT layer, place, expert, opening, sum(choices) FROM place_totals({runs}) GROUP BY ALL"
    ).fetchall()
    return (
        {tuple(row[:-1]): row[-1] for row in pairs},
        {tuple(row[:5]): tuple(row[5:]) for row in following},
        {tuple(row[:-1]): row[-1] for row in places},
    )


def same(found: Totals, wanted: Totals) -> None:
    assert found[0] == wanted[0] and found[2] == wanted[2]
    assert found[1].keys() == wanted[1].keys()
    for key, values in wanted[1].items():
        np.testing.assert_allclose(found[1][key], values, rtol=1e-12)


def blocks(store: Store) -> dict[int, list[int]]:
    found = store.sql("SELECT block, list(run ORDER BY run) FROM block_run GROUP BY block ORDER BY block")
    return dict(found.fetchall())


@pytest.mark.usefixtures("_worth")
def test_a_block_closes_when_enough_choices_are_summed(record):
    recording = record(0, runs=5)
    assert recording.store.summarise(recording.runs[:1]) == 1
    assert blocks(recording.store) == {}
    assert recording.store.summarise() == 4
    assert blocks(recording.store) == {101: [101, 102], 103: [103, 104]}
    assert recording.store.summarise() == 0


@pytest.mark.usefixtures("_worth")
def test_runs_of_other_weights_are_in_other_blocks(record):
    recording = record(0, runs=5)
    for run, weights in zip(recording.runs, "abaab", strict=True):
        recording.store.cursor().execute("UPDATE run SET checkpoint = ? WHERE run = ?", [weights, run])
    recording.store.summarise()
    assert blocks(recording.store) == {101: [101, 103], 102: [102, 105]}
    same(totals(recording.store, [101, 103, 104]), counted(recording.routing, [101, 103, 104]))


@pytest.fixture
def half_summed(record, _worth):
    """Five runs: two blocks and one run whose sums are not kept."""
    recording = record(1, runs=5)
    recording.store.summarise(recording.runs[:4])
    return recording


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(asked=st.lists(st.integers(101, 105), min_size=1, unique=True))
def test_any_runs_are_answered_as_from_their_rows(half_summed, asked):
    store = half_summed.store
    whole = {b for b, runs in blocks(store).items() if set(runs) <= set(asked)}
    assert {row[0] for row in store.sql(f"FROM whole_blocks({asked})").fetchall()} == whole
    outside = [row[0] for row in store.sql(f"FROM runs_outside({asked}) ORDER BY id").fetchall()]
    assert outside == sorted(set(asked) - {run for b in whole for run in blocks(store)[b]})
    same(totals(store, asked), counted(half_summed.routing, asked))


def test_totals_of_whole_blocks_are_read_from_the_blocks(half_summed):
    store = half_summed.store
    for table, (macro, _, (added, *_)) in summary.BLOCKS.items():
        store.cursor().execute(f"UPDATE {table} SET {added} = {added} + 1000")
        of_block = store.sql(f"SELECT min({added}) FROM {macro}([101, 102])").fetchall()[0][0]
        of_runs = store.sql(f"SELECT max({added}) FROM {macro}([101, 103, 105])").fetchall()[0][0]
        assert of_block > 1000 > of_runs


def test_a_deleted_run_leaves_nothing_behind(half_summed):
    store, runs = half_summed.store, half_summed.runs
    store.write("token", {"run": runs, "step": 0, "position": 0, "token": 1})
    kept = [run for run in runs if run != 102]
    wanted = counted(half_summed.routing, kept)
    assert store.delete([102, 999]) == 1
    assert blocks(store) == {103: [103, 104]}
    for table in TABLES:
        if "run" in store._columns[table]:
            assert store.sql(f'SELECT count(*) FROM "{table}" WHERE run = 102').fetchall() == [(0,)], table
    same(totals(store, runs), wanted)
    assert store.sql("SELECT count(*) FROM token").fetchall() == [(4,)]
    assert store.summarise() == 1, "the run whose sums were not kept"
    assert blocks(store) == {101: [101, 105], 103: [103, 104]}
    same(totals(store, runs), wanted)
    assert store.delete(102) == 0


@pytest.mark.slow
def test_exports_of_some_runs_take_no_blocks_and_those_of_all_do(half_summed, tmp_path):
    store, some = half_summed.store, [101, 103, 104]
    store.export(tmp_path / "some.duckdb", some)
    store.export(tmp_path / "all.duckdb")
    for number, part in enumerate(([101, 102], [103, 104, 105])):
        store.export(tmp_path / f"{number}.parquet", part)
    with Store.open(tmp_path / "some.duckdb", share=False) as part:
        assert blocks(part) == {}
        same(totals(part, some), counted(half_summed.routing, some))
    with Store.open(tmp_path / "all.duckdb", share=False) as whole:
        assert blocks(whole) == blocks(store)
    joined = open_parquet(tmp_path / "0.parquet", tmp_path / "1.parquet")
    same(totals(joined, half_summed.runs), counted(half_summed.routing, half_summed.runs))


def test_runs_summed_by_an_older_version_are_put_into_blocks(tmp_path, record, monkeypatch):
    monkeypatch.setattr(summary, "WORTH", 0)  # every run had sums by pairs of its own
    recording = record(2, runs=4)
    recording.store.summarise()
    added = {"summarised": "EXCLUDE (pairs)", "expert_sum": "EXCLUDE (sets)"}
    path = tmp_path / "old.duckdb"
    with duckdb.connect(str(path)) as old:
        old.execute((Path(__file__).parent / "schemas" / "3.sql").read_text(encoding="utf-8"))
        old.execute("INSERT INTO workbench_schema VALUES (3, now() AT TIME ZONE 'UTC')")
        for table in ("routing", "run", "summarised", *summary.SUMS):
            columns = f"SELECT * {added.get(table, '')} FROM {table}"
            old.register("rows", recording.store.sql(columns).to_arrow_table())
            old.execute(f"INSERT INTO {table} BY NAME SELECT * FROM rows")
    wanted = counted(recording.routing, recording.runs)
    with Store.open(path, share=False) as store:
        assert store.sql("SELECT max(version) FROM workbench_schema").fetchall() == [(schema.VERSION,)]
        assert store.sql("SELECT count(*) FROM summarised").fetchall() == [(4,)]
        same(totals(store, recording.runs), wanted)
        assert store.summarise() == 0 and blocks(store) == {101: [101, 102], 103: [103, 104]}
        same(totals(store, recording.runs), wanted)
        sets = "SELECT layer, expert, expert, opening, sum(sets) FROM expert_cells(?) GROUP BY ALL"
        found = {tuple(row[:4]): row[4] for row in store.sql(sets, [recording.runs]).fetchall()}
        assert found == {key: count for key, count in wanted[0].items() if key[1] == key[2]}


def test_only_runs_of_many_choices_keep_sums_by_pairs_of_their_own(record, monkeypatch):
    monkeypatch.setattr(summary, "WORTH", 3)
    monkeypatch.setattr(summary, "BLOCK", 10_000)
    recording = record(3, runs=2, tokens=17)  # 102 choices; 6 experts in 3 layers make 108 pairs
    store = recording.store
    for layer in recording.layers:  # 330 choices of a third run
        at = np.repeat(np.arange(55), 2)
        slot = np.tile([0, 1], 55)
        columns = {"layer": layer, "slot": slot, "expert": (at + slot) % 6, "weight": 0.5, "rank": slot}
        store.write("routing", {"run": 90, "step": 0, "position": at, **columns})
    store.write("run", {"run": [90]})
    store.summarise()
    assert store.sql("SELECT run, choices, pairs FROM summarised ORDER BY run").fetchall() == [
        (90, 330, True), (101, 102, False), (102, 102, False),
    ]  # fmt: skip
    assert store.sql("FROM unpaired([90, 101, 102]) ORDER BY id").fetchall() == [(101,), (102,)]
    for table in summary.OF_PAIRS:
        assert store.sql(f"SELECT DISTINCT run FROM {table}").fetchall() == [(90,)]
    assert blocks(store) == {101: [101, 102]}


def count_across(routing: pd.DataFrame) -> Counter:
    """Tokens by best experts of two layers, counted in the frame."""
    best = routing[routing["rank"] == 0].set_index(["run", "position", "layer"]).expert.to_dict()
    found: Counter[tuple] = Counter()
    for (run, position, layer), expert in best.items():
        for other in (2, 5):
            if layer < other:
                found[layer, other, expert, best[run, position, other], position == 0] += 1
    return found


def test_large_blocks_hold_sums_across_layers_and_by_label(half_summed, monkeypatch):
    monkeypatch.setattr(summary, "VALUES", 3)
    store, routing = half_summed.store, half_summed.routing
    summary.drop_blocks(store.cursor(), half_summed.runs)  # made anew, with labels
    places = routing[["run", "position"]].drop_duplicates()
    label = {(r.run, r.position): "abc"[(r.run * 7 + r.position) % 3] for r in places.itertuples()}
    at = {"run": places.run.to_numpy(), "position": places.position.to_numpy()}
    store.write("token_label", {**at, "label": "kind", "value": list(label.values())})
    store.write("token_label", {**at, "label": "place", "value": [str(place) for place in label]})
    store.summarise([])
    assert store.sql("SELECT DISTINCT large FROM block_run").fetchall() == [(True,)]
    assert store.sql("SELECT DISTINCT label FROM label_block").fetchall() == [("kind",)], (
        "'place' has too many values"
    )
    asked = half_summed.runs
    across = "SELECT layer, other_layer, expert, other_expert, opening, sum(tokens) FROM across_totals(?) GROUP BY ALL"
    assert {row[:5]: row[5] for row in store.sql(across, [asked]).fetchall()} == count_across(routing)
    labels = Counter(
        (r.layer, label[r.run, r.position], r.expert, r.position == 0) for r in routing.itertuples()
    )
    by_label = "SELECT layer, value, expert, opening, sum(choices) FROM label_totals(?, 'kind') GROUP BY ALL"
    assert {row[:4]: row[4] for row in store.sql(by_label, [asked]).fetchall()} == labels
    for table in ("across_block", "label_block"):  # they are what answers
        before = store.sql(f"SELECT count(*) FROM {table}").fetchall()
        assert before > [(0,)]
        store.cursor().execute(f"DELETE FROM {table}")
    assert not store.sql(f"FROM across_totals({[101, 102]})").fetchall()
    assert not store.sql(f"FROM label_totals({[101, 102]}, 'kind')").fetchall()
    assert store.sql(f"FROM across_totals({[101]})").fetchall(), "a run of a block is counted"


def test_labels_written_to_a_summed_run_are_seen(half_summed):
    store = half_summed.store
    summary.drop_blocks(store.cursor(), half_summed.runs)
    at = {"run": 101, "position": np.arange(17)}
    store.write("token_label", {**at, "label": "kind", "value": "old"})
    store.summarise([])
    assert store.sql("SELECT block, label FROM block_label").fetchall() == [(101, "kind")]
    (marks,) = store.sql("FROM label_marks([101, 102])").fetchall()
    assert marks == store.sql("FROM block_label").fetchall()[0]
    question = "SELECT value, sum(choices) FROM label_totals(?, 'kind') GROUP BY value ORDER BY value"
    assert store.sql(question, [half_summed.runs]).fetchall() == [("old", 17 * 3 * 2)]
    store.cursor().execute("UPDATE token_label SET value = 'new' WHERE position < 5")
    store.write("token_label", {"run": 102, "position": 3, "label": "kind", "value": "old"})
    wanted = [("new", 5 * 3 * 2), ("old", 12 * 3 * 2 + 3 * 2)]
    assert store.sql(question, [half_summed.runs]).fetchall() == wanted


def test_choice_sets_are_kept_as_bits_where_they_are_few_words(record, monkeypatch):
    monkeypatch.setattr(summary, "SETS", 2)
    recording = record(6, runs=1, tokens=9)  # two of six experts: one word
    store = recording.store
    at, slot = np.repeat(np.arange(9), 3), np.tile(np.arange(3), 9)
    spread = {"layer": 1, "slot": slot, "expert": slot * 64 + at, "weight": 0.5, "rank": 2 - slot}
    store.write("routing", {"run": 90, "step": 0, "position": at, **spread})  # one expert a word
    store.write("run", {"run": [90]})
    before = store.sql("FROM set_cells([90, 101]) ORDER BY ALL").fetchall()
    assert [row[4:] for row in before if row[0] == 90 and row[2] == 4] == [
        (0, 16, None),
        (1, 16, None),
        (2, 16, 132),
    ]
    assert store.sql("SELECT count(*) FROM unset([90, 101])").fetchall() == [(2,)]
    store.summarise()
    assert store.sql("SELECT run, kept FROM set_run ORDER BY run").fetchall() == [(90, False), (101, True)]
    assert store.sql("FROM unset([90, 101])").fetchall() == [(90,)]
    assert store.sql("SELECT DISTINCT run FROM set_sum").fetchall() == [(101,)]
    assert store.sql("FROM set_cells([90, 101]) ORDER BY ALL").fetchall() == before
    tops = recording.routing[recording.routing["rank"] == 0]
    found = store.sql("SELECT position, layer, expert FROM top_cells(101) ORDER BY ALL").fetchall()
    assert found == sorted(zip(tops.position, tops.layer, tops.expert, strict=True))


def test_small_blocks_are_joined_to_a_large_one(record, monkeypatch):
    for name, value in (("WORTH", 1000), ("FIRST", 200), ("BLOCK", 600)):
        monkeypatch.setattr(summary, name, value)
    recording = record(4, runs=7)
    store, runs = recording.store, recording.runs
    store.summarise(runs[:4])
    assert blocks(store) == {101: [101, 102], 103: [103, 104]}
    assert store.sql("SELECT DISTINCT large FROM block_run").fetchall() == [(False,)]
    assert store.sql("SELECT count(*) FROM across_block").fetchall() == [(0,)]
    store.summarise(runs[:6])
    assert blocks(store) == {101: [101, 102, 103, 104, 105, 106]}
    assert store.sql("SELECT DISTINCT large FROM block_run").fetchall() == [(True,)]
    for table in (*summary.BLOCKS, "across_block"):
        assert store.sql(f"SELECT DISTINCT block FROM {table}").fetchall() == [(101,)]
    store.summarise()
    assert blocks(store) == {101: [101, 102, 103, 104, 105, 106]}, "one run more is no block yet"
    same(totals(store, runs), counted(recording.routing, runs))


@pytest.fixture(scope="module")
def two_stores():
    """One whose sums are kept and one that always reads its rows."""
    with Store.open(":memory:") as kept, Store.open(":memory:") as plain:
        yield kept, plain


READ_PAIRS = ("coactivation", "expert_affinity", "lookahead", "chunk_sparsity", "pair_cells", "next_cells")
BY_ID = ("context_independence", "token_specialisation")
READ_LARGE = (*BY_ID, "layer_information", "path_counts", "path_summary")
READ_SETS = ("set_cells", "top_cells")


def write_run(stores, run: int, tokens: int, experts: int, k: int, seed: int) -> None:
    """A run of which every other has its last position computed twice, with tokens and two labels of them."""
    rng = np.random.default_rng(seed)
    at = np.append(np.arange(tokens), tokens - 1) if seed % 2 else np.arange(tokens)
    step = np.append(np.zeros(tokens, int), 1) if seed % 2 else np.zeros(tokens, int)
    words = rng.integers(0, 5, tokens)
    for store in stores:
        store.write("token", {"run": run, "step": 0, "position": np.arange(tokens), "token": words,
                              "text": [f" {word}" for word in words]})  # fmt: skip
        for label, values in (("kind", "abc"), ("own", "defghijk")):
            value = [values[position % len(values)] for position in range(tokens)]
            store.write(
                "token_label", {"run": run, "position": np.arange(tokens), "label": label, "value": value}
            )
    for layer in (1, 2, 5):
        chosen = np.stack([rng.permutation(experts)[:k] for _ in at]).reshape(-1)
        slot = np.tile(np.arange(k), len(at))
        columns = {"layer": layer, "slot": slot, "expert": chosen, "weight": 1 / k, "rank": slot}
        for store in stores:
            store.write(
                "routing", {"run": run, "step": np.repeat(step, k), "position": np.repeat(at, k), **columns}
            )
    for store in stores:
        store.write("run", {"run": run, "num_experts": experts})


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=7),
    shape=st.sampled_from([(4, 1), (4, 2), (6, 3), (150, 3)]),
    worth=st.sampled_from([0, 1, 2, 1000]),
    bits=st.sampled_from([0, 1, 2, 1000]),
    values=st.sampled_from([0, 3, 64]),
    steps=st.lists(
        st.tuples(st.sampled_from(["sum some", "sum all", "delete"]), st.integers(0, 6)), max_size=6
    ),
    asked=st.sets(st.integers(0, 6), min_size=1),
    seed=st.integers(0, 2**20),
)
def test_whatever_is_summed_and_deleted_the_answers_are_those_of_the_rows(
    two_stores, sizes, shape, worth, bits, values, steps, asked, seed
):
    kept, plain = two_stores
    runs = list(range(1, len(sizes) + 1))
    for run, tokens in zip(runs, sizes, strict=True):
        write_run(two_stores, run, tokens, *shape, seed + run)
    with pytest.MonkeyPatch.context() as small:
        limits = {"PIECE": 50, "FIRST": 100, "BLOCK": 300, "WORTH": worth, "SETS": bits, "VALUES": values}
        for name, value in limits.items():
            small.setattr(summary, name, value)
        small.setattr(pools, "INTAKE", 60)
        small.setattr(pools, "LARGEST", 400)
        for what, number in steps:
            some = [run for run in runs if run % 7 <= number]
            if what == "delete":
                assert kept.delete(number) == plain.delete(number)
            else:
                kept.summarise(some if what == "sum some" else None)
    ask = [run for run in runs if run - 1 in asked] or runs
    questions = {f"{macro}({ask})": 1e-12 for macro in (*READ_PAIRS, *READ_SETS)}
    questions |= {f"{macro}({ask})": 1e-9 for macro in READ_LARGE}
    questions |= {f"{macro}({ask}, first := true)": 1e-9 for macro in BY_ID}
    questions[f"token_specialisation({ask}, least := 1)"] = 1e-9
    questions |= {f"token_specialisation_by_label({ask}, '{label}')": 1e-12 for label in ("kind", "own")}
    questions |= {f"route_stability({ask[0]}, {ask})": 1e-12}
    for question, rtol in questions.items():
        query = f"FROM {question} ORDER BY ALL"
        pd.testing.assert_frame_equal(
            kept.sql(query).df(),
            plain.sql(query).df(),
            rtol=rtol,
            atol=1e-12,
            check_dtype=False,
            obj=question,
        )
    kept.delete(runs), plain.delete(runs)
    for table in ("block_run", "pool_run", *pools.TABLES):
        assert kept.sql(f"SELECT count(*) FROM {table}").fetchone() == (0,)
