"""Where the functions of this package ask for rows."""

from __future__ import annotations

from typing import Any, Protocol


class Source(Protocol):
    """What answers SQL: a bench, a store, what :func:`workbench.connect` gives, or any DuckDB connection to a store."""

    def sql(self, query: str, *, params: Any = None) -> Any:
        """The result of ``query``, with ``.fetchall()`` and ``.df()``."""
