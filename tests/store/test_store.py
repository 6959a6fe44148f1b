"""Opening, writing, asking, copying, closing."""

from __future__ import annotations

import datetime
import gc
import os
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import SqlError, StoreError
from workbench.store import TABLES, Store, connect, new_run_id, schema
from workbench.store.connect import StoreInUse


def test_rows_of_every_kind_come_back_as_written(store):
    weights = np.random.default_rng(0).random(4).astype(np.float32)
    started = datetime.datetime(2026, 1, 2, 3, 4, 5)
    assert store.write("routing", {"run": 2**62, "step": 0, "position": np.arange(4, dtype=np.int64), "layer": 65535,
                                   "slot": [0, 1, 2, 255], "expert": pa.array([300, 2, 1, 0]), "weight": weights,
                                   "rank": np.uint8(3), "norm": None}) == 4  # fmt: skip
    store.write("router_scores", {"run": 1, "step": 0, "position": [0, 1], "layer": 0, "scores": np.eye(2, 3),
                                  "logits": [[1.0], None]})  # fmt: skip
    store.write("run", {"run": 1, "started": started, "labels": {"language": "en"}, "record": None})
    store.write("blob", {"blob": "ab", "dtype": "float32", "shape": [[1, 2]], "data": b"\x00\xff"})
    store.flush()
    assert store.sql(
        "SELECT run, expert, weight, norm, layer, slot FROM routing ORDER BY position"
    ).fetchall() == [
        (2**62, expert, float(weight), None, 65535, slot)
        for expert, weight, slot in zip([300, 2, 1, 0], weights, [0, 1, 2, 255], strict=True)
    ]
    assert store.sql("SELECT scores, logits FROM router_scores ORDER BY position").fetchall() == [
        ([1.0, 0.0, 0.0], [1.0]),
        ([0.0, 1.0, 0.0], None),
    ]
    assert store.sql("SELECT started, labels->>'language', record FROM run").fetchall() == [
        (started, "en", None)
    ]
    assert store.sql("SELECT shape, data FROM blob").fetchall() == [([1, 2], b"\x00\xff")]


def test_weights_are_kept_exactly():
    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50))
    def keep(values):
        array, run = np.array(values, dtype=np.float32), new_run_id()
        store.write("routing", {"run": run, "step": 0, "position": np.arange(len(array)), "layer": 0, "slot": 0, "expert": 0,
                                "weight": array, "rank": 0})  # fmt: skip
        store.flush()
        back = store.sql("SELECT weight FROM routing WHERE run = ? ORDER BY position", [run]).fetchnumpy()[
            "weight"
        ]
        assert back.tobytes() == array.tobytes()

    with Store.open(":memory:") as store:
        keep()


def test_a_caller_may_reuse_its_buffer(store):
    buffer = np.zeros(1000, dtype=np.float64)
    for value in range(5):
        buffer[:] = value
        store.write("metric", {"run": value, "name": "x", "value": buffer})
        buffer[:] = -1
    store.flush()
    assert store.sql("SELECT count(*) FROM metric WHERE value <> run").fetchone() == (0,)


