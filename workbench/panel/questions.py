"""The panel's query box: one SELECT over the store, checked, limited, and its answer as data for a page or as a file."""

from __future__ import annotations

import json
import math
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from workbench.errors import SqlError
from workbench.panel import answers
from workbench.panel.reader import Reading
from workbench.said import said
from workbench.store import check_select
from workbench.store.query import complaint
from workbench.store.schema import TABLES, VIEWS, macro_docs

ROWS = 1000
"""Rows of an answer that a page is sent."""

SECONDS = 60.0
"""Time after which a query is stopped."""

_LOOK = 0.05
"""Seconds between two looks at whether a query has to be stopped."""

LARGEST_FILE = 200 * 2**20
"""Bytes of a file that a page is sent."""

_CELL = 2000
_EXACT = 2**53
_FORMATS = {
    "csv": ("text/csv", "FORMAT csv, HEADER true"),
    "parquet": ("application/vnd.apache.parquet", "FORMAT parquet"),
}


def answer(cursor: Any, reading: Reading, sql: str) -> answers.Table:
    """The first :data:`ROWS` rows of a query.

    Raises
    ------
    SqlError
        The query is refused, fails, takes too long, or was stopped.
    """
    started = time.monotonic()
    with guarded(cursor, reading, sql):
        cursor.execute(sql)
        columns = [answers.Column(name=str(name), type=str(kind)) for name, kind, *_ in cursor.description]
        rows = cursor.fetchmany(ROWS + 1)
        return answers.Table(
            sql=sql,
            columns=columns,
            rows=[[plain(value) for value in row] for row in rows[:ROWS]],
            more=len(rows) > ROWS,
            seconds=time.monotonic() - started,
        )


def exported(cursor: Any, reading: Reading, sql: str, kind: str) -> tuple[answers.File, list[memoryview]]:
    """The whole answer of a query as a CSV or Parquet file."""
    mime, options = _FORMATS[kind]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"answer.{kind}"
        with guarded(cursor, reading, sql):
            # The text was parsed as exactly one SELECT, so that it cannot close the bracket; a comment ends with its line.
            cursor.execute(f"COPY (\n{_bare(sql)}\n) TO '{path}' ({options})")
        if path.stat().st_size > LARGEST_FILE:
            raise SqlError(
                said(
                    "The answer is a file of %1 MB, more than a page should be sent.",
                    path.stat().st_size // 2**20,
                ),
                said("Aggregate in SQL, or write it from Python with bench.sql(...)."),
            )
        return answers.File(name=f"answer.{kind}", mime=mime), [memoryview(path.read_bytes())]


@contextmanager
def guarded(cursor: Any, reading: Reading, sql: str) -> Iterator[None]:
    """Check ``sql``, let the body ask it on ``cursor``, and stop it after :data:`SECONDS`."""
    if not sql.strip():
        raise SqlError(said("The query is empty."), said("Type one SELECT, or choose a macro from the list."))
    check_select(cursor, sql)
    reading.use(cursor)
    late, ended = threading.Event(), threading.Event()
    deadline = time.monotonic() + SECONDS

    def watch() -> None:
        # Again and again: an interrupt that comes before the query has begun is lost.
        while not ended.wait(_LOOK):
            if time.monotonic() > deadline:
                late.set()
            if late.is_set() or reading.stopped:
                cursor.interrupt()

    watcher = threading.Thread(target=watch, name="workbench-panel-query", daemon=True)
    watcher.start()
    try:
        yield
    except duckdb.InterruptException:
        if late.is_set() and not reading.stopped:
            raise SqlError(
                said("The query took more than %1 seconds and was stopped.", f"{SECONDS:.0f}"),
                said("Ask for fewer runs, layers or positions."),
            ) from None
        raise SqlError(said("The query was stopped."), said("Send it again when you like.")) from None
    except (duckdb.Error, ImportError) as error:
        # A type whose Python form needs a package that is not there (time zones) fails while rows are fetched.
        found = complaint(error)
        meant = ", ".join(found.names or found.calls)
        raise SqlError(
            said("The query failed: %1.", found.sentence),
            said("Did you mean one of these: %1?", meant) if meant
            else said("Mend the query, or cast the column to VARCHAR, and send it again."),
        ) from error  # fmt: skip
    finally:
        ended.set()
        watcher.join()  # it must not interrupt what the cursor is asked next


def plain(value: Any) -> str | float | bool | None:
    """A value of an answer as JSON has it: what has no exact form there becomes text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -_EXACT <= value <= _EXACT else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value if len(value) <= _CELL else value[:_CELL] + "…"
    if isinstance(value, list | tuple | dict):
        return plain(json.dumps(value, default=str, ensure_ascii=False))
    if isinstance(value, bytes):
        return plain(value.hex())
    return plain(str(value))


def catalogue(cursor: Any) -> answers.Catalogue:
    """What a query can ask: the macros with their documentation, the tables with their columns."""
    names = [*TABLES, *VIEWS]
    columns: dict[str, list[answers.Column]] = {name: [] for name in names}
    for table, column, kind in cursor.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE list_contains(?, table_name) "
        "AND database_name = current_database() ORDER BY table_name, column_index",
        [names],
    ).fetchall():
        columns[table].append(answers.Column(name=column, type=kind))
    return answers.Catalogue(
        macros=[
            answers.MacroCard(
                name=doc.name, arguments=doc.arguments, subject=doc.subject, answers=doc.answers, formula=doc.formula,
                source=doc.source,
            )
            for doc in macro_docs()
            if doc.kind == "table"
        ],
        tables=[answers.TableCard(name=name, columns=columns[name]) for name in names],
    )  # fmt: skip


def _bare(sql: str) -> str:
    return sql.strip().rstrip(";")
