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


def test_a_block_closes_when_enough_choices_are_summed(record):
    recording = record(0, runs=5)
    assert recording.store.summarise(recording.runs[:1]) == 1
    assert blocks(recording.store) == {}
    assert recording.store.summarise() == 4
    assert blocks(recording.store) == {101: [101, 102], 103: [103, 104]}
    assert recording.store.summarise() == 0


@pytest.fixture
def half_summed(record):
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


def test_runs_summed_by_an_older_version_are_put_into_blocks(tmp_path, record):
    recording = record(2, runs=4)
    recording.store.summarise()
    path = tmp_path / "old.duckdb"
    with duckdb.connect(str(path)) as old:
        old.execute((Path(__file__).parent / "schemas" / "3.sql").read_text(encoding="utf-8"))
        old.execute("INSERT INTO workbench_schema VALUES (3, now() AT TIME ZONE 'UTC')")
        for table in ("routing", "run", "summarised", *summary.SUMS):
            old.register("rows", recording.store.sql(f"FROM {table}").to_arrow_table())
            old.execute(f"INSERT INTO {table} BY NAME SELECT * FROM rows")
    wanted = counted(recording.routing, recording.runs)
    with Store.open(path, share=False) as store:
        assert store.sql("SELECT max(version) FROM workbench_schema").fetchall() == [(schema.VERSION,)]
        assert store.sql("SELECT count(*) FROM summarised").fetchall() == [(4,)]
        same(totals(store, recording.runs), wanted)
        assert store.summarise() == 0 and blocks(store) == {101: [101, 102], 103: [103, 104]}
        same(totals(store, recording.runs), wanted)
