"""The writer: a bounded queue of Arrow batches and the one thread that commits them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Literal

import pyarrow as pa

from workbench.errors import StoreError

Policy = Literal["block", "drop"]
Sink = Callable[[Mapping[str, pa.Table]], None]

COALESCE_ROWS = 131_072
"""Rows of one table that make a commit worth while: DuckDB's bulk path starts at one row group of 122,880."""


class Writer:
    """Takes batches from any thread, coalesces them by table and hands them to ``sink`` on a thread of its own.

    Parameters
    ----------
    sink
        Called with one Arrow table a table name; must write all of them or none.
    capacity
        Bytes that may wait, those being written included.
    policy
        ``"block"``: :meth:`put` waits for room. ``"drop"``: it counts the rows and returns at once.
    interval
        Seconds after which fewer than :data:`COALESCE_ROWS` waiting rows are committed all the same.

    When the sink fails, the rows stay in the queue and the next :meth:`put` or :meth:`flush` raises; the flush (or put)
    after that tries again, and nothing is tried in between.
    Nothing is thrown away unless :meth:`close` fails too, which says how much.
    """

    def __init__(self, sink: Sink, *, capacity: int, policy: Policy, interval: float) -> None:
        self._sink = sink
        self._capacity = capacity
        self._policy = policy
        self._interval = interval
        self._changed = threading.Condition()
        self._waiting: dict[str, list[pa.RecordBatch]] = {}
        self._rows: dict[str, int] = {}
        self._bytes = 0
        self._oldest = 0.0
        self._accepted = 0  # batches ever accepted, in order; flush waits until as many are committed
        self._committed = 0
        self._wanted = 0
        self._error: Exception | None = None
        self._held = False  # after a failure nothing is tried again until somebody asks
        self._dropped: dict[str, int] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="workbench-store-writer", daemon=True)
        self._thread.start()

    def put(self, table: str, batch: pa.RecordBatch) -> int:
        """Queue ``batch`` for ``table``; the number of rows accepted, 0 where the policy dropped them."""
        size, rows = int(batch.nbytes), int(batch.num_rows)
        with self._changed:
            self._check_open()
            self._raise_error()
            # A batch larger than the whole capacity goes through alone rather than never.
            while self._bytes and self._bytes + size > self._capacity:
                if self._policy == "drop":
                    self._dropped[table] = self._dropped.get(table, 0) + rows
                    return 0
                self._wanted = self._accepted
                self._held = False
                self._changed.notify_all()
                self._changed.wait()
                self._check_open()
                self._raise_error()
            if not self._waiting:
                self._oldest = time.monotonic()
            self._waiting.setdefault(table, []).append(batch)
            self._rows[table] = self._rows.get(table, 0) + rows
            self._bytes += size
            self._accepted += 1
            if self._held or self._accepted == self._committed + 1 or self._rows[table] >= COALESCE_ROWS:
                self._held = False
                self._changed.notify_all()
            return rows

    def flush(self) -> None:
        """Return when everything accepted before the call is committed; raises :class:`StoreError` if that failed."""
        with self._changed:
            self._check_open()
            self._raise_error()
            self._held = False
            goal = self._accepted
            self._wanted = max(self._wanted, goal)
            self._changed.notify_all()
            while self._committed < goal and self._error is None:
                self._changed.wait()
            self._raise_error()

    def dropped(self) -> dict[str, int]:
        """Rows dropped so far by table, exactly."""
        with self._changed:
            return dict(self._dropped)

    def close(self) -> None:
        """Commit what waits and end the thread; raises :class:`StoreError` naming the rows that could not be written."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._error, self._held = None, False  # one last attempt
            self._changed.notify_all()
        self._thread.join()
        if self._waiting:
            error, lost = self._error, self._lost()
            self._waiting = {}
            raise StoreError(
                f"Closing the store lost {lost}: {error}.", "Record them again once the cause is mended."
            ) from error

    def _check_open(self) -> None:
        if self._closing:
            raise StoreError("The store is closed.", "Open it again before writing.")

    def _raise_error(self) -> None:
        if self._error is None:
            return
        error, self._error = self._error, None
        raise StoreError(
            f"The store could not write {self._lost()}: {error}.",
            "The rows are kept in memory; mend the cause and flush again.",
        ) from error

    def _lost(self) -> str:
        counts = {table: sum(batch.num_rows for batch in batches) for table, batches in self._waiting.items()}
        return ", ".join(f"{rows} rows of {table!r}" for table, rows in counts.items())

    def _due(self) -> float | None:
        """Seconds until the waiting rows must be committed; ``None`` when nothing waits or a failure holds them."""
        if self._held or not self._waiting:
            return None
        if self._closing or self._wanted > self._committed or max(self._rows.values()) >= COALESCE_ROWS:
            return 0.0
        return max(0.0, self._oldest + self._interval - time.monotonic())

    def _work(self) -> None:
        while True:
            with self._changed:
                while (due := self._due()) is None or due > 0:
                    if self._closing and due is None:
                        return
                    self._changed.wait(due)
                taken, self._waiting, self._rows = self._waiting, {}, {}
                accepted = self._accepted
                size = sum(batch.nbytes for batches in taken.values() for batch in batches)
            error: Exception | None = None
            try:
                self._sink(
                    {table: pa.Table.from_batches(_unify(batches)) for table, batches in taken.items()}
                )
            except Exception as raised:  # reaches the caller at the next put or flush
                error = raised
            with self._changed:
                if error is None:
                    self._committed = accepted
                    self._bytes -= size
                else:
                    self._give_back(taken)
                    self._error, self._held = error, True
                self._changed.notify_all()

    def _give_back(self, taken: dict[str, list[pa.RecordBatch]]) -> None:
        for table, batches in self._waiting.items():
            taken.setdefault(table, []).extend(batches)
        self._waiting = taken
        self._rows = {table: sum(batch.num_rows for batch in batches) for table, batches in taken.items()}
        self._oldest = time.monotonic()


def _unify(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Batches of one table may leave out different columns: give all of them the union, NULL where left out."""
    first = batches[0].schema
    if all(batch.schema.equals(first) for batch in batches):
        return batches
    schema = pa.unify_schemas([batch.schema for batch in batches])
    return [
        pa.RecordBatch.from_arrays(
            [
                batch.column(field.name)
                if field.name in batch.schema.names
                else pa.nulls(batch.num_rows, field.type)
                for field in schema
            ],
            schema=schema,
        )
        for batch in batches
    ]
