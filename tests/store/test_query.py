"""A query only reads: whatever else is sent is refused before any of it runs. What fails says what may have been meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.errors import SqlError
from workbench.store import Store, connect

Ask = Callable[[str], Any]


@pytest.fixture(scope="module", params=["owner", "reader", "file"])
def ask(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Queries of who records, of a reader beside it, and of a file that nobody records into."""
    path = tmp_path_factory.mktemp(request.param) / "a.duckdb"
    with Store.open(path) as store:
        store.write("metric", {"run": 1, "name": ["a", "b", "c"], "value": [1.0, 2.0, 3.0]})
        store.flush()
        if request.param == "owner":
            yield store.sql
            return
        if request.param == "reader":
            with connect(path) as reader:
                yield reader.sql
            return
    with connect(path) as reader:
        yield reader.sql


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("DELETE FROM metric", "type DELETE"),
        ("DELETE FROM metric RETURNING name", "type DELETE"),
        ("SELECT 1; DELETE FROM metric", "2 statements"),
        ("DELETE FROM metric; SELECT 1", "2 statements"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("EXPLAIN ANALYZE DELETE FROM metric", "type DELETE"),
        ("explain\n (ANALYZE, FORMAT json) DELETE FROM metric", "type DELETE"),
        (
            "EXPLAIN (ANALYZE, FORMAT json /* ) SELECT 1 -- */ ) DELETE FROM metric",
            "type EXPLAIN|query failed",
        ),
        ("EXPLAIN /* /* */ SELECT 1 -- */ */ ANALYZE DELETE FROM metric", "type EXPLAIN|query failed"),
        (
            "/* /* */ EXPLAIN SELECT 1 -- */ */ EXPLAIN ANALYZE DELETE FROM metric",
            "type EXPLAIN|query failed",
        ),
        ("/* x */ explain analyze DELETE FROM metric", "type EXPLAIN"),
        ("EXPLAIN ANALYZE SELECT 1; DELETE FROM metric", "2 statements"),
        ("CREATE TABLE mine AS SELECT 1", "type CREATE"),
        ("CREATE TYPE kind AS ENUM ('a'); SELECT 1", "2 statements"),
        ("CALL pragma_version()", "type CALL"),
        ("SET threads = 1", "type SET"),
        ("COPY metric TO 'metric.csv'", "type COPY"),
        ("ATTACH 'other.duckdb'", "type ATTACH"),
        ("", "0 statements"),
        ("-- nothing", "0 statements"),
    ],
)
def test_what_does_not_only_read_is_refused_and_not_run(
    ask: Ask, query: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SqlError, match=said):
        ask(query)
    assert ask("SELECT count(*) FROM metric").fetchone() == (3,)
    assert ask("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'mine'").fetchone() == (0,)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM metric",
        "SELECT count(*) FROM metric; -- and no more",
        "FROM (SELECT 3)",
        "WITH one AS (SELECT 3) FROM one",
        "SELECT a::INT + b::INT FROM (PIVOT metric ON name IN ('a', 'b') USING sum(value) GROUP BY run)",
    ],
)
def test_what_reads_is_run(ask: Ask, query: str) -> None:
    assert ask(query).fetchone() == (3,)


def test_values_may_be_numbers_of_numpy(ask: Any) -> None:
    run, low, names = np.int64(1), np.float32(1.5), np.array(["a", "b"])
    query = "SELECT name FROM metric WHERE run = {} AND value > {} AND list_contains({}, name)"
    assert ask(query.format("?", "?", "?"), [run, low, names]).fetchall() == [("b",)]
    named = {"run": run, "low": low, "names": names}
    assert ask(query.format("$run", "$low", "$names"), named).fetchall() == [("b",)]


def test_an_explanation_and_a_pivot_that_finds_its_values(ask: Ask, request: pytest.FixtureRequest) -> None:
    queries = ("EXPLAIN SELECT 1", "explain (analyze, format json) SELECT 1", "EXPLAIN (SELECT 1)", PIVOT)
    if request.node.callspec.params["ask"] == "reader":
        for query in queries:
            with pytest.raises(SqlError, match="plain SELECTs"):
                ask(query)
        return
    for query in queries:
        assert ask(query).fetchall()
    assert ask(PIVOT).columns == ["a", "b", "c"]


PIVOT = "SELECT * EXCLUDE (run) FROM (PIVOT metric ON name USING sum(value) GROUP BY run)"


@pytest.mark.parametrize(
    ("query", "remedy"),
    [
        ("SELECT nam FROM metric", 'Did you mean "name"'),
        ("SELECT m.nam FROM metric AS m", 'Did you mean "name"'),
        ("FROM metrc", 'Did you mean "metric"?'),
        ("FROM expert_lod(1)", 'Did you mean "expert_load"?'),
        ("FROM flips(1)", "Call it as flips(base, run)."),
        ("SELECT name\nFROM metric\nGROUP name", ", in line 3. Mend the query"),
    ],
)
def test_what_fails_says_what_might_be_meant(ask: Ask, query: str, remedy: str) -> None:
    with pytest.raises(SqlError) as refused:
        ask(query)
    assert str(refused.value).startswith("The query failed: ")
    assert remedy in str(refused.value)
    assert "\n" not in str(refused.value)


def test_of_many_ways_to_call_a_function_the_first_are_named(ask: Ask) -> None:
    with pytest.raises(SqlError, match=r"Call it as round\(\w+\) -> \w+ or ") as refused:
        ask("SELECT round('a', 'b', 'c')")
    assert str(refused.value).count(" or ") == 3
