"""Runs out of the store and back: a folder of Parquet files, one HTML page, or a smaller store.

Every export is written under a temporary name beside its target and renamed when it is whole, so that a target that exists
is complete.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from workbench.address import integers
from workbench.errors import StoreError
from workbench.store import pools, schema
from workbench.store.sharing import first_line, quote
from workbench.store.summary import BLOCK_TABLES

FORMATS = (".parquet", ".html", ".duckdb")
"""Suffixes that :func:`export` knows."""

LARGEST_PAGE = 200_000
"""Cells (positions times routed layers) that one page holds at most."""

_HERE = Path(__file__).parent
_MANIFEST = "store.json"


def export(
    cursor: duckdb.DuckDBPyConnection, path: str | os.PathLike[str], runs: int | Sequence[int] | None = None
) -> Path:
    """Write runs to ``path``, in the format of its suffix.

    Parameters
    ----------
    cursor
        A cursor of the store.
    path
        ``.parquet``: a folder ``<table>/run=<id>/*.parquet`` (hive partitions) that :func:`open_parquet` and any Parquet
        reader open. ``.html``: one page with data, plans, environment and routing map that opens without a kernel and
        asks nothing of a network; :func:`read_page` reads its data. ``.duckdb``: a store with these runs only.
    runs
        One id, several, or ``None`` for all.

    Returns
    -------
    Path
        The absolute path written.

    Raises
    ------
    StoreError
        The suffix is unknown, the target exists, a run is not in the store, the page would be too large, or the file
        cannot be written.
    """
    target = Path(path).expanduser().resolve()
    if target.suffix not in FORMATS:
        raise StoreError(
            f"{target.name} has none of the suffixes {', '.join(FORMATS)}.",
            "Choose the format by the suffix.",
        )
    if target.exists():
        raise StoreError(f"There is a file at {target} already.", "Choose a path that does not exist.")
    chosen = None if runs is None else _chosen(cursor, runs)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.unfinished")
    try:
        {".parquet": _to_parquet, ".html": _to_page, ".duckdb": _to_store}[target.suffix](
            cursor, unfinished, chosen
        )
        os.replace(unfinished, target)
    except (duckdb.Error, OSError) as error:
        raise StoreError(
            f"The export {target} cannot be written: {first_line(error)}.",
            "Check the folder and its free space.",
        ) from error
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        else:
            unfinished.unlink(missing_ok=True)
    return target


def open_parquet(*folders: str | os.PathLike[str]) -> duckdb.DuckDBPyConnection:
    """The union of exported Parquet folders as a database in memory: tables, views and macros as in a store, to read.

    Raises
    ------
    StoreError
        A folder is not an export, or one of a later version.
    """
    if not folders:
        raise StoreError(
            "There is no folder to open.", "Name one or several folders that were exported as .parquet."
        )
    for folder in folders:
        manifest = Path(folder) / _MANIFEST
        try:
            version = int(json.loads(manifest.read_text(encoding="utf-8"))["version"])
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(
                f"{folder} is no exported folder.", "Name a folder that was exported as .parquet."
            ) from error
        schema.check_version(version, writable=False)
    connection = duckdb.connect(":memory:", config={"python_enable_replacements": False})
    schema.prepare(connection)
    schema.renew_macros(connection)
    for table in schema.TABLES:
        columns = _columns(connection, table)
        files = [
            str(file) for folder in folders for file in sorted((Path(folder) / table).rglob("*.parquet"))
        ]
        if not files:
            continue
        listed = ", ".join(quote(file) for file in files)
        casts = ", ".join(f'CAST("{name}" AS {kind}) AS "{name}"' for name, kind in columns)
        connection.execute(f'DROP TABLE "{table}"')
        connection.execute(
            f'CREATE VIEW "{table}" AS SELECT {casts} FROM read_parquet([{listed}], hive_partitioning = false)'
        )
    return connection


def read_page(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The data in an exported page: ``runs``, each with its row, tokens, plans and routing (exact weights).

    Raises
    ------
    StoreError
        The file is not an exported page.
    """
    text = Path(path).read_text(encoding="utf-8")
    opening, closing = '<script id="data" type="application/json">', "</script>"
    _, found, rest = text.partition(opening)
    if not found:
        raise StoreError(f"{path} is no exported page.", "Name a file that was exported as .html.")
    data: dict[str, Any] = json.loads(rest.partition(closing)[0])
    return data


def _known(cursor: duckdb.DuckDBPyConnection) -> list[int]:
    return [int(row[0]) for row in cursor.execute("SELECT run FROM run ORDER BY run").fetchall()]


def _chosen(cursor: duckdb.DuckDBPyConnection, runs: int | Sequence[int]) -> list[int]:
    wanted = list(integers(runs, "run"))
    missing = sorted(set(wanted) - set(_known(cursor)))
    if missing:
        raise StoreError(f"Run {missing[0]} is not in the store.", "List the runs with SELECT run FROM run.")
    return wanted


def _columns(connection: duckdb.DuckDBPyConnection, table: str) -> list[tuple[str, str]]:
    rows = connection.execute(
        "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ? AND database_name = current_database() "
        "ORDER BY column_index",
        [table],
    ).fetchall()
    return [(str(name), str(kind)) for name, kind in rows]


def _selection(cursor: duckdb.DuckDBPyConnection, table: str, runs: list[int] | None) -> str:
    """The rows of ``table`` that belong to ``runs``; of tables without runs, those that these runs need."""
    if runs is None:  # rows of runs that have not ended, too
        return f'SELECT * FROM "{table}"'
    if table in (
        "block_run",
        *BLOCK_TABLES,
        "pool_run",
        *pools.TABLES,
    ):  # sums over other runs too: made anew there
        return f'SELECT * FROM "{table}" LIMIT 0'
    ids = f"[{', '.join(map(str, runs))}]::BIGINT[]"
    if any(name == "run" for name, _ in _columns(cursor, table)):
        return f'SELECT * FROM "{table}" WHERE run IN (SELECT unnest({ids}))'
    plans = f"SELECT p.plan FROM run_plan AS p WHERE p.run IN (SELECT unnest({ids}))"
    if table == "plan":
        return f"SELECT * FROM plan WHERE plan IN ({plans})"
    if table == "blob":  # plans name blobs by their hash
        return (
            f"SELECT * FROM blob AS b WHERE EXISTS (SELECT 1 FROM plan AS q WHERE q.plan IN ({plans}) "
            "AND contains(CAST(q.json AS VARCHAR), b.blob))"
        )
    return f'SELECT * FROM "{table}"'


def _to_parquet(cursor: duckdb.DuckDBPyConnection, folder: Path, runs: list[int] | None) -> None:
    folder.mkdir()
    for table in schema.TABLES:
        partitioned = any(name == "run" for name, _ in _columns(cursor, table))
        query = _selection(cursor, table, runs)
        counted = cursor.execute(f"SELECT count(*) FROM ({query})").fetchall()
        if not counted[0][0]:
            continue
        place = folder / table
        if partitioned:
            options = "PARTITION_BY (run), WRITE_PARTITION_COLUMNS true"
        else:
            place.mkdir()
            place, options = place / "part.parquet", "ROW_GROUP_SIZE 122880"
        cursor.execute(f"COPY ({query}) TO {quote(str(place))} (FORMAT parquet, COMPRESSION zstd, {options})")
    ids = [str(run) for run in (_known(cursor) if runs is None else runs)]
    manifest = {"format": "routing-workbench store", "version": schema.VERSION, "runs": ids}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _to_store(cursor: duckdb.DuckDBPyConnection, file: Path, runs: list[int] | None) -> None:
    with duckdb.connect(str(file), config={"storage_compatibility_version": schema.STORAGE_VERSION}) as fresh:
        schema.prepare(fresh)
        schema.renew_macros(fresh)
    cursor.execute(f"ATTACH {quote(str(file))} AS exported")
    try:
        for table in schema.TABLES:
            cursor.execute(f'INSERT INTO exported."{table}" {_selection(cursor, table, runs)}')
    finally:
        cursor.execute("DETACH exported")


def _to_page(cursor: duckdb.DuckDBPyConnection, file: Path, runs: list[int] | None) -> None:
    runs = _known(cursor) if runs is None else runs
    counted = cursor.execute(
        "SELECT count(*) FROM (SELECT DISTINCT run, position, layer FROM routing WHERE run IN (SELECT unnest(?)))",
        [runs],
    ).fetchall()
    if counted[0][0] > LARGEST_PAGE:
        raise StoreError(
            f"A page of {counted[0][0]:,} cells would be too large; it holds {LARGEST_PAGE:,}.",
            "Export fewer runs, or to a folder ending in .parquet.",
        )
    data = {
        "format": "routing-workbench page",
        "version": 1,
        "runs": [_run_data(cursor, run) for run in runs],
    }
    # The text stands inside a script element: nothing in it may look like markup.
    text = json.dumps(_finite(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    page = (_HERE / "page.html").read_text(encoding="utf-8")
    file.write_text(page.replace("/*DATA*/", text), encoding="utf-8")


