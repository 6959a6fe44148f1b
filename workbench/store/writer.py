"""The writer: a bounded queue of Arrow batches, and of rows still to be made, and the one thread that commits them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import pyarrow as pa

from workbench.errors import StoreError

Policy = Literal["block", "drop", "sample"]
POLICIES: tuple[Policy, ...] = ("block", "drop", "sample")
Sink = Callable[[Mapping[str, pa.Table]], None]

COALESCE_ROWS = 131_072
"""Rows of one table that make a commit worth while: DuckDB's bulk path starts at one row group of 122,880."""


QUIET = 0.25
"""Seconds without a new batch after which :meth:`Writer.soon` commits what waits."""


class Deferred(Protocol):
    """What rows can be made of later, on the writer's thread, together with others of its kind."""

    @property
    def nbytes(self) -> int:
        """Bytes it holds while it waits."""

    @property
    def rows(self) -> int:
        """About how many rows its largest table will get."""

    def count(self) -> Mapping[str, int]:
        """Exactly how many rows each table would get; asked only if it is dropped."""


Columns: TypeAlias = Mapping[str, Any]
Digest: TypeAlias = Callable[[Sequence[Any]], Iterable[tuple[str, Columns]]]
"""Makes the rows of many :class:`Deferred` at once: tables and their columns."""
Convert: TypeAlias = Callable[[str, Columns], pa.RecordBatch]


