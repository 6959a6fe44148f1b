"""When the sums of ended runs are made: once there are many, while nothing is recorded, and never beside a deletion."""

from __future__ import annotations

import threading
import time

import duckdb
import numpy as np
import pytest

from workbench.store import Store, upkeep
from workbench.store import store as store_module

CHOICES = 2 * 3 * 17 * 2
"""Of the two runs that ``record`` makes: layers, tokens and slots."""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A few choices are worth summing, a moment is a rest."""
    monkeypatch.setattr(upkeep, "ENOUGH", 100)
    monkeypatch.setattr(upkeep, "REST", 0.05)


def until(condition, seconds=20.0):
    """Whether ``condition`` holds before ``seconds`` are over."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return found


def summed(store):
    return store.sql("SELECT count(*) FROM summarised").fetchall()[0][0]


def test_enough_ended_runs_are_summed_by_themselves(record):
    recording = record(runs=2)
    recording.store.ended(99)
    time.sleep(0.3)
    assert summed(recording.store) == 0, "too few to be worth it"
    recording.store.ended(1)
    assert until(lambda: summed(recording.store) == 2)
    assert np.isclose(recording.ask("SELECT sum(load) AS s FROM expert_load(101)").s[0], 3)


def test_a_recording_that_goes_on_is_not_disturbed(record, monkeypatch):
    monkeypatch.setattr(upkeep, "REST", 1.0)
    store = record(runs=2).store
    store.ended(CHOICES)
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        store.write("metric", {"run": 101, "name": "loss", "value": 1.0})
        time.sleep(0.02)
        assert summed(store) == 0
    assert until(lambda: summed(store) == 2), "they are made once it rests"


def test_beyond_a_bound_they_are_made_beside_the_recording(record, monkeypatch):
    monkeypatch.setattr(upkeep, "REST", 60.0)
    monkeypatch.setattr(upkeep, "MOST", 150)
    store = record(runs=2).store
    store.ended(149)
    time.sleep(0.3)
    assert summed(store) == 0
    store.ended(1)
    assert until(lambda: summed(store) == 2)


def test_runs_of_an_earlier_process_are_summed(tmp_path):
    path = tmp_path / "runs.duckdb"
    choice = {"step": 0, "layer": 0, "slot": 0, "expert": 2, "weight": 1.0, "rank": 0}
    with Store.open(path, share=False) as store:
        store.write("routing", {"run": 1, "position": np.arange(60), **choice})
        store.write("run", {"run": 1, "tokens": 60, "num_layers": 2, "top_k": 1})
    with Store.open(path, share=False) as store:
        assert until(lambda: summed(store) == 1)


def test_nothing_is_summed_while_runs_are_deleted(record):
    store = record(runs=2).store
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with store._upkeep.aside():
            entered.set()
            leave.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    assert entered.wait(20)
    store.ended(CHOICES)
    time.sleep(0.3)
    assert summed(store) == 0
    leave.set()
    holder.join()
    assert until(lambda: summed(store) == 2)
    assert store.delete([101, 102]) == 2 and summed(store) == 0


def test_rows_wait_for_the_memory_that_sums_hold(tmp_path, monkeypatch):
    """Sums of many runs take much of a small store's memory: what is recorded meanwhile is written after them."""
    sink = store_module._LocalSink
    tried, commit = [], sink._commit

    def count(self, tables):
        tried.append(dict(tables))
        commit(self, tables)

    monkeypatch.setattr(sink, "_commit", count)
    choice = {"run": 1, "step": 0, "layer": 0, "slot": 0, "expert": 2, "weight": 1.0, "rank": 0}
    with Store.open(tmp_path / "runs.duckdb", share=False, memory=48 * 2**20) as store:
        holding = store.cursor()
        holding.execute("SET GLOBAL temp_directory = ''")  # what it holds cannot be moved away
        with store._upkeep.aside():
            holding.execute("CREATE TEMP TABLE held AS SELECT random() AS x FROM range(4_500_000)")
            store.write(
                "routing", {"position": np.random.default_rng(0).integers(0, 2**30, 1_000_000), **choice}
            )
            store.soon()
            assert until(lambda: tried)
            time.sleep(1)
            assert len(tried) == 1, "memory was out"
            holding.execute("DROP TABLE held")
        store.flush()
        assert len(tried) == 2
        assert store.sql("SELECT count(*) FROM routing").fetchall() == [(1_000_000,)]


def test_sums_that_fail_are_tried_again_after_as_many_choices(record, monkeypatch, caplog):
    store, tried = record(runs=2).store, []

    def fail(_):
        tried.append(1)
        raise duckdb.IOException("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(upkeep.summary, "work", fail)
        store.ended(CHOICES)
        assert until(lambda: store._upkeep._thread is None) and tried == [1]
        assert "could not be kept" in caplog.text
        store.ended(99)
        assert store._upkeep._thread is None and tried == [1], "not after every run"
    store.ended(1)
    assert until(lambda: summed(store) == 2)


def test_a_store_that_is_closed_waits_for_no_sums(tmp_path, monkeypatch):
    monkeypatch.setattr(upkeep, "REST", 60.0)
    store = Store.open(tmp_path / "runs.duckdb", share=False)
    store.ended(CHOICES)
    thread = store._upkeep._thread
    assert thread.is_alive()
    start = time.monotonic()
    store.close()
    assert time.monotonic() - start < 10 and not thread.is_alive()


def test_a_store_that_is_let_go_ends_the_thread(tmp_path, monkeypatch):
    monkeypatch.setattr(upkeep, "REST", 60.0)
    store = Store.open(tmp_path / "runs.duckdb", share=False)
    store.ended(CHOICES)
    thread = store._upkeep._thread
    del store
    assert until(lambda: not thread.is_alive())
