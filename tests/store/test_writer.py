"""The queue: bounds, policies, failures, and what a crash leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from workbench.errors import StoreError
from workbench.store import Store, connect
from workbench.store.writer import COALESCE_ROWS, Writer

ROOT = Path(__file__).parents[2]


def rows(n: int, start: int = 0) -> pa.RecordBatch:
    return pa.record_batch({"x": pa.array(np.arange(start, start + n, dtype=np.int64))})


class Sink:
    """Keeps what it is given; can be held up, and can fail."""

    def __init__(self) -> None:
        self.commits: list[dict[str, list[int]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.failures = 0

    def __call__(self, tables: Mapping[str, pa.Table]) -> None:
        self.entered.set()
        self.gate.wait(20)
        if self.failures:
            self.failures -= 1
            raise OSError("no space left on device")
        self.commits.append({name: table["x"].to_pylist() for name, table in tables.items()})

    def all(self, table: str) -> list[int]:
        return [x for commit in self.commits for x in commit.get(table, [])]


def make(sink: Sink, *, capacity: int = 2**20, policy: str = "block", interval: float = 60.0) -> Writer:
    return Writer(sink, capacity=capacity, policy=policy, interval=interval)  # type: ignore[arg-type]


def test_small_batches_are_committed_together():
    sink = Sink()
    writer = make(sink)
    for i in range(50):
        writer.put("a" if i % 2 else "b", rows(3, i))
    assert sink.commits == []
    writer.flush()
    assert [len(values) for commit in sink.commits for values in commit.values()] == [75, 75]
    writer.close()


def test_many_rows_are_committed_without_being_asked():
    sink = Sink()
    writer = make(sink, capacity=2**24)
    writer.put("a", rows(COALESCE_ROWS - 1))
    time.sleep(0.05)
    assert not sink.commits
    writer.put("a", rows(1))
    deadline = time.monotonic() + 10
    while not sink.commits and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(sink.all("a")) == COALESCE_ROWS
    writer.close()


def test_few_rows_are_committed_after_the_interval():
    sink = Sink()
    writer = make(sink, interval=0.05)
    writer.put("a", rows(1))
    deadline = time.monotonic() + 10
    while not sink.commits and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sink.all("a") == [0]
    writer.close()


def test_block_waits_for_room_and_loses_nothing():
    sink = Sink()
    sink.gate.clear()
    writer = make(sink, capacity=800)  # 100 rows of 8 bytes
    writer.put("a", rows(100))
    waiting = threading.Thread(target=lambda: writer.put("a", rows(50, 100)))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive(), "there is no room"
    sink.gate.set()
    waiting.join(10)
    assert not waiting.is_alive()
    writer.close()
    assert sink.all("a") == list(range(150))
    assert writer.dropped() == {}


def test_drop_counts_every_row_it_drops():
    sink = Sink()
    sink.gate.clear()
    writer = make(sink, capacity=800, policy="drop")
    assert writer.put("a", rows(60)) == 60
    assert writer.put("a", rows(60)) == 0
    assert writer.put("b", rows(41)) == 0
    assert writer.put("a", rows(40, 60)) == 40
    assert writer.put("a", rows(1)) == 0
    sink.gate.set()
    writer.flush()
    assert writer.dropped() == {"a": 61, "b": 41}
    assert sink.all("a") == list(range(100))
    assert writer.put("a", rows(1)) == 1
    writer.close()


def test_a_batch_larger_than_the_queue_goes_through():
    sink = Sink()
    writer = make(sink, capacity=80)
    writer.put("a", rows(1000))
    writer.put("a", rows(5, 1000))
    writer.close()
    assert sink.all("a") == list(range(1005))


def test_a_failure_reaches_the_next_flush_and_the_rows_are_kept():
    sink = Sink()
    sink.failures = 1
    writer = make(sink)
    writer.put("a", rows(3))
    with pytest.raises(StoreError, match="could not write 3 rows of 'a': no space left on device"):
        writer.flush()
    writer.put("a", rows(2, 3))
    writer.flush()
    assert sink.all("a") == [0, 1, 2, 3, 4]
    writer.close()


def test_a_failure_in_the_background_reaches_the_next_write():
    sink = Sink()
    sink.failures = 1
    writer = make(sink, interval=0.01)
    writer.put("a", rows(3))
    deadline = time.monotonic() + 10
    while sink.failures and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    with pytest.raises(StoreError, match="3 rows of 'a'"):
        writer.put("a", rows(1, 3))
    writer.flush()
    assert sink.all("a") == [0, 1, 2], "the refused write is the caller's to repeat"
    writer.close()


def test_a_blocked_write_hears_of_the_failure():
    sink = Sink()
    sink.gate.clear()
    sink.failures = 1
    writer = make(sink, capacity=80)
    writer.put("a", rows(10))
    threading.Timer(0.1, sink.gate.set).start()
    with pytest.raises(StoreError, match="10 rows of 'a'"):
        writer.put("a", rows(1, 10))
    writer.close()
    assert sink.all("a") == list(range(10))


def test_closing_says_what_is_lost():
    sink = Sink()
    sink.failures = 10
    writer = make(sink)
    writer.put("a", rows(4))
    writer.put("b", rows(1))
    with pytest.raises(StoreError, match="lost 4 rows of 'a', 1 rows of 'b': no space"):
        writer.close()
    writer.close()
    with pytest.raises(StoreError, match="closed"):
        writer.put("a", rows(1))


def test_batches_that_leave_out_different_columns_meet(store):
    store.write("metric", {"run": 1, "name": "a", "value": 1.0})
    store.write("metric", {"name": "b", "run": 2, "step": 7})
    store.flush()
    assert store.sql("SELECT run, step, name, value FROM metric ORDER BY run").fetchall() == [
        (1, None, "a", 1.0),
        (2, 7, "b", None),
    ]


def test_a_failed_insert_writes_no_part_of_the_batch(store):
    store.cursor().execute("DROP TABLE cost")
    store.write("metric", {"run": 1, "name": "a"})
    store.write("cost", {"run": 1, "step": 0})
    with pytest.raises(StoreError, match="could not write .*1 rows of 'cost'"):
        store.flush()
    assert store.sql("SELECT count(*) FROM metric").fetchone() == (0,)
    store.cursor().execute("CREATE TABLE cost (run BIGINT, step INTEGER)")
    store.flush()
    assert store.sql("SELECT count(*) FROM metric").fetchone() == (1,)
    assert store.sql("SELECT count(*) FROM cost").fetchone() == (1,)


def test_threads_write_side_by_side(store):
    def work(run: int) -> None:
        for step in range(50):
            store.write("metric", {"run": run, "step": step, "name": "x", "value": np.arange(20.0)})

    threads = [threading.Thread(target=work, args=(run,)) for run in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.flush()
    assert store.sql("SELECT run, count(*), sum(value) FROM metric GROUP BY run ORDER BY run").fetchall() == [
        (run, 1000, 50 * 190.0) for run in range(4)
    ]


CRASH = """
import sys, time
from workbench.store import Store
store = Store.open(sys.argv[1], interval=60)
for run in range(3):
    store.write("metric", {"run": run, "name": "x", "value": [float(i) for i in range(1000)]})
    store.flush()
