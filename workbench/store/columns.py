"""From what a caller passes to Arrow columns of exactly the types the schema gives them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from workbench.errors import StoreError

_ARROW = {
    "BOOLEAN": pa.bool_(),
    "UTINYINT": pa.uint8(),
    "SMALLINT": pa.int16(),
    "USMALLINT": pa.uint16(),
    "UINTEGER": pa.uint32(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "UBIGINT": pa.uint64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "VARCHAR": pa.string(),
    "JSON": pa.string(),
    "BLOB": pa.binary(),
    "TIMESTAMP": pa.timestamp("us"),
}


@dataclass(frozen=True)
class Column:
    """One column of a table: its name, its DuckDB type, the Arrow type written to it, and whether NULL is refused."""

    name: str
    sql_type: str
    arrow_type: Any
    required: bool


def read_columns(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, Column]]:
    """Columns of every table of the open store by table and name, in the order of the schema."""
    rows = connection.execute(
        "SELECT table_name, column_name, data_type, NOT is_nullable FROM duckdb_columns() "
        "WHERE database_name = current_database() AND NOT internal ORDER BY table_name, column_index"
    ).fetchall()
    tables: dict[str, dict[str, Column]] = {}
    for table, name, sql_type, required in rows:
        tables.setdefault(table, {})[name] = Column(name, sql_type, _arrow_type(sql_type), bool(required))
    return tables


def _arrow_type(sql_type: str) -> Any:
    return pa.list_(_ARROW[sql_type[:-2]]) if sql_type.endswith("[]") else _ARROW[sql_type]


def to_batch(
    table: str, spec: Mapping[str, Column], columns: Mapping[str, Any], *, lent: bool = True
) -> pa.RecordBatch:
    """One Arrow batch of ``table`` from ``columns``; numpy data that are ``lent`` are copied, so that the caller may reuse
    its buffers.

    Numpy arrays, lists and tuples and Arrow arrays give one value a row (a two-dimensional array one list a row);
    anything else is a scalar and is repeated on every row. Columns that are left out are NULL.

    Raises
    ------
    StoreError
        An unknown column, a required one left out or NULL, lengths that differ, or a value that does not fit its type.
    """
    unknown = [name for name in columns if name not in spec]
    if unknown:
        raise StoreError(
            f"Table {table!r} has no column {unknown[0]!r}.", f"Its columns are: {', '.join(spec)}."
        )
    missing = [column.name for column in spec.values() if column.required and column.name not in columns]
    if missing:
        raise StoreError(
            f"Column {missing[0]!r} of table {table!r} is not given.",
            f"Give every one of: {', '.join(missing)}.",
        )
    lengths = {name: len(value) for name, value in columns.items() if _is_rows(value)}
    rows = next(iter(lengths.values()), 1)
    for name, length in lengths.items():
        if length != rows:
            first = next(iter(lengths))
            raise StoreError(
                f"Column {name!r} of table {table!r} has {length} rows, {first!r} has {rows}.",
                "Give columns of one length, or scalars.",
            )
    arrays = [_convert(table, spec[name], columns[name], rows, lent) for name in columns]
    schema = pa.schema([pa.field(name, spec[name].arrow_type) for name in columns])
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _is_rows(value: Any) -> bool:
    return isinstance(value, (list, tuple, pa.Array, pa.ChunkedArray)) or (
        isinstance(value, np.ndarray) and value.ndim > 0
    )


def _convert(table: str, column: Column, value: Any, rows: int, lent: bool) -> pa.Array:
    try:
        array = _rows_to_arrow(column, value, lent) if _is_rows(value) else _repeat(column, value, rows)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise StoreError(
            f"Column {column.name!r} of table {table!r} cannot hold what was given: {error}.",
            f"Its type is {column.sql_type}.",
        ) from error
    if column.required and array.null_count:
        raise StoreError(
            f"Column {column.name!r} of table {table!r} has {array.null_count} NULLs.",
            "Every row needs a value there.",
        )
    return array


def _rows_to_arrow(column: Column, value: Any, lent: bool) -> pa.Array:
    if isinstance(value, pa.ChunkedArray):
        value = value.combine_chunks()
    if isinstance(value, pa.Array):
        return value.cast(column.arrow_type)
    if isinstance(value, np.ndarray):
        # Arrow would share the memory of a numpy array, which recorders reuse for the next step.
        return _from_numpy(value.copy() if lent else value, column.arrow_type)
    if column.sql_type == "JSON":
        value = [_json(one) for one in value]
    return pa.array(value, type=column.arrow_type)


def _from_numpy(value: np.ndarray[Any, Any], arrow_type: Any) -> pa.Array:
    if pa.types.is_list(arrow_type) and value.ndim == 2:
        offsets = np.arange(0, value.size + 1, max(value.shape[1], 1), dtype=np.int32)
        if value.shape[1] == 0:
            offsets = np.zeros(len(value) + 1, dtype=np.int32)
        flat = _from_numpy(value.reshape(-1), arrow_type.value_type)
        return pa.ListArray.from_arrays(pa.array(offsets), flat)
    if value.ndim != 1:
        raise ValueError(f"an array of {value.ndim} dimensions")
    if value.dtype == object:
        return pa.array(value.tolist(), type=arrow_type)
    return pa.array(value).cast(arrow_type)


def _repeat(column: Column, value: Any, rows: int) -> pa.Array:
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.item()
    if column.sql_type == "JSON":
        value = _json(value)
    return pa.repeat(pa.scalar(value, type=column.arrow_type), rows)


def _json(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
