"""Two processes and one store: the owner answers, others ask."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import SqlError, StoreError
from workbench.store import Store, connect
from workbench.store.sharing import bind, find_owner, literal, load_extensions, owner_file, quote

OWNER = """
import sys
import time
from workbench.store import Store
store = Store.open(sys.argv[1], interval=60)
store.write("routing", {"run": 7, "step": 0, "position": [0, 1, 2, 3], "layer": 0, "slot": 0, "expert": [2, 1, 1, 0],
                        "weight": 1.0, "rank": 0})
store.flush()
print("ready", flush=True)
for line in sys.stdin:
    store.write("metric", {"run": 7, "name": line.strip()})  # a reader sees it without a flush
    print("written", flush=True)
store.close()
"""


class Process:
    """A recording process that writes a metric for each line it is sent."""

    def __init__(self, path: Path) -> None:
        root = str(Path(__file__).parents[2])
        self._process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": root},
        )
        self.pid = self._process.pid
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def write(self, name: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        assert self._read() == "written"

    def end(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "it's shared.duckdb"


@pytest.mark.slow
def test_a_reader_follows_a_recording_and_outlives_it(path):
    owner = Process(path)
    try:
        with connect(path) as reader:
            assert reader.owner is not None and reader.owner.pid == owner.pid
            assert reader.sql("SELECT expert, choices FROM expert_load(?)", [7]).fetchall() == [
                (0, 1),
                (1, 2),
            ]
            assert (
                reader.sql("FROM expert_load($run, first := true)", {"run": [7, 8]}).df().choices.sum() == 4
            )
            assert reader.execute("SELECT count(*) FROM metric").fetchall() == [(0,)]
            owner.write("loss")
            relation = reader.cursor().sql("SELECT name FROM metric")
            with pytest.raises(StoreError, match=f"Process {owner.pid} records into"):
                Store.open(path)
            owner.end()
            assert reader.owner is None
            assert relation.fetchall() == [("loss",)], "results stay"
            assert reader.sql("SELECT name FROM metric").fetchall() == [("loss",)], "the file answers now"
            with Store.open(path, share=False) as store:  # and it is not held open between queries
                assert store.sql("SELECT count(*) FROM routing").fetchone() == (4,)
    finally:
        owner.end()


@pytest.mark.slow
@pytest.mark.parametrize("share", [True, False])
def test_others_can_only_read(path, share):
    store = Store.open(path, share=share)
    store.write("metric", {"run": 1, "name": "x"})
    store.flush()
    if not share:
        store.close()
    reader = connect(path)
    for statement in [
        "DROP TABLE metric",
        "DELETE FROM metric",
        "INSERT INTO metric VALUES (1, 2, 'y', 3)",
        "CREATE TABLE other (a INTEGER)",
        "SELECT 1; DROP TABLE metric",
        "UPDATE metric SET name = 'z'",
        "COPY metric TO 'out.csv'",
        "ATTACH 'other.duckdb'",
        "SELEC 1",
        "FROM nowhere",
    ]:
        with contextlib.suppress(SqlError):
            if share or not statement.startswith(
                ("COPY", "ATTACH")
            ):  # a reader of the file is alone with its own rights
                reader.sql(statement)
                pytest.fail(f"{statement} was run")
    assert reader.sql("SELECT name FROM metric").fetchall() == [("x",)]
    reader.close()
    store.close()


@pytest.mark.slow
def test_another_client_can_attach_but_not_write(path):
    with Store.open(path) as store:
        owner = find_owner(path)
        client = duckdb.connect()
        load_extensions(client)
        with pytest.raises(duckdb.Error, match="Authentication failed"):
            client.execute("FROM quack_query(?, 'SELECT 1', token := 'wrong')", [owner.uri])
        client.execute(f"ATTACH {quote(owner.uri)} AS r (TOKEN {quote(owner.token)})")
        store.write("metric", {"run": 1, "name": "x"})
        store.flush()
        assert client.execute("FROM r.query('SELECT name FROM metric')").fetchall() == [("x",)]
        for statement in (
            "INSERT INTO r.metric SELECT 1, 2, 'y', 3.0",
            "DROP TABLE r.metric",
            "CREATE TABLE r.t (a INT)",
        ):
            with pytest.raises(duckdb.Error, match="Authorization failed"):
                client.execute(statement)
        client.close()
        assert store.sql("SELECT count(*) FROM metric").fetchone() == (1,)


def test_the_owner_file_is_private_and_goes_away(path):
    with Store.open(path) as store:
        assert store.shared and store.unshared_because == ""
        mode = owner_file(path).stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
        assert json.loads(owner_file(path).read_text())["pid"] == os.getpid()
        # Loopback only: no other address of this machine answers.
        assert store.sql("SELECT host FROM quack_server_list()").fetchall() == [("localhost",)]
    assert not store.shared
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.slow
@pytest.mark.parametrize("left", ["{}", "", "not json", '{"pid": 4194303, "port": 1, "token": "x"}'])
def test_a_stale_owner_file_is_passed_over(path, left):
    Store.open(path, share=False).close()
    owner_file(path).write_text(left)
    with connect(path) as reader:
        assert reader.sql("SELECT 1").fetchall() == [(1,)]
    with Store.open(path, share=False) as store:
        assert store.sql("SELECT 1").fetchall() == [(1,)]


def test_an_owner_file_whose_number_another_process_has_now(path):
    Store.open(path, share=False).close()
    owner_file(path).write_text(json.dumps({"pid": os.getppid(), "port": 9, "token": "abcd"}))
    with connect(path) as reader:
        assert reader.sql("SELECT 1").fetchall() == [(1,)]


def test_a_store_without_the_extension_says_why_it_is_not_shared(path, monkeypatch, caplog):
    monkeypatch.setattr("workbench.store.sharing.find_spec", lambda name: None)
    with Store.open(path) as store:
        assert not store.shared
        assert "duckdb-extension-httpfs is not installed" in store.unshared_because
        assert "cannot read" in caplog.text
        store.write("metric", {"run": 1, "name": "x"})
        store.flush()


def test_connecting_to_what_is_not_there(tmp_path):
    with pytest.raises(StoreError, match="no store at"):
        connect(tmp_path / "absent.duckdb")
    assert os.listdir(tmp_path) == []
    with duckdb.connect(str(tmp_path / "empty.duckdb")):
        pass
    with pytest.raises(StoreError, match="empty database"):
        connect(tmp_path / "empty.duckdb")
    (tmp_path / "text").write_text("text " * 1000)
    with pytest.raises(StoreError, match="not a DuckDB database"):
        connect(tmp_path / "text")


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.binary(),
)


@given(VALUES)
def test_a_literal_means_its_value(value):
    got = duckdb.execute(f"SELECT {literal(value)}").fetchone()
    assert got == (value,)


def test_literals_of_lists_dates_and_numpy():
    day, moment = datetime.date(2026, 2, 3), datetime.datetime(2026, 2, 3, 4, 5, 6, 789)
    value = [[1, 2], [], None]
    got = duckdb.execute(
        f"SELECT {literal(value)}, {literal(day)}, {literal(moment)}, {literal(np.arange(2))}"
    ).fetchone()
    assert got == (value, day, moment, [0, 1])
    with pytest.raises(SqlError, match="type object"):
        literal(object())


@pytest.mark.parametrize(
    ("query", "params", "text"),
    [
        ("SELECT ?, ?", [1, "a'b"], "SELECT 1, 'a''b'"),
        ("SELECT $2, $1, $2", [1, 2], "SELECT 2, 1, 2"),
        ("SELECT $name", {"name": None}, "SELECT NULL"),
        ("SELECT '?', \"?\", $$ ? $$, $a$ $1 $a$ -- ?\n, ? /* ? */", [5],
         "SELECT '?', \"?\", $$ ? $$, $a$ $1 $a$ -- ?\n, 5 /* ? */"),
        ("SELECT 'it''s ?', e'\\'?', ?", [5], "SELECT 'it''s ?', e'\\'?', 5"),
        ("SELECT ?", ["$1 ? '"], "SELECT '$1 ? '''"),
        ("SELECT 1", None, "SELECT 1"),
    ],
)  # fmt: skip
def test_placeholders_become_literals(query, params, text):
    assert bind(query, params) == text


@pytest.mark.parametrize(
    ("query", "params"), [("SELECT ?", []), ("SELECT ?", None), ("SELECT 1", [1]), ("SELECT $a", {"b": 1})]
)
def test_placeholders_and_values_must_correspond(query, params):
    with pytest.raises(SqlError):
        bind(query, params)


def test_times_with_a_zone_can_be_fetched(tmp_path):
    with Store.open(tmp_path / "a.duckdb") as store, connect(store.path) as reader:
        for found in (store.sql("SELECT now()"), reader.sql("SELECT now()")):
            assert found.fetchone()[0].tzinfo is not None


@pytest.mark.slow
def test_a_parquet_folder_is_connected_to_like_a_store(tmp_path):
    with Store.open(tmp_path / "a.duckdb", share=False) as store:
        store.write("routing", {"run": 7, "step": 0, "position": [0, 1, 2], "layer": 0, "slot": 0, "expert": [2, 1, 1],
                                "weight": 1.0, "rank": 0})  # fmt: skip
        store.write("run", {"run": 7})
        folder = store.export(tmp_path / "a.parquet")
    with connect(folder) as reader:
        assert reader.owner is None
        assert reader.sql("SELECT expert, choices FROM expert_load(?)", [7]).fetchall() == [(1, 2)]
        assert reader.cursor().execute("SELECT count(*) FROM routing").fetchone() == (3,)
        with pytest.raises(SqlError, match="The query failed"):
            reader.sql("SELECT nothing FROM routing")
    with pytest.raises(StoreError, match="is no exported folder"):
        connect(tmp_path)


@pytest.mark.slow
def test_magics_read_while_the_kernel_records(tmp_path):
    """JupySQL and its like hold one DuckDB connection and send it text, again and again."""
    with Store.open(tmp_path / "a.duckdb", interval=60) as store:
        held = store.cursor()
        for count in range(1, 4):
            store.write("metric", {"run": count, "name": "x"})
            store.soon()
            deadline = time.monotonic() + 20
            while held.execute("SELECT count(*) FROM metric").fetchone() != (count,):
                assert time.monotonic() < deadline
                time.sleep(0.02)


@pytest.mark.parametrize("share", [False, True])
def test_a_reader_is_a_connection_of_the_python_database_interface(tmp_path, share):
    """What SQL magics and pandas do with one (PEP 249), through an owner and on the file."""
    path = tmp_path / "a.duckdb"
    with Store.open(path, share=share) as store:
        store.write("metric", {"run": [1, 2, 3], "name": "x", "value": [0.5, 1.5, 2.5]})
        if not share:
            store.close()
        with connect(path) as reader:
            cursor = reader.cursor()
            assert cursor.description is None
            with pytest.raises(SqlError, match="nothing to fetch"):
                cursor.fetchall()
            cursor.execute("SELECT run, value FROM metric WHERE value > ? ORDER BY run", [0.1])
            reader.commit()
            reader.rollback()
            assert [column[0] for column in cursor.description] == ["run", "value"]
            assert {len(column) for column in cursor.description} == {7}
            assert cursor.fetchone() == (1, 0.5)
            assert cursor.fetchmany() == [(2, 1.5)]
            assert cursor.fetchall() == [(3, 2.5)]
            assert cursor.fetchone() is None and cursor.fetchmany(5) == []
            with warnings.catch_warnings(action="ignore"):  # pandas vouches for SQLAlchemy alone
                frame = pd.read_sql("SELECT run, value FROM metric ORDER BY run", reader)
            assert frame.to_dict("list") == {"run": [1, 2, 3], "value": [0.5, 1.5, 2.5]}
            cursor.close()
            assert reader.sql("SELECT 1").fetchall() == [(1,)], "another than its cursor"