store.write("metric", {"run": 99, "name": "in flight"})
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_every_committed_row(tmp_path):
    path = tmp_path / "a.duckdb"
    process = subprocess.Popen(
        [sys.executable, "-c", CRASH, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (tmp_path / "a.duckdb.owner").exists(), "nobody could clean up"
    with connect(path) as reader:  # the owner's file is stale
        assert reader.owner is None
        assert reader.sql("SELECT run, count(*) FROM metric GROUP BY run ORDER BY run").fetchall() == [
            (0, 1000),
            (1, 1000),
            (2, 1000),
        ]
    with Store.open(path) as store:
        store.write("metric", {"run": 3, "name": "after"})
        store.flush()
        assert store.sql("SELECT count(*) FROM metric").fetchone() == (3001,)


FULL = """
import resource, signal, sys
import numpy as np
from workbench.errors import StoreError
from workbench.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write behind the limit fails like one on a full disk
random = np.random.default_rng(0)
store = Store.open(sys.argv[1], share=False)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, resource.RLIM_INFINITY))
try:
    for run in range(1, 100):
        store.write("metric", {"run": run, "name": "x", "value": random.random(20_000)})
        store.flush()
except StoreError as error:
    print(run, "|", error, "|", flush=True)
if sys.argv[2] == "room":
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    store.close()
    print("closed")
except StoreError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("later", ["room", "still full"])
def test_a_full_disk_is_said_and_keeps_what_was_written(tmp_path, later):
    path = tmp_path / "full.duckdb"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), later],
        capture_output=True, text=True, timeout=60, env={"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    number, said, ending = (part.strip() for part in done.stdout.split("|"))
    assert (
        "could not write 20000 rows of 'metric'" in said
        and "File too large" in said
        and "flush again" in said
    )
    kept = int(number) - 1
    if later == "room":
        assert ending == "closed"
        kept += 1
    else:
        assert "Closing the store lost 20000 rows of 'metric'" in ending
    with Store.open(path, share=False) as store:
        assert kept > 1 and store.sql("SELECT count(DISTINCT run), count(*) FROM metric").fetchone() == (
            kept,
            kept * 20_000,
        )


class Item:
    """Something that one row is made of later."""

    nbytes = 8
    rows = 1

    def __init__(self, value: int, nbytes: int = 8) -> None:
        self.value, self.nbytes = value, nbytes

    def count(self) -> dict[str, int]:
        return {"a": 1}


def convert(table: str, columns: Mapping[str, list[int]]) -> pa.RecordBatch:
    return pa.record_batch({"x": pa.array(columns["x"])})


def test_what_is_deferred_is_made_at_once_and_on_the_writer_s_thread():
    sink, calls = Sink(), []

    def digest(items):
        calls.append((len(items), threading.current_thread().name))
        yield "a", {"x": [item.value for item in items]}

    writer = Writer(sink, capacity=2**20, policy="block", interval=60, convert=convert)
    for value in range(5):
        assert writer.defer(digest, Item(value)) == {}
    assert not calls, "nothing is made before somebody asks"
    assert writer.settle() is None
    assert calls == [(5, "workbench-store-writer")] and sink.all("a") == list(range(5))
    writer.close()


def test_a_deferred_item_without_room_is_counted():
    sink = Sink()
    sink.gate.clear()
    writer = Writer(sink, capacity=100, policy="drop", interval=60, convert=convert)

    def digest(items):
        yield "a", {"x": [item.value for item in items]}

    assert writer.defer(digest, Item(1, 80)) == {}
    assert writer.pressure == 0.8
    assert writer.defer(digest, Item(2, 80)) == {"a": 1}
    assert writer.defer(digest, Item(3, 80), always=True) == {}
    sink.gate.set()
    writer.flush()
    assert sink.all("a") == [1, 3] and writer.dropped() == {"a": 1}
    writer.close()


def test_rows_that_cannot_be_made_are_said_and_counted_and_hold_nothing_up():
    sink = Sink()
    writer = Writer(sink, capacity=2**20, policy="block", interval=60, convert=convert)

    def broken(items):
        yield "a", {"x": [1 // item.value for item in items]}

    writer.defer(broken, Item(0))
    writer.put("a", rows(2))
    with pytest.raises(StoreError, match="1 recorded passes could not be made: integer division"):
        writer.flush()
    assert sink.all("a") == [0, 1] and writer.dropped() == {"a": 1}
    writer.flush()
    writer.close()


def test_soon_commits_when_it_is_quiet():
    sink = Sink()
    writer = make(sink, interval=60)
    writer.put("a", rows(1))
    writer.soon()
    deadline = time.monotonic() + 10
    while not sink.commits and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sink.all("a") == [0]
    writer.close()


def test_rows_that_keep_coming_are_committed_once_an_interval():
    """What comes while rows are written starts an interval of its own: else one commit would follow the other."""

    class Slow(Sink):
        def __call__(self, tables):
            time.sleep(0.03)
            super().__call__(tables)

    sink = Slow()
    writer = make(sink, interval=0.4)
    began = time.monotonic()
    sent = 0
    while time.monotonic() < began + 1.6:
        writer.put("a", rows(1, sent))
        sent += 1
        time.sleep(0.01)
    intervals = (time.monotonic() - began) / 0.4
    assert 1 <= len(sink.commits) <= intervals + 1
    writer.close()
    assert sink.all("a") == list(range(sent))


def test_a_reader_sees_what_was_written_and_is_not_stopped_by_a_failure(store, caplog):
    store.write("metric", {"run": 1, "name": "seen"})
    assert store.sql("SELECT name FROM metric").fetchall() == [("seen",)]
    store.cursor().execute("DROP TABLE cost")
    store.write("cost", {"run": 1, "step": 0})
    assert store.sql("SELECT name FROM metric").fetchall() == [("seen",)]
    assert "Rows are missing" in caplog.text
    with pytest.raises(StoreError, match="1 rows of 'cost'"):
        store.flush()
    store.cursor().execute("CREATE TABLE cost (run BIGINT, step INTEGER)")
    store.flush()
