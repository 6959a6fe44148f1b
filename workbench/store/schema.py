"""The schema of a store file: its tables, its version, and the way from an older version to this one."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb

from workbench.errors import StoreError

_HERE = Path(__file__).parent

VERSION = 1
"""Version of ``schema.sql``."""

MIGRATIONS: dict[int, str] = {}
"""SQL that brings a file from version ``n - 1`` to ``n``, by ``n``; every version above 1 has one."""

STORAGE_VERSION = "v1.4.0"
"""Storage version files are written in: DuckDB of this version and later read them."""

_SCHEMA = (_HERE / "schema.sql").read_text(encoding="utf-8")
_MACROS = (_HERE / "macros.sql").read_text(encoding="utf-8")

TABLES: tuple[str, ...] = tuple(
    name for name in re.findall(r"^CREATE TABLE (\w+)", _SCHEMA, re.MULTILINE) if name != "workbench_schema"
)
"""Names of the tables rows can be written to."""

VIEWS: tuple[str, ...] = tuple(re.findall(r"^CREATE VIEW (\w+)", _SCHEMA, re.MULTILINE))
"""Names of the views over them."""

TABLE_MACROS: tuple[str, ...] = tuple(
    re.findall(r"^CREATE OR REPLACE MACRO (\w+)\([^)]*\) AS TABLE", _MACROS, re.MULTILINE)
)
"""Names of the table macros of ``macros.sql``."""

SCALAR_MACROS: tuple[str, ...] = tuple(
    name
    for name in re.findall(r"^CREATE OR REPLACE MACRO (\w+)", _MACROS, re.MULTILINE)
    if name not in TABLE_MACROS
)
"""Names of the scalar macros of ``macros.sql``."""


def version_of(connection: duckdb.DuckDBPyConnection) -> int | None:
    """Schema version of the open database, ``None`` for an empty one.

    Raises
    ------
    StoreError
        The database holds tables, but is not a store.
    """
    names = {
        row[0]
        for row in connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()"
        ).fetchall()
    }
    if not names:
        return None
    if "workbench_schema" not in names:
        raise StoreError(
            f"The database holds other tables ({', '.join(sorted(names)[:3])}) and is not a store.",
            "Choose a path of its own for the store.",
        )
    row = connection.execute("SELECT max(version) FROM workbench_schema").fetchone()
    if row is None or row[0] is None:
        raise StoreError(
            "The store says no schema version.", "Restore it from a snapshot, or choose another path."
        )
    return int(row[0])


def check_version(found: int, *, writable: bool) -> None:
    """Refuse a file of a later version, and, for reading only, one of an earlier version."""
    if found > VERSION:
        raise StoreError(
            f"The store has schema version {found}, this program knows versions up to {VERSION}.",
            "Install a newer routing-workbench to open it.",
        )
    if found < VERSION and not writable:
        raise StoreError(
            f"The store has schema version {found}, its tables and macros are those of version {VERSION} now.",
            "Open it once for recording (Store.open), which brings it forward.",
        )


def prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the schema in an empty database, or bring an older one forward, in one transaction; renew the macros."""
    found = version_of(connection)
    if found is not None:
        check_version(found, writable=True)
    connection.execute("BEGIN TRANSACTION")
    try:
        if found is None:
            connection.execute(_SCHEMA)
            _reach(connection, VERSION)
        else:
            for version in range(found + 1, VERSION + 1):
                connection.execute(MIGRATIONS[version])
                _reach(connection, version)
        connection.execute(_MACROS)
        connection.execute("COMMIT")
    except duckdb.Error:
        connection.execute("ROLLBACK")
        raise


def _reach(connection: duckdb.DuckDBPyConnection, version: int) -> None:
    connection.execute("INSERT INTO workbench_schema VALUES (?, now() AT TIME ZONE 'UTC')", [version])
