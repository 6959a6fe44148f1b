"""Rows: the DuckDB schema, the writer, the macros, and the ways in which processes share one store.

>>> store = Store.open(":memory:")
>>> store.write("metric", {"run": 1, "name": ["loss", "perplexity"], "value": [2.0, 7.4]})
2
>>> store.flush()
>>> store.sql("SELECT name FROM metric WHERE value > ?", [3]).fetchall()
[('perplexity',)]
>>> store.close()
"""

from __future__ import annotations

from workbench.store.connect import Connection, connect
from workbench.store.export import open_parquet, read_page
from workbench.store.guard import check_select
from workbench.store.ids import new_run_id
from workbench.store.schema import TABLES
from workbench.store.store import Store

__all__ = [
    "TABLES",
    "Connection",
    "Store",
    "check_select",
    "connect",
    "new_run_id",
    "open_parquet",
    "read_page",
]
