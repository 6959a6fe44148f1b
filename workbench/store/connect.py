"""Analysis without a model: :func:`connect` reads a store, whether or not somebody records into it."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb

from workbench.errors import SqlError, StoreError
from workbench.store import schema
from workbench.store.sharing import Client, Owner, find_owner, first_line


class StoreInUse(StoreError):
    """A store file that is open already, in this process or another."""


class Connection:
    """Reads one store. Each query finds out anew who owns the file, so that a connection outlives recordings.

    With an owner the query travels to it; without one the file is opened for that query and closed after it. Results are
    held in memory, and are DuckDB relations of their own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._client: Client | None = None
        self._home = duckdb.connect(config={"python_enable_replacements": False})

    def sql(self, query: str, params: Any = None) -> duckdb.DuckDBPyRelation:
        """The result of one query as a relation (``.df()``, ``.fetchall()``, ``.to_arrow_table()``).

        Raises
        ------
        SqlError
            The query cannot be run, or is not a SELECT.
        StoreError
            The file cannot be read.
        """
        return self._home.cursor().from_arrow(self._fetch(query, params))

    def execute(self, query: str, params: Any = None) -> duckdb.DuckDBPyRelation:
        """The same, under the name that a DuckDB cursor has for it."""
        return self.sql(query, params)

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
        self._home.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fetch(self, query: str, params: Any) -> Any:
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
    """Open the store at ``path`` for reading, through the process that records into it if there is one.

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


def _fetch_from_file(path: Path, query: str, params: Any) -> Any:
    if not path.exists():
        raise StoreError(f"There is no store at {path}.", "Record a run into it first, or check the path.")
    try:
        file = duckdb.connect(str(path), read_only=True, config={"python_enable_replacements": False})
    except duckdb.Error as error:
        raise unreadable(path, error) from error
    try:
        found = schema.version_of(file)
        if found is None:
            raise StoreError(
                f"{path} is an empty database.", "Record a run into it first, or check the path."
            )
        schema.check_version(found, writable=False)
        try:
            result = file.sql(query, params=params)
            if result is None:
                raise SqlError("The query gives no rows.", "Send a SELECT.")
            return result.to_arrow_table()
        except duckdb.Error as error:
            raise SqlError(
                f"The query failed: {first_line(error)}.", "Mend the query and send it again."
            ) from error
    finally:
        file.close()


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
