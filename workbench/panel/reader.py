"""Reading the store beside everything else: threads that answer questions in turn, and can be stopped in the middle."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

log = logging.getLogger(__name__)

Work: TypeAlias = Callable[["Reading"], None]


@dataclass
class Reading:
    """One question under way. ``use`` names the cursor that it asks, so that stopping it interrupts the query."""

    seq: int
    stopped: bool = False
    _cursor: Any = field(default=None, repr=False)

    def use(self, cursor: Any) -> Any:
        """Ask ``cursor`` from now on."""
        self._cursor = cursor
        return cursor

    def stop(self) -> None:
        """Interrupt the query under way; it raises in the reader's thread."""
        self.stopped = True
        if self._cursor is not None:
            self._cursor.interrupt()


class Reader:
    """Answers one question after the other in threads of its own, which start with the first.

    Parameters
    ----------
    threads
        How many questions are answered at a time; with more than one, answers come in any order.
    """

    def __init__(self, threads: int = 1) -> None:
        self._most = threads
        self._questions: queue.Queue[tuple[Reading, Work] | None] = queue.Queue()
        self._lock = threading.Lock()
        self._open: dict[int, Reading] = {}
        self._threads: list[threading.Thread] = []

    def ask(self, seq: int, work: Work) -> None:
        """Do ``work`` when its turn comes; it has to deal with its own errors."""
        reading = Reading(seq)
        with self._lock:
            self._open[seq] = reading
            if len(self._threads) < min(self._most, len(self._open)):
                thread = threading.Thread(target=self._run, name="workbench-panel-reader", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._questions.put((reading, work))

    def stop(self, seq: int) -> None:
        """Stop one question, whether it is waiting or under way."""
        with self._lock:
            reading = self._open.get(seq)
        if reading is not None:
            reading.stop()

    def settle(self) -> None:
        """Wait until every question has been answered."""
        self._questions.join()

    def close(self) -> None:
        """Stop what is open and end the threads."""
        with self._lock:
            readings, threads = list(self._open.values()), list(self._threads)
        for reading in readings:
            reading.stop()
        for _ in threads:
            self._questions.put(None)

    def _run(self) -> None:
        while True:
            item = self._questions.get()
            try:
                if item is None:
                    return
                reading, work = item
                try:
                    work(reading)
                except (
                    Exception
                ):  # it could not even tell its error, as of a closed page: the next question still counts
                    log.exception("an answer could not be sent")
                with self._lock:
                    self._open.pop(reading.seq, None)
            finally:
                self._questions.task_done()
