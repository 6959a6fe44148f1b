"""Pools of runs: choices by layer, token id and expert that questions by token id begin with."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from workbench.store import Store, open_parquet, pools

INTAKE = 100
"""Choices: a run of the recording has 102."""


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(pools, "INTAKE", INTAKE)
    monkeypatch.setattr(pools, "PIECE", 2 * INTAKE)


@pytest.fixture
def read(record):
    """Five runs whose tokens have one of five ids; the last position of the second was computed twice."""
    recording = record(0, runs=5)
    rng = np.random.default_rng(1)
    places = [(run, position) for run in recording.runs for position in range(17)]
    recording.ids = {place: int(rng.integers(5)) for place in places}
    at = {"run": [run for run, _ in places], "position": [position for _, position in places]}
    ids = list(recording.ids.values())
    recording.store.write("token", {**at, "step": 0, "token": ids, "text": [f" {token}" for token in ids]})
    recording.store.write("token", {"run": 102, "position": 16, "step": 1, "token": 99, "text": " 99"})
    recording.ids[102, 16] = 99
    recording.store.flush()
    return recording


def count(recording, runs, *, first: bool = False) -> tuple[Counter, Counter]:
    """Choices and best experts by layer, token id and expert, counted in the frame."""
    choices, tops = Counter(), Counter()
    for row in recording.routing.itertuples():
        if row.run in runs and (first or row.position > 0):
            cell = (row.layer, recording.ids[row.run, row.position], row.expert)
            choices[cell] += 1
            tops[cell] += row.rank == 0
    return choices, tops


def members(store: Store) -> dict[int, list[int]]:
    found = store.sql("SELECT pool, list(run ORDER BY run) FROM pool_run GROUP BY pool ORDER BY pool")
    return dict(found.fetchall())


def held(store: Store, pool: int) -> tuple[Counter, Counter]:
    """The cells of a pool, after a look at what is kept beside them."""
    rows = store.sql("SELECT * EXCLUDE (pool) FROM token_pool WHERE pool = ?", [pool]).fetchall()
    choices, tops = Counter(), Counter()
    for layer, token, tokens, slots, spread, best, experts, choices_of, tops_of in rows:
        assert (tokens, slots) == (sum(tops_of), sum(choices_of))
        assert spread == pytest.approx(sum(n * np.log(n) for n in choices_of), abs=1e-9)
        top = max(tops_of)
        assert (best >> 16, 65535 - (best & 65535)) == (
            top, min(e for e, n in zip(experts, tops_of, strict=True) if n == top)
        )  # fmt: skip
        for expert, n, of_top in zip(experts, choices_of, tops_of, strict=True):
            assert n > 0
            choices[layer, token, expert] += n
            tops[layer, token, expert] += of_top
    assert len(rows) == len({(layer, token) for layer, token, _ in choices})
    of_expert = Counter(), Counter()
    for (layer, _, expert), n in choices.items():
        of_expert[0][layer, expert] += n
    for (layer, _, expert), n in tops.items():
        of_expert[1][layer, expert] += n
    kept = store.sql("SELECT layer, expert, choices, tops FROM expert_pool WHERE pool = ?", [pool]).fetchall()
    assert {(layer, expert): (n, of_top) for layer, expert, n, of_top in kept} == {
        key: (n, of_expert[1][key]) for key, n in of_expert[0].items()
    }
    return choices, tops


def test_runs_are_taken_in_and_given_back(read):
    store, runs = read.store, read.runs
    store.summarise(runs[:1])
    assert members(store) == {101: [101]}
    assert held(store, 101) == count(read, runs[:1])
    store.summarise()
    assert members(store) == {101: runs}
    assert held(store, 101) == count(read, runs)
    store.delete([101, 103])
    left = [102, 104, 105]
    assert members(store) == {101: left}
    assert held(store, 101) == count(read, left)
    store.delete(left)
    assert members(store) == {}
    for table in pools.TABLES:
        assert store.sql(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]


def test_fewer_choices_wait(read, monkeypatch):
    monkeypatch.setattr(pools, "INTAKE", 3 * INTAKE)
    monkeypatch.setattr(pools, "PIECE", 3 * INTAKE)
    store = read.store
    store.summarise([101, 102])
    assert members(store) == {}
    store.summarise([104])
    assert members(store) == {101: [101, 102, 104]}
    store.summarise()
    assert members(store) == {101: [101, 102, 104]}, "two more are few"
    assert held(store, 101) == count(read, [101, 102, 104])


def test_a_full_pool_is_followed_by_another(read, monkeypatch):
    monkeypatch.setattr(pools, "PIECE", INTAKE)
    monkeypatch.setattr(pools, "LARGEST", 2 * INTAKE)
    store = read.store
    store.summarise()
    assert members(store) == {101: [101, 102], 103: [103, 104], 105: [105]}
    for pool, runs in members(store).items():
        assert held(store, pool) == count(read, runs)
    store.delete(103)
    assert members(store) == {101: [101, 102], 103: [104], 105: [105]}


def test_runs_of_other_weights_have_a_pool_of_their_own(read):
    store = read.store
    for run, weights in zip(read.runs, "abaab", strict=True):
        store.cursor().execute("UPDATE run SET checkpoint = ? WHERE run = ?", [weights, run])
    store.summarise()
    assert members(store) == {101: [101, 103, 104], 102: [102, 105]}
    for pool, runs in members(store).items():
        assert held(store, pool) == count(read, runs)


ASKED = {
    "all": [101, 102, 103, 104, 105],
    "one less": [101, 103, 104, 105],
    "some that no pool has": [101, 102, 103],
    "few": [101, 105],
    "one": [104],
}


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_a_question_counts_what_its_pool_has_too_few_and_too_many_of(read, asked, first):
    store = read.store
    store.summarise(read.runs[:4])
    assert members(store) == {101: [101, 102, 103, 104]}
    begins = store.sql(f"FROM pool_for({asked})").fetchall()
    inside = len(set(asked) & {101, 102, 103, 104})
    assert begins == ([(101,)] if inside > 4 - inside else [])
    changes = dict(store.sql(f"FROM pool_changes({asked})").fetchall())
    before = {101, 102, 103, 104} if begins else set()
    assert changes == {
        run: "kept" if run in before and run in asked else "added" if run in asked else "removed"
        for run in before | set(asked)
    }
    ids = store.sql(f"FROM changed_ids({asked}, first := {first})").fetchall()
    wanted = {
        (run, position, read.ids[run, position], -1 if state == "removed" else 1)
        for run, state in changes.items() for position in range(17)
        if (position > 0 and state != "kept") or (position == 0 and first and state != "removed")
    }  # fmt: skip
    assert sorted(ids) == sorted(wanted)
    choices, tops = count(read, asked, first=first)
    of_pool = count(read, before)
    found = {
        name: {
            tuple(row[:3]): tuple(row[3:])
            for row in store.sql(f"FROM {name}({asked}, first := {first})").fetchall()
        }
        for name in ("token_changes", "top_changes")
    }
    for cell in {*choices, *of_pool[0], *found["token_changes"]}:
        moved = choices[cell] - of_pool[0][cell], tops[cell] - of_pool[1][cell]
        assert found["token_changes"].get(cell, (0, 0)) == moved
        assert found["top_changes"].get(cell, (0,)) == moved[1:]


QUESTIONS = (
    "context_independence(?)",
    "context_independence(?, first := true)",
    "token_specialisation(?, least := 1)",
    "token_specialisation(?, least := 3, first := true)",
)


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_answers_are_those_of_the_rows(read, asked):
    before = [read.ask(f"FROM {question} ORDER BY ALL", [asked]) for question in QUESTIONS]
    read.store.summarise(read.runs[:4])
    for question, wanted in zip(QUESTIONS, before, strict=True):
        assert len(wanted)
        found = read.ask(f"FROM {question} ORDER BY ALL", [asked])
        pd.testing.assert_frame_equal(found, wanted, rtol=1e-9, obj=question)


def test_the_pool_is_what_answers(read):
    store = read.store
    store.summarise()
    plain = read.ask("FROM context_independence(?)", [read.runs]).choices
    store.cursor().execute("UPDATE expert_pool SET choices = choices + 1000, tops = tops + 1000")
    store.cursor().execute("UPDATE token_pool SET choices = choices + 1000, tokens = tokens + 1000")
    of_all = read.ask("FROM context_independence(?)", [read.runs]).choices
    assert (of_all > plain + 1000).all()
    assert (read.ask("FROM context_independence(?)", [[101, 102]]).choices < 1000).all(), (
        "it has too many others"
    )
    assert read.ask("FROM token_specialisation(?)", [read.runs]).tokens.min() > 1000


def test_exports_of_all_runs_take_their_pools(read, tmp_path):
    store = read.store
    store.summarise()
    store.export(tmp_path / "all.duckdb")
    store.export(tmp_path / "some.duckdb", [101, 102, 103])
    store.export(tmp_path / "all.parquet")
    wanted = read.ask(f"FROM {QUESTIONS[0]}", [read.runs])
    with Store.open(tmp_path / "all.duckdb", share=False) as whole:
        assert members(whole) == {101: read.runs}
        assert held(whole, 101) == count(read, read.runs)
    with Store.open(tmp_path / "some.duckdb", share=False) as part:
        assert members(part) == {}
        part.summarise()
        assert held(part, 101) == count(read, [101, 102, 103])
    found = open_parquet(tmp_path / "all.parquet").execute(f"FROM {QUESTIONS[0]}", [read.runs]).df()
    pd.testing.assert_frame_equal(found, wanted, rtol=1e-9)