class Writer:
    """Takes batches from any thread, coalesces them by table and hands them to ``sink`` on a thread of its own.

    Parameters
    ----------
    sink
        Called with one Arrow table a table name; must write all of them or none.
    capacity
        Bytes that may wait, those being written included.
    policy
        ``"block"``: :meth:`put` waits for room. ``"drop"`` and ``"sample"``: it counts the rows and returns at once
        (whoever samples looks at :attr:`pressure` and gives less).
    interval
        Seconds after which fewer than :data:`COALESCE_ROWS` waiting rows are committed all the same.
    convert
        Makes an Arrow batch of the columns that a digest gives.

    When the sink fails, the rows stay in the queue and the next :meth:`put` or :meth:`flush` raises; the flush (or put)
    after that tries again, and nothing is tried in between.
    Nothing is thrown away unless :meth:`close` fails too, which says how much.
    """

    def __init__(
        self, sink: Sink, *, capacity: int, policy: Policy, interval: float, convert: Convert | None = None
    ) -> None:
        self._sink = sink
        self._capacity = capacity
        self.policy = policy
        self._interval = interval
        self._convert = convert
        self._changed = threading.Condition()
        self._waiting: dict[str, list[pa.RecordBatch]] = {}
        self._deferred: list[tuple[Digest, Deferred]] = []
        self._deferred_rows = 0
        self._rows: dict[str, int] = {}
        self._bytes = 0
        self._oldest = self._newest = time.monotonic()
        self._accepted = 0  # batches ever accepted, in order; flush waits until as many are committed
        self._committed = 0
        self._wanted = 0
        self._soon = False
        self._error: Exception | None = None
        self._held = False  # after a failure nothing is tried again until somebody asks
        self._failure: Exception | None = None  # the last one, until a commit succeeds
        self._dropped: dict[str, int] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="workbench-store-writer", daemon=True)
        self._thread.start()

    def put(self, table: str, batch: pa.RecordBatch, *, always: bool = False) -> int:
        """Queue ``batch`` for ``table``; the number of rows accepted, 0 where the policy dropped them.

        ``always`` accepts it whatever waits already: the few rows that say what became of the others.
        """
        size, rows = int(batch.nbytes), int(batch.num_rows)
        with self._changed:
            if not self._make_room(0 if always else size):
                self._dropped[table] = self._dropped.get(table, 0) + rows
                return 0
            self._waiting.setdefault(table, []).append(batch)
            self._rows[table] = self._rows.get(table, 0) + rows
            self._accept(size, self._rows[table])
            return rows

    def defer(self, digest: Digest, item: Deferred, *, always: bool = False) -> Mapping[str, int]:
        """Queue ``item``, whose rows ``digest`` makes on the writer's thread together with those of its neighbours.

        Returns the rows dropped, by table: nothing where the item was accepted. ``always`` as in :meth:`put`.
        """
        with self._changed:
            if not self._make_room(0 if always else item.nbytes):
                lost = dict(item.count())
                for table, rows in lost.items():
                    self._dropped[table] = self._dropped.get(table, 0) + rows
                return lost
            self._deferred.append((digest, item))
            self._deferred_rows += item.rows
            self._accept(item.nbytes, self._deferred_rows)
            return {}

    def _make_room(self, size: int) -> bool:
        """Wait until ``size`` bytes fit, or say that they do not. With the lock held."""
        self._check_open()
        self._raise_error()
        # A batch larger than the whole capacity goes through alone rather than never.
        while size and self._bytes and self._bytes + size > self._capacity:
            if self.policy != "block":
                return False
            self._wanted = self._accepted
            self._held = False
            self._changed.notify_all()
            self._changed.wait()
            self._check_open()
            self._raise_error()
        return True

    def _accept(self, size: int, rows: int) -> None:
        self._newest = time.monotonic()
        if self._accepted == self._committed:
            self._oldest = self._newest
        self._bytes += size
        self._accepted += 1
        full = rows >= COALESCE_ROWS or self._bytes >= self._capacity // 4
        if self._held or self._accepted == self._committed + 1 or full:
            self._held = False
            self._changed.notify_all()

    @property
    def pressure(self) -> float:
        """Share of the capacity that waits, from 0 to 1."""
        return min(1.0, self._bytes / self._capacity)

    def idle(self) -> float:
        """Seconds since a batch was last accepted, or since the start."""
        return time.monotonic() - self._newest

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

    def settle(self) -> Exception | None:
        """Wait until everything accepted before the call is committed; why it is not, where it cannot be.

        Unlike :meth:`flush` it leaves the failure for the next :meth:`put` or :meth:`flush` to raise, and tries nothing
        again that has failed.
        """
        with self._changed:
            self._check_open()
            if self._accepted == self._committed or self._held:
                return self._failure
            goal = self._accepted
            self._wanted = max(self._wanted, goal)
            self._changed.notify_all()
            while self._committed < goal and self._error is None:
                self._changed.wait()
            return self._failure

    def soon(self) -> None:
        """Commit what waits once nothing more comes for :data:`QUIET` seconds, instead of after the whole interval."""
        with self._changed:
            if self._accepted > self._committed and not self._soon:
                self._soon = True
                self._changed.notify_all()

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
        if isinstance(self._error, StoreError):
            raise self._error
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
        if isinstance(error, StoreError):
            raise error
        raise StoreError(
            f"The store could not write {self._lost()}: {error}.",
            "The rows are kept in memory; mend the cause and flush again.",
        ) from error

    def _lost(self) -> str:
        counts = {table: sum(batch.num_rows for batch in batches) for table, batches in self._waiting.items()}
        return ", ".join(f"{rows} rows of {table!r}" for table, rows in counts.items())

    def _due(self) -> float | None:
        """Seconds until the waiting rows must be committed; ``None`` when nothing waits or a failure holds them."""
        if self._held or not (self._waiting or self._deferred):
            return None
        most = max(self._deferred_rows, *self._rows.values(), 0)
        full = most >= COALESCE_ROWS or self._bytes >= self._capacity // 4
        if self._closing or self._wanted > self._committed or full:
            return 0.0
        due = self._oldest + self._interval
        if self._soon:
            due = min(due, self._newest + QUIET)
        return max(0.0, due - time.monotonic())

    def _work(self) -> None:
        while self._commit():
            pass  # what was committed is let go before the next wait: a run would keep its logits, its bench and its model

    def _commit(self) -> bool:
        """Wait until rows are due, and commit them; ``False`` once the writer is closed and nothing waits."""
        with self._changed:
            while (due := self._due()) is None or due > 0:
                if self._closing and due is None:
                    return False
                self._changed.wait(due)
            self._soon = False
            taken, self._waiting, self._rows = self._waiting, {}, {}
            deferred, self._deferred, self._deferred_rows = self._deferred, [], 0
            accepted, size = self._accepted, self._bytes
            self._oldest = time.monotonic()  # what comes from now on waits for the next time
        error = self._make(deferred, taken) if deferred else None
        deferred.clear()
        made = sum(batch.nbytes for batches in taken.values() for batch in batches)
        try:
            self._sink({table: pa.Table.from_batches(_unify(batches)) for table, batches in taken.items()})
        except Exception as raised:  # reaches the caller at the next put or flush
            with self._changed:
                self._bytes += made - size  # deferred items have become batches
                self._give_back(taken)
                self._error = self._failure = raised
                self._held = True
                self._changed.notify_all()
            return True
        with self._changed:
            self._committed = accepted
            self._bytes -= size
            self._error = self._failure = error
            self._changed.notify_all()
        return True

    def _make(
        self, deferred: list[tuple[Digest, Deferred]], taken: dict[str, list[pa.RecordBatch]]
    ) -> StoreError | None:
        """Add the rows of ``deferred`` to ``taken``. Those that cannot be made are counted as dropped, and say why."""
        groups: dict[Digest, list[Deferred]] = {}
        for digest, item in deferred:
            groups.setdefault(digest, []).append(item)
        failure: StoreError | None = None
        for digest, items in groups.items():
            made: list[tuple[str, pa.RecordBatch]] = []
            try:
                assert self._convert is not None
                made = [(table, self._convert(table, columns)) for table, columns in digest(items)]
            except Exception as error:  # reaches the caller at the next put or flush
                failure = StoreError(
                    f"The rows of {len(items)} recorded passes could not be made: {error}.",
                    "They are lost and counted as dropped; record them again once the cause is mended.",
                )
                failure.__cause__ = error
                with self._changed:
                    for item in items:
                        for table, rows in item.count().items():
                            self._dropped[table] = self._dropped.get(table, 0) + rows
                continue
            for table, batch in made:
                if batch.num_rows:
                    taken.setdefault(table, []).append(batch)
        return failure

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
