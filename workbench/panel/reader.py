"""Reading the store beside everything else: one thread that answers questions in turn, and can be stopped in the middle."""

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
    """Answers one question after the other in a thread of its own, which starts with the first."""

    def __init__(self) -> None:
        self._questions: queue.Queue[tuple[Reading, Work] | None] = queue.Queue()
        self._lock = threading.Lock()
        self._open: dict[int, Reading] = {}
        self._thread: threading.Thread | None = None

    def ask(self, seq: int, work: Work) -> None:
        """Do ``work`` when its turn comes; it has to deal with its own errors."""
        reading = Reading(seq)
        with self._lock:
            self._open[seq] = reading
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="workbench-panel-reader", daemon=True)
                self._thread.start()
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
        """Stop what is open and end the thread."""
        with self._lock:
            readings, thread = list(self._open.values()), self._thread
        for reading in readings:
            reading.stop()
        if thread is not None:
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
