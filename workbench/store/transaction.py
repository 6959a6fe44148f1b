"""All of some statements, or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit what is executed inside, or roll it back where something fails; the failure goes on as it is."""
    connection.execute("BEGIN TRANSACTION")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    # A COMMIT that fails (a full disk) has rolled back by itself: another ROLLBACK would hide why.
    connection.execute("COMMIT")
