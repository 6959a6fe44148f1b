"""When the sums of ended runs are made: by a thread that waits until nothing is recorded."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import duckdb

from workbench.errors import StoreError
from workbench.store import summary

ENOUGH = 1_000_000
"""Choices of ended runs that are worth summing."""

REST = 1.0
"""Seconds without a new row after which nothing counts as being recorded."""

MOST = 2**24
"""Choices of ended runs that wait at most: more are summed beside the recording."""

_log = logging.getLogger(__name__)


class Upkeep:
    """Keeps the sums of ended runs, by a thread of its own.

    To sum up a short run of a small model takes a core a good part of the time that the run took (how much, tells
    ``benchmarks/recording.py``), so a recording that goes on has it wait: the answers are the same without, only slower.

    Parameters
    ----------
    cursor
        Gives a cursor on the store, with all rows that were written.
    idle
        Seconds since rows last came.
    sums
        Held while sums are made, or by whoever wants none made meanwhile. Nobody may wait for the writer with it.
    waiting
        Choices of runs that ended before.
    """

    def __init__(
        self,
        cursor: Callable[[], duckdb.DuckDBPyConnection],
        idle: Callable[[], float],
        sums: threading.Lock,
        waiting: int,
    ) -> None:
        self._cursor = cursor
        self._idle = idle
        self._sums = sums
        self._waiting = waiting
        self._claimed = 0  # how many want the sums to themselves
        self._stopping = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.ended(0)

    def ended(self, choices: int) -> None:
        """Say that a run with so many choices is complete."""
        with self._changed:
            self._waiting += choices
            if self._waiting >= ENOUGH and self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._work, name="workbench-store-sums", daemon=True)
                self._thread.start()
            elif self._waiting >= MOST:
                self._changed.notify_all()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Meanwhile no sums are made: the thread finishes the transaction it is in and waits."""
        with self._changed:
            self._claimed += 1
        try:
            with self._sums:
                yield
        finally:
            with self._changed:
                self._claimed -= 1
                self._changed.notify_all()

    def stop(self) -> None:
        """End the thread after the transaction it is in; what it has not summed waits for the next time."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            thread = self._thread
        if (
            thread is not None and thread is not threading.current_thread()
        ):  # which collects garbage like any other
            thread.join()

    def _work(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own: it gives way to the model
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        try:
            while self._rested():
                self._sum_up()
        except (duckdb.Error, StoreError):
            _log.warning(
                "Sums of ended runs could not be kept; answers are right, but slower.", exc_info=True
            )
            with self._changed:  # tried again after as many choices, not after every run
                self._waiting, self._thread = 0, None

    def _rested(self) -> bool:
        """Wait until sums may be made; ``False``, and the thread is done, where none need be."""
        with self._changed:
            while self._waiting >= ENOUGH and not self._stopping:
                busy = REST - self._idle()
                if not self._claimed and (busy <= 0 or self._waiting >= MOST):
                    return True
                self._changed.wait(None if self._claimed else busy)
            self._thread = None
            return False

    def _sum_up(self) -> None:
        """Make the sums that are due, until something comes between."""
        with self._changed:
            taken = self._waiting
        with self._cursor() as cursor, self._sums:
            for _ in summary.work(cursor):
                with self._changed:
                    resumed = self._idle() < REST and self._waiting < MOST
                    if self._stopping or self._claimed or resumed:
                        return
        with self._changed:
            self._waiting -= taken
