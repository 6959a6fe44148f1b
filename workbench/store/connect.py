"""Analysis without a model: :func:`connect` reads a store, whether or not somebody records into it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb

from workbench.errors import SqlError, StoreError
from workbench.store import schema
from workbench.store.export import export, open_parquet
from workbench.store.query import check_reads, failed, plain
from workbench.store.sharing import Client, Owner, find_owner, first_line, quote


class StoreInUse(StoreError):
    """A store file that is open already, in this process or another."""


class Connection:
    """Reads one store. Each query finds out anew who owns the file, so that a connection outlives recordings.

    With an owner the query travels to it; without one the file is opened for that query and closed after it. A folder that
    was exported as Parquet is read where it lies. Results are held in memory, and are DuckDB relations of their own.

    Like those of DuckDB it is a connection and a cursor of the Python database interface (PEP 249) in one, so that SQL
    magics and ``pandas.read_sql`` take it.
    """

    rowcount = -1
    """How many rows a query changed: it changes none, and PEP 249 says -1 for not known."""
    arraysize = 1
    """Rows that :meth:`fetchmany` gives unless it is told a number."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._result: duckdb.DuckDBPyConnection | None = None
        self._client: Client | None = None
        self._folder = open_parquet(path) if path.is_dir() else None
        self._home = duckdb.connect(config={"python_enable_replacements": False})

    def sql(self, query: str, params: Any = None) -> duckdb.DuckDBPyRelation:
        """The result of one query as a relation (``.df()``, ``.fetchall()``, ``.to_arrow_table()``).

        Raises
        ------
        SqlError
            The query cannot be run, or is not one SELECT.
        StoreError
            The file cannot be read.
        """
        return self._home.cursor().from_arrow(self._fetch(query, params))

    def execute(self, query: str, params: Any = None) -> duckdb.DuckDBPyConnection:
        """Run one query, as a cursor does; ``fetchone`` and its kin read its rows, here or of what is returned."""
        rows = self._fetch(query, params)
        self._result = self._home.cursor().register("rows", rows).execute("FROM rows")
        return self._result

    @property
    def description(self) -> list[Any] | None:
        """Columns of what was executed last as sequences of seven, of which the first two are name and type."""
        return None if self._result is None else self._result.description

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row of what was executed last, ``None`` behind the last one."""
        return self._executed().fetchone()

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """The next ``size`` rows (``arraysize`` where it is not given) of what was executed last, fewer at its end."""
        return self._executed().fetchmany(self.arraysize if size is None else size)

    def fetchall(self) -> list[Any]:
        """The rows of what was executed last that were not fetched yet."""
        return self._executed().fetchall()

    def commit(self) -> None:
        """Do nothing: whoever only reads has nothing to keep."""

    def rollback(self) -> None:
        """Do nothing: whoever only reads has nothing to take back."""

    def cursor(self) -> Connection:
        """A connection of its own to the same store."""
        return Connection(self.path)

    @property
    def owner(self) -> Owner | None:
        """The process that records into the store now, or ``None``."""
        return find_owner(self.path)

    def close(self) -> None:
        """Forget the results and the owner."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._folder is not None:
            self._folder.close()
        self._result = None
        self._home.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _executed(self) -> duckdb.DuckDBPyConnection:
        if self._result is None:
            raise SqlError("There is nothing to fetch.", "Execute a query first.")
        return self._result

    def _fetch(self, query: str, params: Any) -> Any:
        if self._folder is not None:
            return _fetch_here(self._folder.cursor(), query, params)
        owner = self.owner
        if owner is None:
            return _fetch_from_file(self.path, query, params)
        if self._client is None or self._client.owner != owner:
            if self._client is not None:
                self._client.close()
            self._client = Client(owner)
        try:
            return self._client.fetch(query, params)
        except SqlError:
            raise
        except StoreError:
            # The owner may have ended between the look and the question, or its number now belongs to another process.
            return _fetch_from_file(self.path, query, params)


def connect(path: str | os.PathLike[str]) -> Connection:
    """Open the store at ``path`` for reading, through the process that records into it if there is one; or a folder that
    was exported as Parquet.

    Raises
    ------
    StoreError
        There is no such file, it is not a store, or its owner cannot be asked.
    """
    connection = Connection(Path(path).expanduser().resolve())
    try:
        connection.sql("SELECT 1")
    except BaseException:
        connection.close()
        raise
    return connection


def open_file(path: Path) -> duckdb.DuckDBPyConnection:
    """The store file at ``path`` for reading, while nobody records into it.

    Raises
    ------
    StoreError
        There is no such file, it is not a store of this version, or somebody records into it.
    """
    if not path.exists():
        raise StoreError(f"There is no store at {path}.", "Record a run into it first, or check the path.")
    try:
        file = duckdb.connect(str(path), read_only=True, config={"python_enable_replacements": False})
    except duckdb.Error as error:
        owner = find_owner(path)
        if owner is not None:
            raise StoreInUse(
                f"Process {owner.pid} records into {path}.",
                "Ask that process, or end the recording first.",
            ) from error
        raise unreadable(path, error) from error
    try:
        found = schema.version_of(file)
        if found is None:
            raise StoreError(
                f"{path} is an empty database.", "Record a run into it first, or check the path."
            )
        schema.check_version(found, writable=False)
    except BaseException:
        file.close()
        raise
    return file


def export_file(
    path: str | os.PathLike[str], target: str | os.PathLike[str], runs: Sequence[int] | None = None
) -> Path:
    """Export runs of the store file at ``path``, while nobody records into it; see :func:`workbench.store.export.export`."""
    file = Path(path).expanduser().resolve()
    open_file(file).close()  # refuses what cannot be read, with the reason
    # A database opened for reading only may attach no other for writing.
    with duckdb.connect(config={"python_enable_replacements": False}) as connection:
        connection.execute(f"ATTACH {quote(str(file))} AS source (READ_ONLY)")
        connection.execute("USE source")
        return export(connection, target, runs)


def _fetch_from_file(path: Path, query: str, params: Any) -> Any:
    with open_file(path) as file:
        return _fetch_here(file, query, params)


def _fetch_here(connection: duckdb.DuckDBPyConnection, query: str, params: Any) -> Any:
    check_reads(connection, query)
    try:
        return connection.sql(query, params=plain(params)).to_arrow_table()
    except duckdb.Error as error:
        raise failed(error) from error


def unreadable(path: Path, error: duckdb.Error) -> StoreError:
    """What DuckDB's refusal to open ``path`` means to a user."""
    text = str(error)
    if "not a valid DuckDB database file" in text or "is a directory" in text.lower():
        return StoreError(f"{path} is not a DuckDB database.", "Choose another path for the store.")
    if "Could not set lock" in text or "different configuration" in text:
        return StoreInUse(
            f"{path} is in use by another process, which does not share it.",
            "End that process, or work on a snapshot of the store.",
        )
    if "Permission denied" in text or "Read-only file system" in text or "read-only" in text:
        return StoreError(
            f"{path} cannot be opened: permission denied.", "Choose a file and folder you may write to."
        )
    return StoreError(
        f"{path} cannot be opened: {first_line(error)}.", "Check the path, or choose another one."
    )
