"""The schema of a store file: its tables, its version, and the way from an older version to this one."""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import duckdb

from workbench.errors import StoreError
from workbench.store.transaction import transaction

_HERE = Path(__file__).parent

VERSION = 7
"""Version of ``schema.sql``."""

MIGRATIONS: dict[int, str] = {
    int(path.stem): path.read_text(encoding="utf-8") for path in sorted((_HERE / "migrations").glob("*.sql"))
}
"""SQL that brings a file from version ``n - 1`` to ``n``, by ``n``; every version above 1 has one."""

STORAGE_VERSION = "v1.4.0"
"""Storage version files are written in: DuckDB of this version and later read them."""

_SCHEMA = (_HERE / "schema.sql").read_text(encoding="utf-8")

_FILES = (
    "cells",
    "parts",
    "blocks",
    "pools",
    "load",
    "paths",
    "labels",
    "compare",
    "depth",
    "effects",
    "neurons",
    "map",
)
"""Files of ``macros/`` in the order they are run: a macro may use those above it."""

_MACROS = "\n".join((_HERE / "macros" / f"{name}.sql").read_text(encoding="utf-8") for name in _FILES)

_HEAD = re.compile(r"((?:^--.*\n)+)^CREATE OR REPLACE MACRO (\w+)\(([^)]*)\) AS( TABLE)?", re.MULTILINE)

TABLES: tuple[str, ...] = tuple(
    name for name in re.findall(r"^CREATE TABLE (\w+)", _SCHEMA, re.MULTILINE) if name != "workbench_schema"
)
"""Names of the tables rows can be written to."""

VIEWS: tuple[str, ...] = (*re.findall(r"^CREATE VIEW (\w+)", _SCHEMA, re.MULTILINE), "macros")
"""Names of the views over them; ``macros`` lists the macros themselves (:func:`macro_docs`)."""

TABLE_MACROS: tuple[str, ...] = tuple(
    re.findall(r"^CREATE OR REPLACE MACRO (\w+)\([^)]*\) AS TABLE", _MACROS, re.MULTILINE)
)
"""Names of the table macros of ``macros/``."""

SCALAR_MACROS: tuple[str, ...] = tuple(
    name
    for name in re.findall(r"^CREATE OR REPLACE MACRO (\w+)", _MACROS, re.MULTILINE)
    if name not in TABLE_MACROS
)
"""Names of the scalar macros of ``macros/``."""


@dataclass(frozen=True)
class MacroDoc:
    """What ``macros/`` says about one macro.

    Attributes
    ----------
    name, arguments
        How it is called; ``name := value`` is an argument with a default.
    kind
        ``'table'`` (stands in FROM) or ``'scalar'``.
    subject
        The file of ``macros/`` it stands in: ``'load'``, ``'paths'``, ...
    answers
        The question it answers, in one line of text.
    formula
        Its columns and their formulas, one line or several.
    source
        Where the formula is from.
    """

    name: str
    arguments: str
    kind: str
    subject: str
    answers: str
    formula: str
    source: str


@cache
def macro_docs() -> tuple[MacroDoc, ...]:
    """The macros in the order of their files, read from the comments above them.

    A comment begins with the name and a colon; lines set in by three spaces are formulas; ``Source:`` opens its last part.
    The same rows are the view ``macros`` of every store.
    """
    docs: list[MacroDoc] = []
    for subject in _FILES:
        text = (_HERE / "macros" / f"{subject}.sql").read_text(encoding="utf-8")
        for comment, name, arguments, table in _HEAD.findall(text):
            lines = [line.removeprefix("--").removeprefix(" ") for line in comment.splitlines()]
            at = next((i for i, line in enumerate(lines) if line.startswith("Source:")), len(lines))
            prose = "\n".join(lines[:at]).replace(
                ",\n  ", ".\n  "
            )  # a sentence that led to its formula ends there
            prose = " ".join(line for line in prose.splitlines() if not line.startswith("  "))
            docs.append(
                MacroDoc(
                    name=name,
                    arguments=" ".join(arguments.split()),
                    kind="table" if table else "scalar",
                    subject=subject,
                    answers=re.sub(r"\s+", " ", prose.removeprefix(f"{name}:")).strip(),
                    formula="\n".join(line.strip() for line in lines[:at] if line.startswith("  ")),
                    source=" ".join(lines[at:]).removeprefix("Source:").strip(),
                )
            )
    return tuple(docs)


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
    """Create the tables in an empty database, or bring older ones forward, in one transaction."""
    found = version_of(connection)
    if found is not None:
        check_version(found, writable=True)
    with transaction(connection):
        if found is None:
            connection.execute(_SCHEMA)
            _reach(connection, VERSION)
        else:
            for version in range(found + 1, VERSION + 1):
                connection.execute(MIGRATIONS[version])
                _reach(connection, version)


def renew_macros(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the macros of this program in one transaction, unless the database has these very ones."""
    found = connection.execute(
        "SELECT comment FROM duckdb_views() WHERE database_name = current_database() AND view_name = 'macros'"
    ).fetchone()
    view = _macros_view()
    mark = hashlib.sha256((_MACROS + view).encode()).hexdigest()
    if found is not None and found[0] == mark:
        return
    with transaction(connection):
        connection.execute(_MACROS)
        connection.execute(view)
        connection.execute(f"COMMENT ON VIEW macros IS '{mark}'")


class Renewal:
    """The macros of a store, made on a thread of their own: they take longer than everything else about opening one."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor
        self._error: duckdb.Error | None = None
        self._thread = threading.Thread(target=self._work, name="workbench-store-macros", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            with self._cursor:
                renew_macros(self._cursor)
        except duckdb.Error as error:  # reaches whoever asks
            self._error = error

    def join(self) -> None:
        """Return when the thread has ended, whatever became of it."""
        self._thread.join()

    def wait(self) -> None:
        """Return when the macros are there; raises :class:`StoreError` where they cannot be made."""
        self.join()
        if self._error is not None:
            raise StoreError(
                f"The macros of the store cannot be made: {self._error}.",
                "Check the disk, and open the store again.",
            ) from self._error


def _reach(connection: duckdb.DuckDBPyConnection, version: int) -> None:
    connection.execute("INSERT INTO workbench_schema VALUES (?, now() AT TIME ZONE 'UTC')", [version])


def _macros_view() -> str:
    names = [field.name for field in fields(MacroDoc)]
    rows = ", ".join(
        "(" + ", ".join("'" + str(getattr(doc, name)).replace("'", "''") + "'" for name in names) + ")"
        for doc in macro_docs()
    )
    return f"CREATE OR REPLACE VIEW macros AS SELECT * FROM (VALUES {rows}) AS m({', '.join(names)})"
