"""The store as the process sees it that records: open, write, ask, copy, close."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import pyarrow as pa

from workbench.address import integers
from workbench.errors import SetupError, StoreError
from workbench.store import columns as typed
from workbench.store import database, pools, schema, summary
from workbench.store.connect import StoreInUse
from workbench.store.export import export
from workbench.store.query import check_reads, failed, plain
from workbench.store.sharing import Server, first_line, quote
from workbench.store.transaction import transaction
from workbench.store.upkeep import Upkeep
from workbench.store.writer import POLICIES, Deferred, Digest, Policy, Writer

DEFAULT_PATH = "workbench.duckdb"
"""File in the working directory that ``Store.open(None)`` looks for first."""

CAPACITY = 256 * 2**20
"""Bytes that may wait for the writer unless told otherwise."""

INTERVAL = 1.0
"""Seconds after which waiting rows are committed although they are few."""

_log = logging.getLogger(__name__)
_open_stores: weakref.WeakValueDictionary[Path, Store] = weakref.WeakValueDictionary()
_registry = threading.RLock()


class Store:
    """One DuckDB database of runs, owned by this process; made by :meth:`open`.

    Rows go to a writer thread, which commits them in large batches; whoever asks, here or in another process, finds
    everything written before committed first. A store on disk is served to other processes
    (:func:`workbench.store.connect`) as long as it is open. Methods may be called from any thread.

    Attributes
    ----------
    path
        The file, ``None`` for a store in memory.
    note
        One sentence that says which file was opened and why, for a user to read.
    shared
        Whether other processes can read it now; ``unshared_because`` gives the reason where they cannot.
    policy
        What happens to rows for which there is no room: ``block``, ``drop`` or ``sample``.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        path: Path | None,
        writer: Writer,
        server: Server | None,
        columns: Mapping[str, Mapping[str, typed.Column]],
        macros: schema.Renewal,
        upkeep: Upkeep,
        note: str,
        unshared_because: str,
    ) -> None:
        self.path = path
        self.note = note
        self.unshared_because = unshared_because
        self._connection = connection
        self._columns = columns
        self._writer = writer
        self.policy = writer.policy
        self._server = server
        self._macros = macros
        self._users = 1
        self._upkeep = upkeep
        # Runs at exit too, so that a program that never closes its store still commits what it wrote.
        self._finish = weakref.finalize(self, _shut_down, connection, writer, server, macros, self._upkeep)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        threads: int = 1,
        capacity: int = CAPACITY,
        policy: Policy = "block",
        interval: float = INTERVAL,
        share: bool = True,
        memory: int | None = None,
    ) -> Store:
        """Open a store for recording, and create or bring forward its file.

        Parameters
        ----------
        path
            A file, which is joined where this process has it open already (the options are those of the first then);
            ``":memory:"``; or ``None``: join ``./workbench.duckdb`` if this process has it open already, open
            it if nobody has, and else open the first free one of ``./workbench-2.duckdb``, ``-3``, ...
        threads
            Threads DuckDB may use. One leaves the cores to the model.
        capacity
            Bytes that may wait for the writer.
        policy
            What a write does when that many wait: ``"block"`` until there is room, or ``"drop"`` the rows and count them.
            ``"sample"`` drops too, but a recorder keeps fewer tokens from half of the capacity on.
        interval
            Seconds after which waiting rows are committed although they are few.
        share
            Serve the store to other processes of this user, on loopback with a token.
        memory
            Bytes that DuckDB may keep of the file and use for questions, larger ones spill to disk; a quarter of the
            machine's where not given. A long recording holds no more than this, ``capacity`` and the model.

        Raises
        ------
        StoreError
            The file is not a store, cannot be written, or is open in another process.
        """
        if policy not in POLICIES:
            raise StoreError(f"There is no policy {policy!r}.", "Choose 'block', 'drop' or 'sample'.")
        options: dict[str, Any] = {
            "threads": threads,
            "capacity": capacity,
            "policy": policy,
            "interval": interval,
            "memory": database.quarter() if memory is None else memory,
        }
        with _registry:
            if path is None:
                return cls._open_default(share, options)
            if str(path) == ":memory:":
                return cls._open_one(
                    None, False, "The store is in memory and ends with this process.", options
                )
            file = Path(path).expanduser().resolve()
            return cls._open_one(file, share, f"Recording into {file}.", options)

    @classmethod
    def _open_default(cls, share: bool, options: dict[str, Any]) -> Store:
        first = Path(DEFAULT_PATH).resolve()
        joined = _open_stores.get(first)
        if joined is not None:
            return joined.join()
        for number in itertools.count(1):
            file = first if number == 1 else first.with_name(f"{first.stem}-{number}{first.suffix}")
            if file in _open_stores:
                continue
            note = f"Recording into {file}."
            if number > 1:
                note = f"Recording into {file}, because another process records into {first}."
            try:
                store = cls._open_one(file, share, note, options)
            except StoreInUse:
                continue
            if number > 1:
                _log.warning(note)
            return store
        raise AssertionError("unreachable")

    @classmethod
    def _open_one(cls, path: Path | None, share: bool, note: str, options: dict[str, Any]) -> Store:
        joined = None if path is None else _open_stores.get(path)
        if joined is not None:  # a notebook cell that ran again
            return joined.join()
        connection = database.connect(path, int(options["threads"]), int(options["memory"]))
        try:
            schema.prepare(connection)
        except duckdb.Error as error:
            connection.close()
            raise StoreError(
                f"The schema of {path or 'the store'} cannot be prepared: {first_line(error)}.",
                "Choose another path.",
            ) from error
        except StoreError:
            connection.close()
            raise
        columns = typed.read_columns(connection)
        macros = schema.Renewal(connection.cursor())
        sums = threading.Lock()
        writer = Writer(
            _LocalSink(connection, sums),
            capacity=options["capacity"],
            policy=options["policy"],
            interval=options["interval"],
            convert=partial(_convert, columns, lent=False),
        )
        server, reason = None, "it was opened with share=False" if path else "it is in memory"
        if share and path is not None:

            def settle() -> Exception | None:
                macros.wait()
                return writer.settle()

            try:
                server, reason = Server(connection, path, settle=settle), ""
            except (SetupError, duckdb.Error, OSError) as error:
                reason = str(error)
                _log.warning("Other processes cannot read %s while it is open: %s", path, reason)
        cursor = partial(_cursor, connection, writer, macros)
        upkeep = Upkeep(cursor, writer.idle, sums, summary.waiting(connection))
        store = cls(connection, path, writer, server, columns, macros, upkeep, note, reason)
        if path is not None:
            _open_stores[path] = store
        return store

    @property
    def shared(self) -> bool:
        """Whether other processes can ask this store now."""
        return self._server is not None and self._finish.alive

    def write(self, table: str, columns: Mapping[str, Any], *, always: bool = False) -> int:
        """Queue rows of ``table`` for the writer; :meth:`sql` and other readers find them committed.

        Parameters
        ----------
        table
            One of :data:`workbench.store.TABLES`.
        columns
            Values by column name. Numpy arrays (copied), lists and Arrow arrays give one value a row; anything else is
            a scalar that stands on every row. Columns left out are NULL.
        always
            Take them whatever the policy says: for the few rows that describe a run.

        Returns
        -------
        int
            Rows accepted: 0 where the queue is full and the policy is ``"drop"``.

        Raises
        ------
        StoreError
            The table, a column, a length or a value does not fit; the store is closed; or an earlier write failed in the
            background, in which case the rows of this call are not taken.
        """
        batch = _convert(self._columns, table, columns)
        return self._writer.put(table, batch, always=always) if batch.num_rows else 0

    def defer(self, digest: Digest, item: Deferred) -> Mapping[str, int]:
        """Queue something that rows are made of later, on the writer's thread: ``digest`` gets all that waits at once.

        Whoever asks the store finds the rows made and committed first. Returns the rows dropped, by table.
        """
        return self._writer.defer(digest, item)

    def describe(self, digest: Digest, item: Deferred) -> None:
        """The same for what describes a run: it is taken whatever waits already."""
        self._writer.defer(digest, item, always=True)

    @property
    def pressure(self) -> float:
        """Share of the capacity that waits for the writer, from 0 to 1."""
        return self._writer.pressure

    def soon(self) -> None:
        """Commit what waits as soon as nothing more comes, without waiting for it."""
        self._writer.soon()

    def flush(self) -> None:
        """Return when every row written before is committed.

        Raises
        ------
        StoreError
            Rows could not be written. They stay in memory, and the next flush tries again.
        """
        self._writer.flush()

    def dropped(self) -> dict[str, int]:
        """Rows dropped so far by table; empty under the policy ``"block"``."""
        return self._writer.dropped()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A DuckDB cursor of its own on the store, closed with it. It sees all rows written before; of those written
        later, those that are committed."""
        self._check_open()
        return _cursor(self._connection, self._writer, self._macros)

    def sql(self, query: str, params: Any = None) -> duckdb.DuckDBPyRelation:
        """The result of ``query`` as a relation on a cursor of its own (``.df()``, ``.fetchall()``, ...).

        Raises
        ------
        SqlError
            The query cannot be run, or is not one SELECT; of what is none, nothing is run.
        """
        cursor = self.cursor()
        check_reads(cursor, query)
        try:
            return cursor.sql(query, params=plain(params))
        except duckdb.Error as error:
            raise failed(error) from error

    def summarise(self, runs: Sequence[int] | None = None) -> int:
        """Keep the sums of runs that have ended, so that macros over many runs need not read every choice again.

        The answers are the same with and without. Rows that are written to a run afterwards would be missed, so it is
        for runs that are complete: all that have a row in ``run`` where ``runs`` is ``None``. Returns how many were summed.

        A bench sees to its own runs, once enough of them have ended.
        """
        with self.cursor() as cursor, self._upkeep.aside():
            return sum(summary.work(cursor, runs))

    def delete(self, runs: int | Sequence[int]) -> int:
        """Delete everything recorded about ``runs`` (one id or several), and what was summed from it.

        Runs that are compared with a deleted one keep its id as ``parent``; plans and blobs stay, other runs may name them.
        DuckDB reuses the room in the file. Returns how many of the runs were in the store.

        Raises
        ------
        StoreError
            The rows could not be deleted; all of them are still there.
        """
        ids = list(integers(runs, "run"))
        with self.cursor() as cursor, self._upkeep.aside():
            known = cursor.execute(
                "SELECT count(DISTINCT run) FROM run WHERE run IN (SELECT unnest(?))", [ids]
            )
            count = int(known.fetchall()[0][0])
            try:
                with transaction(cursor):
                    summary.drop_blocks(cursor, ids)
                    pools.take_off(cursor, ids)
                    for table in schema.TABLES:
                        if "run" in self._columns[table]:
                            cursor.execute(f'DELETE FROM "{table}" WHERE run IN (SELECT unnest(?))', [ids])
            except duckdb.Error as error:
                raise StoreError(
                    f"The runs could not be deleted: {first_line(error)}.",
                    "Try again when nothing else writes to the store.",
                ) from error
        return count

    def ended(self, choices: int) -> None:
        """Say that a run with so many choices is complete; once there are many, a thread sums them up while nothing is
        recorded."""
        self._upkeep.ended(choices)

    def snapshot(self, path: str | os.PathLike[str]) -> Path:
        """Write a consistent copy of everything recorded so far to a new file, readable by any DuckDB client.

        Raises
        ------
        StoreError
            There is a file at ``path`` already, or the copy cannot be written.
        """
        self.flush()
        target = Path(path).expanduser().resolve()
        if target.exists():
            raise StoreError(f"There is a file at {target} already.", "Choose a path that does not exist.")
        unfinished = target.with_name(f"{target.name}.{os.getpid()}.unfinished")
        cursor = self.cursor()
        try:
            name = cursor.execute("SELECT current_database()").fetchall()[0][0]
            cursor.execute(
                f"ATTACH {quote(str(unfinished))} AS snapshot (STORAGE_VERSION '{schema.STORAGE_VERSION}')"
            )
            try:
                cursor.execute(f'COPY FROM DATABASE "{name}" TO snapshot')
            finally:
                cursor.execute("DETACH snapshot")
            os.replace(unfinished, target)
        except (duckdb.Error, OSError) as error:
            unfinished.unlink(missing_ok=True)
            raise StoreError(
                f"The snapshot {target} cannot be written: {first_line(error)}.",
                "Check the folder and its free space.",
            ) from error
        finally:
            cursor.close()
        return target

    def export(self, path: str | os.PathLike[str], runs: int | Sequence[int] | None = None) -> Path:
        """Write runs (all of them without ``runs``) to a ``.parquet`` folder, an ``.html`` page or a ``.duckdb`` file.

        Formats and errors are those of :func:`workbench.store.export.export`.
        """
        self.flush()
        with self.cursor() as cursor:
            return export(cursor, path, runs)

    def join(self) -> Store:
        """This store for one more user: it stays open until each of them has closed it.

        Raises
        ------
        StoreError
            It is closed already.
        """
        with _registry:
            self._check_open()
            self._users += 1
        return self

    def close(self) -> None:
        """Commit what waits, stop sharing and close the file; relations of the store end with it.

        Raises
        ------
        StoreError
            Waiting rows could not be written; the message counts them, and the file is closed all the same.
        """
        with _registry:
            self._users -= 1
            if self._users > 0 or not self._finish.alive:
                return
            if self.path is not None:
                _open_stores.pop(self.path, None)
            self._finish()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if not self._finish.alive:
            raise StoreError("The store is closed.", "Open it again.")


def _convert(
    spec: Mapping[str, Mapping[str, typed.Column]],
    table: str,
    columns: Mapping[str, Any],
    *,
    lent: bool = True,
) -> pa.RecordBatch:
    if table not in spec or table not in schema.TABLES:
        raise StoreError(f"There is no table {table!r}.", f"Tables are: {', '.join(schema.TABLES)}.")
    return typed.to_batch(table, spec[table], columns, lent=lent)


class _LocalSink:
    """Commits tables into the database of a connection, all or none; where memory is out, again while nobody holds
    ``sums``."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, sums: threading.Lock) -> None:
        self._connection = connection
        self._sums = sums

    def __call__(self, tables: Mapping[str, pa.Table]) -> None:
        try:
            self._commit(tables)
        except duckdb.OutOfMemoryException:
            with self._sums:
                self._commit(tables)

    def _commit(self, tables: Mapping[str, pa.Table]) -> None:
        # A cursor of its own each time: where memory is out even for a rollback, closing it ends the transaction.
        with self._connection.cursor() as cursor:
            # Here alone a query may name a variable: to register rows instead holds the interpreter, and with it the
            # model's thread, for longer than to write them.
            cursor.execute("SET SESSION python_enable_replacements = true")
            with transaction(cursor):
                for table, rows in tables.items():
                    waiting_rows = rows.to_reader()  # noqa: F841 (DuckDB finds it by its name)
                    cursor.execute(f'INSERT INTO "{table}" BY NAME SELECT * FROM waiting_rows')


def _cursor(
    connection: duckdb.DuckDBPyConnection, writer: Writer, macros: schema.Renewal
) -> duckdb.DuckDBPyConnection:
    macros.wait()
    failure = writer.settle()
    if failure is not None:
        _log.warning("Rows are missing, because they could not be written: %s", failure)
    return connection.cursor()


def _shut_down(
    connection: duckdb.DuckDBPyConnection, writer: Writer, server: Server | None, macros: schema.Renewal, upkeep: Upkeep
) -> None:  # fmt: skip
    upkeep.stop()
    try:
        writer.close()
    finally:
        if server is not None:
            server.stop()
        macros.join()
        connection.close()