GOOD = {"run": 1, "step": 0, "position": [0, 1], "layer": 0, "slot": 0, "expert": 0, "weight": 0.5, "rank": 0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "columns", "words"),
    [
        ("routes", GOOD, "no table 'routes'"),
        ("workbench_schema", {"version": 7}, "no table"),
        ("routing", {**GOOD, "gate": 1}, "no column 'gate'"),
        (
            "routing",
            {k: v for k, v in GOOD.items() if k != "expert"},
            "'expert' of table 'routing' is not given",
        ),
        (
            "routing",
            {**GOOD, "expert": [1, 2, 3]},
            "'expert' of table 'routing' has 3 rows, 'position' has 2",
        ),
        ("routing", {**GOOD, "expert": 70_000}, "cannot hold"),
        ("routing", {**GOOD, "expert": [1, -1]}, "cannot hold"),
        ("routing", {**GOOD, "expert": np.array([0.5, 1])}, "cannot hold"),
        ("routing", {**GOOD, "expert": ["a", "b"]}, "cannot hold"),
        ("routing", {**GOOD, "expert": [1, None]}, "1 NULLs"),
        ("routing", {**GOOD, "expert": None}, "2 NULLs"),
        ("routing", {**GOOD, "expert": np.zeros((2, 2), dtype=int)}, "cannot hold"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(store, table, columns, words):
    with pytest.raises(StoreError, match=words):
        store.write(table, columns)
    store.flush()
    assert store.sql("SELECT count(*) FROM routing").fetchone() == (0,)


def test_no_rows_are_no_rows(store):
    assert store.write("routing", {**GOOD, "position": []}) == 0
    store.flush()


def test_queries(store):
    store.write("metric", {"run": 1, "name": ["a", "b"], "value": [1.0, 2.0]})
    store.flush()
    relation = store.sql("SELECT name FROM metric WHERE value > $low", {"low": 1.5})
    gc.collect()
    assert relation.fetchall() == [("b",)]
    for query in ("SELEC 1", "SELECT nothing FROM metric", "FROM nowhere"):
        with pytest.raises(SqlError, match="query failed"):
            store.sql(query)


def test_a_query_cannot_see_variables_of_the_program(store):
    secret = pa.table({"word": ["hidden"]})
    assert secret.num_rows == 1
    with pytest.raises(SqlError):
        store.sql("SELECT word FROM secret")


def test_a_closed_store_refuses(tmp_path):
    store = Store.open(tmp_path / "a.duckdb", share=False)
    relation = store.sql("SELECT 1")
    store.close()
    store.close()
    for use in (
        lambda: store.sql("SELECT 1"),
        store.flush,
        lambda: store.write("metric", {"run": 1, "name": "x"}),
    ):
        with pytest.raises(StoreError, match="closed"):
            use()
    with pytest.raises(duckdb.Error):
        relation.fetchall()
    with duckdb.connect(str(tmp_path / "a.duckdb")):  # nothing holds the file any more
        pass


def test_closing_commits_and_the_file_reads_from_any_client(tmp_path):
    path = tmp_path / "it's.duckdb"
    with Store.open(path, share=False, interval=60) as store:
        store.write("metric", {"run": 1, "name": "x", "value": 2.0})
    with duckdb.connect(str(path), read_only=True) as client:
        assert client.execute("SELECT value FROM metric").fetchall() == [(2.0,)]
        assert client.execute("FROM expert_load(1)").fetchall() == []
        tags = client.execute(
            "SELECT tags FROM duckdb_databases() WHERE database_name = current_database()"
        ).fetchone()
        assert tags[0]["storage_version"].startswith("v1.4")


def test_a_dropped_store_is_committed(tmp_path):
    path = tmp_path / "a.duckdb"
    store = Store.open(path, share=False, interval=60)
    store.write("metric", {"run": 1, "name": "x"})
    del store
    gc.collect()
    with connect(path) as reader:
        assert reader.sql("SELECT count(*) FROM metric").fetchone() == (1,)


@pytest.mark.slow
def test_a_program_that_forgets_to_close_loses_nothing(tmp_path, elsewhere):
    path = tmp_path / "a.duckdb"
    done = elsewhere(
        f"from workbench.store import Store\n"
        f"store = Store.open({str(path)!r}, interval=60)\n"
        f"store.write('metric', {{'run': 1, 'name': 'x'}})"
    )
    assert done.returncode == 0, done.stderr
    with connect(path) as reader:
        assert reader.sql("SELECT count(*) FROM metric").fetchone() == (1,)
    assert os.listdir(tmp_path) == ["a.duckdb"]


def test_a_snapshot_is_a_whole_store(store, tmp_path):
    store.write("metric", {"run": 1, "name": "x", "value": 1.5})
    target = store.snapshot(tmp_path / "copy.duckdb")
    store.write("metric", {"run": 2, "name": "later"})
    with Store.open(target, share=False) as copy:
        assert copy.sql("SELECT run, value FROM metric").fetchall() == [(1, 1.5)]
        assert copy.sql("FROM expert_load(1)").fetchall() == []
    with pytest.raises(StoreError, match="already"):
        store.snapshot(target)
    with pytest.raises(StoreError, match="cannot be written"):
        store.snapshot(tmp_path / "nowhere" / "copy.duckdb")
    assert sorted(os.listdir(tmp_path)) == ["copy.duckdb"]


def test_what_is_not_a_store_is_left_alone(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a database " * 100)
    foreign = tmp_path / "foreign.duckdb"
    with duckdb.connect(str(foreign)) as other:
        other.execute("CREATE TABLE accounts (a INTEGER)")
    for path, words in [
        (text, "not a DuckDB database"),
        (foreign, "other tables .accounts. and is not a store"),
        (tmp_path, "not a DuckDB database"),
        (tmp_path / "nowhere" / "a.duckdb", "folder .* does not exist"),
    ]:
        with pytest.raises(StoreError, match=words):
            Store.open(path, share=False)
    assert text.read_text() == "not a database " * 100
    with duckdb.connect(str(foreign)) as other:
        assert other.execute("SHOW TABLES").fetchall() == [("accounts",)]


def test_read_only_files_and_folders_are_refused(tmp_path, elsewhere):
    file = tmp_path / "a.duckdb"
    Store.open(file, share=False).close()
    file.chmod(0o444)
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    other = os.geteuid() == 0  # the administrator may write anywhere, so ask as somebody else
    for parent in tmp_path.parents[:3]:
        if other:
            parent.chmod(0o755)
    tmp_path.chmod(0o755)
    code = (
        "import os, sys\n"
        + (
            "import duckdb, numpy, pyarrow, workbench.store\nos.setgid(65534); os.setuid(65534)\n"
            if other
            else ""
        )
        + "from workbench.errors import StoreError\nfrom workbench.store import Store\n"
        f"for path in ({str(file)!r}, {str(folder / 'b.duckdb')!r}):\n"
        "    try:\n        Store.open(path, share=False)\n"
        "    except StoreError as error:\n        print(error.problem)\n"
    )
    done = elsewhere(code)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all("permission denied" in line for line in lines), done.stdout + done.stderr
    assert os.listdir(folder) == []


@pytest.mark.slow
def test_a_second_writer_is_refused(tmp_path, elsewhere):
    path = tmp_path / "a.duckdb"
    code = (
        "from workbench.errors import StoreError\nfrom workbench.store import Store\n"
        f"try:\n    Store.open({str(path)!r})\nexcept StoreError as error:\n    print(error)\n"
    )
    with Store.open(path) as store:
        store.write("metric", {"run": 1, "name": "x"})
        with Store.open(path) as again:
            assert again is store, "a notebook cell that runs again joins"
        assert f"Process {os.getpid()} records into {path}" in elsewhere(code).stdout
        store.flush()
        assert store.sql("SELECT count(*) FROM metric").fetchone() == (1,)
    with Store.open(path, share=False):
        assert "in use by another process, which does not share it" in elsewhere(code).stdout


@pytest.mark.slow
def test_open_without_a_path(tmp_path, monkeypatch, elsewhere):
    monkeypatch.chdir(tmp_path)
    with Store.open(share=False) as first:
        assert first.path == tmp_path / "workbench.duckdb"
        with Store.open(share=False) as joined:
            assert joined is first
        first.write("metric", {"run": 1, "name": "still open"})
        done = elsewhere(
            "from workbench.store import Store\nstore = Store.open(share=False)\nprint(store.path.name, '|', store.note)",
            cwd=tmp_path,
        )
        assert done.stdout.startswith("workbench-2.duckdb | Recording into"), done.stderr
        assert "because another process records into" in done.stdout and "because another" in done.stderr
    with pytest.raises(StoreError, match="closed"):
        joined.flush()
    with Store.open(share=False) as again:
        assert again.path == tmp_path / "workbench.duckdb"
        assert again.sql("SELECT name FROM metric").fetchall() == [("still open",)]


def test_store_in_use_is_a_store_error():
    assert issubclass(StoreInUse, StoreError)


def test_what_duckdb_may_hold_is_bounded(tmp_path):
    ask = "SELECT current_setting('memory_limit')"
    with Store.open(tmp_path / "a.duckdb", share=False, memory=300 * 2**20) as store:
        assert store.sql(ask).fetchone() == ("300.0 MiB",)
    with Store.open(":memory:") as store:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        assert float(store.sql(ask).fetchone()[0].removesuffix(" GiB")) == pytest.approx(whole / 4, rel=0.1)


def test_wrong_options_are_refused():
    with pytest.raises(StoreError, match="no policy 'wait'"):
        Store.open(":memory:", policy="wait")


def test_an_older_file_is_brought_forward(tmp_path, monkeypatch):
    path = tmp_path / "a.duckdb"
    Store.open(path, share=False).close()
    now = schema.VERSION
    with monkeypatch.context() as newer:
        newer.setattr(schema, "VERSION", now + 2)
        steps = {now + 1: "CREATE TABLE two (a INTEGER)", now + 2: "ALTER TABLE two ADD COLUMN b INTEGER"}
        newer.setattr(schema, "MIGRATIONS", schema.MIGRATIONS | steps)
        with pytest.raises(StoreError, match=f"schema version {now}, its tables"):
            connect(path)
        with Store.open(path, share=False) as store:
            assert store.sql("SELECT a, b FROM two").fetchall() == []
            reached = store.sql("SELECT version FROM workbench_schema ORDER BY 1").fetchall()
            assert reached == [(now,), (now + 1,), (now + 2,)]
    with pytest.raises(
        StoreError, match=f"schema version {now + 2}, this program knows versions up to {now}"
    ):
        Store.open(path, share=False)


def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.duckdb"
    Store.open(path, share=False).close()
    now = schema.VERSION
    with monkeypatch.context() as newer:
        newer.setattr(schema, "VERSION", now + 2)
        steps = {now + 1: "CREATE TABLE two (a INTEGER)", now + 2: "DROP TABLE absent"}
        newer.setattr(schema, "MIGRATIONS", schema.MIGRATIONS | steps)
        with pytest.raises(StoreError, match="cannot be prepared"):
            Store.open(path, share=False)
    with Store.open(path, share=False) as store:
        assert store.sql("SELECT max(version) FROM workbench_schema").fetchone() == (now,)


@pytest.mark.parametrize("version", range(1, schema.VERSION))
def test_a_file_of_any_version_becomes_what_a_new_one_is_and_keeps_its_rows(tmp_path, version):
    path = tmp_path / "old.duckdb"
    with duckdb.connect(str(path)) as old:
        old.execute((Path(__file__).parent / "schemas" / f"{version}.sql").read_text(encoding="utf-8"))
        old.execute("INSERT INTO workbench_schema VALUES (?, now() AT TIME ZONE 'UTC')", [version])
        old.execute("INSERT INTO routing VALUES (7, 0, 3, 1, 0, 5, 0.25, 0, NULL)")
        old.execute("INSERT INTO attention_rank (run, step, layer, head, rank) VALUES (7, 0, 1, 2, 9)")
    columns = "SELECT table_name, column_index, column_name, data_type FROM duckdb_columns() WHERE NOT internal ORDER BY ALL"
    with Store.open(path, share=False) as store, Store.open(":memory:") as fresh:
        assert store.sql(columns).fetchall() == fresh.sql(columns).fetchall()
        assert store.sql("SELECT expert, choices FROM expert_load(7)").fetchall() == [(5, 1)]
        assert store.sql("SELECT rank, length FROM attention_rank").fetchall() == [(9, None)]
        store.write("router_scores", {"run": 7, "step": 0, "position": 0, "layer": 1, "share": 0.5})
        assert store.sql("SELECT share FROM router_scores").fetchall() == [(0.5,)]


def test_every_version_has_a_migration():
    assert set(schema.MIGRATIONS) == set(range(2, schema.VERSION + 1))


def test_every_column_is_commented():
    bare = [
        line
        for line in schema._SCHEMA.splitlines()
        if line.startswith("    ") and "--" not in line and line.split()[0] not in KEYS_AND_PLAIN
    ]
    assert bare == []


# Words explained at the head of schema.sql, or that say all themselves.
KEYS_AND_PLAIN = set(
    """
    run step position layer slot expert plan head rank device name config dtype value neuron backend isa mlp_cos
    """.split()
)


def test_tables_are_those_of_the_schema(store):
    found = {row[0] for row in store.sql("SELECT table_name FROM duckdb_tables()").fetchall()}
    assert found == {*TABLES, "workbench_schema"}


def test_ids_increase_and_fit():
    ids = [new_run_id() for _ in range(20_000)]
    assert ids == sorted(set(ids))
    assert ids[0] > 0 and ids[-1] < 2**63


def test_ids_of_processes_do_not_meet(elsewhere):
    code = "from workbench.store.ids import new_run_id\nprint(*[new_run_id() for _ in range(2000)])"
    ids = [number for _ in range(2) for number in elsewhere(code).stdout.split()]
    assert len(set(ids)) == 4000


def test_ids_of_a_fork_go_their_own_way():
    new_run_id()
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(into, str(new_run_id()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(out, 64)) != new_run_id()
    os.close(out), os.close(into)


def test_importing_the_store_does_not_import_torch(elsewhere):
    done = elsewhere(
        "import sys, workbench.store, workbench.analysis; print('torch' in sys.modules, 'pandas' in sys.modules)"
    )
    assert done.stdout.split() == ["False", "False"], done.stderr
    assert sys.version_info >= (3, 11)


def test_macros_are_made_once_and_again_where_they_are_another_programs(tmp_path, monkeypatch):
    begun = []
    own = schema.transaction
    monkeypatch.setattr(schema, "transaction", lambda cursor: begun.append(1) or own(cursor))
    file = tmp_path / "store.duckdb"

    def opened() -> int:
        """Transactions of an opening: one for the tables, one more where macros are made."""
        begun.clear()
        with Store.open(file, share=False) as store:
            assert store.sql("SELECT * FROM expert_load(NULL)").fetchall() == []
        return len(begun)

    assert [opened(), opened()] == [2, 1]
    with duckdb.connect(str(file)) as other:
        other.execute("DROP MACRO TABLE expert_load; COMMENT ON VIEW macros IS 'of another program'")
    assert [opened(), opened()] == [2, 1]


def test_macros_that_cannot_be_made_are_an_error_where_they_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "_MACROS", "CREATE MACRO broken(x) AS no_such_function(x);")
    with (
        Store.open(tmp_path / "store.duckdb", share=False) as store,
        pytest.raises(StoreError, match="macros"),
    ):
        store.cursor()
