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

from workbench.store import TABLES, Store, open_parquet, schema, summary


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


def test_small_blocks_are_joined_to_a_large_one(record, monkeypatch):
    for name, value in (("WORTH", 1000), ("FIRST", 200), ("BLOCK", 600)):
        monkeypatch.setattr(summary, name, value)
    recording = record(4, runs=7)
    store, runs = recording.store, recording.runs
    store.summarise(runs[:4])
    assert blocks(store) == {101: [101, 102], 103: [103, 104]}
    store.summarise(runs[:6])
    assert blocks(store) == {101: [101, 102, 103, 104, 105, 106]}
    for table in summary.BLOCKS:
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


def write_run(stores, run: int, tokens: int, experts: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for layer in (1, 2, 5):
        chosen = np.stack([rng.permutation(experts)[:k] for _ in range(tokens)]).reshape(-1)
        slot = np.tile(np.arange(k), tokens)
        columns = {"layer": layer, "slot": slot, "expert": chosen, "weight": 1 / k, "rank": slot}
        for store in stores:
            store.write(
                "routing", {"run": run, "step": 0, "position": np.repeat(np.arange(tokens), k), **columns}
            )
    for store in stores:
        store.write("run", {"run": run, "num_experts": experts})


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=7),
    shape=st.sampled_from([(4, 1), (4, 2), (6, 3)]),
    worth=st.sampled_from([0, 1, 2, 1000]),
    steps=st.lists(
        st.tuples(st.sampled_from(["sum some", "sum all", "delete"]), st.integers(0, 6)), max_size=6
    ),
    asked=st.sets(st.integers(0, 6), min_size=1),
    seed=st.integers(0, 2**20),
)
def test_whatever_is_summed_and_deleted_the_answers_are_those_of_the_rows(
    two_stores, sizes, shape, worth, steps, asked, seed
):
    kept, plain = two_stores
    runs = list(range(1, len(sizes) + 1))
    for run, tokens in zip(runs, sizes, strict=True):
        write_run(two_stores, run, tokens, *shape, seed + run)
    with pytest.MonkeyPatch.context() as small:
        for name, value in (("PIECE", 50), ("FIRST", 100), ("BLOCK", 300), ("WORTH", worth)):
            small.setattr(summary, name, value)
        for what, number in steps:
            some = [run for run in runs if run % 7 <= number]
            if what == "delete":
                assert kept.delete(number) == plain.delete(number)
            else:
                kept.summarise(some if what == "sum some" else None)
    ask = [run for run in runs if run - 1 in asked] or runs
    for macro in READ_PAIRS:
        query = f"FROM {macro}({ask}) ORDER BY ALL"
        pd.testing.assert_frame_equal(
            kept.sql(query).df(), plain.sql(query).df(), rtol=1e-12, check_dtype=False
        )
    kept.delete(runs), plain.delete(runs)
    assert kept.sql("SELECT count(*) FROM block_run").fetchone() == (0,)
