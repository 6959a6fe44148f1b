"""Drawing what is read from the store, in a thread of its own, so that a text grows as fast as its model runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

REST = 0.3
"""Seconds between two pictures: before each the store writes the rows of the last tokens, which costs as much as two more
tokens. Mostly the machine is for model and text."""

LINGER = 0.05
"""Seconds without a question after which nothing is due any more: between two tokens of a generation there are fewer."""


class Painter:
    """Paints once for all that was asked for since the last time. Its thread ends when nothing has been due for a while.

    Parameters
    ----------
    paint
        Draws everything as it is now.
    finished
        Called when nothing is due any more.
    """

    def __init__(self, paint: Callable[[], None], finished: Callable[[], None]) -> None:
        self._paint = paint
        self._finished = finished
        self._changed = threading.Condition()
        self._due = False
        self._thread: threading.Thread | None = None
        self._rested = 0.0

    @property
    def busy(self) -> bool:
        """Whether something is being painted or still to be."""
        return self._thread is not None

    def ask(self) -> None:
        """Have everything painted soon."""
        with self._changed:
            self._due = True
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="workbench-panel-painter", daemon=True)
                self._thread.start()

    def settle(self) -> None:
        """Wait until nothing is due."""
        with self._changed:
            while self._thread is not None:
                self._changed.wait()

    def _run(self) -> None:
        while True:
            time.sleep(max(0.0, self._rested - time.monotonic()))
            with self._changed:
                self._due = False
            try:
                self._paint()
            except (
                Exception
            ):  # it could not even tell its error, as of a closed page: the next picture still counts
                log.exception("the panel could not be drawn")
            self._rested = time.monotonic() + REST
            with self._changed:
                self._changed.wait_for(lambda: self._due, LINGER)
                if not self._due:
                    self._thread = None
                    self._finished()
                    self._changed.notify_all()
                    return