def _run_data(cursor: duckdb.DuckDBPyConnection, run: int) -> dict[str, Any]:
    columns = [(name, kind) for name, kind in _columns(cursor, "run")]
    values = cursor.execute(
        "SELECT "
        + ", ".join(
            f'CAST("{n}" AS VARCHAR)' if k in ("BIGINT", "TIMESTAMP", "JSON") else f'"{n}"'
            for n, k in columns
        )
        + " FROM run WHERE run = ?",
        [run],
    ).fetchall()[0]
    row = {
        name: json.loads(value) if kind == "JSON" and value is not None else value
        for (name, kind), value in zip(columns, values, strict=True)
    }
    tokens = cursor.execute(
        "SELECT position, arg_max(token, step), coalesce(arg_max(text, step), ''), arg_max(part, step), "
        "arg_max(logprob, step) FROM token WHERE run = ? GROUP BY position ORDER BY position",
        [run],
    ).fetchall()
    plans = cursor.execute(
        "SELECT DISTINCT r.step, p.plan, CAST(p.json AS VARCHAR) FROM run_plan AS r JOIN plan AS p ON p.plan = r.plan "
        "WHERE r.run = ? ORDER BY r.step",
        [run],
    ).fetchall()
    cells = cursor.execute(
        "SELECT position, layer, experts, weights, margin, entropy, coalesce(edited, false), native FROM routing_map(?)",
        [run],
    ).fetchall()
    return {
        "run": row,
        "tokens": [list(token) for token in tokens],
        "plans": [{"step": step, "plan": plan, "edits": json.loads(text)} for step, plan, text in plans],
        "cells": [list(cell) for cell in cells],
    }


def _finite(value: Any) -> Any:
    """``value`` with ``None`` for infinite numbers, which JSON does not know (a margin over banned experts is one)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return value
