"""Opening the database of a store for writing, with the settings that every store has."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb

from workbench.errors import StoreError
from workbench.store import schema
from workbench.store.connect import StoreInUse, unreadable
from workbench.store.sharing import find_owner


def quarter() -> int:
    """A quarter of the machine's memory, in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def connect(path: Path | None, threads: int, memory: int) -> duckdb.DuckDBPyConnection:
    """Open the database at ``path`` (in memory where it is ``None``) for writing, with ``memory`` bytes at most.

    Raises
    ------
    StoreInUse
        Another process records into it.
    StoreError
        There is no such folder, or the file cannot be read.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "storage_compatibility_version": schema.STORAGE_VERSION,
        "python_enable_replacements": False,  # a query must not read variables of the caller
        "threads": threads,
        "memory_limit": f"{memory // 2**20}MiB",
    }
    if path is None:
        return duckdb.connect(":memory:", config=config)
    if not path.parent.is_dir():
        raise StoreError(f"The folder {path.parent} does not exist.", "Create it, or choose another path.")
    try:
        return duckdb.connect(str(path), config=config)
    except duckdb.Error as error:
        owner = find_owner(path)
        if owner is not None:
            raise StoreInUse(
                f"Process {owner.pid} records into {path}.",
                "Read it with workbench.connect, or choose another path to record into.",
            ) from error
        raise unreadable(path, error) from error
