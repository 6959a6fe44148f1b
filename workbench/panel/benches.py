"""Which benches live in this kernel: those a notebook holds in its variables, and those a panel has opened."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.panel.progress import Tell
from workbench.panel.session import Session

if TYPE_CHECKING:
    from workbench.panel.connection import Connection

_METHODS = ("run", "generate", "diff", "sql", "panel")


@dataclass(frozen=True)
class Entry:
    """One bench: its panel state and the variables that name it."""

    session: Session
    variables: list[str]


class Benches:
    """The benches of one kernel and their panel sessions, kept for as long as the bench lives.

    Parameters
    ----------
    namespace
        The user's variables.
    opener
        Opens a model by name (``None``: the demo model) and returns its bench.
    watch
        While its ``with`` block stands, it calls a function with how far loading is: :data:`workbench.panel.progress.Tell`.
    """

    def __init__(
        self,
        namespace: MutableMapping[str, Any],
        opener: Callable[[str | None], Any],
        watch: Callable[[Tell], AbstractContextManager[None]] = lambda _tell: nullcontext(),
    ) -> None:
        self._namespace = namespace
        self._opener = opener
        self._watch = watch
        self._sessions: dict[int, Session] = {}
        self._opened: list[Any] = []
        self._last: list[str] = []
        self._lock = threading.RLock()
        self.connections: set[Connection] = set()

    def find(self) -> dict[str, Entry]:
        """Every open bench by its key, the most recently found last."""
        with self._lock:
            return self._find()

    def _find(self) -> dict[str, Entry]:
        names: dict[int, list[str]] = {}
        found: dict[int, Any] = {id(bench): bench for bench in self._opened}
        for name, value in list(self._namespace.items()):
            if not name.startswith("_") and is_bench(value):
                found[id(value)] = value
                names.setdefault(id(value), []).append(name)
        found = {number: bench for number, bench in found.items() if not bench.closed}
        self._opened = [bench for bench in self._opened if not bench.closed]
        for number in [number for number in self._sessions if number not in found]:
            del self._sessions[number]
        sessions = [self.session(bench) for bench in found.values()]
        return {
            session.key: Entry(session, names.get(number, []))
            for number, session in zip(found, sessions, strict=True)
        }

    def session(self, bench: Any) -> Session:
        """The panel state of ``bench``."""
        with self._lock:
            known = self._sessions.get(id(bench))
            if known is None or not known.holds(bench):
                known = self._sessions[id(bench)] = Session(weakref.ref(bench))
            return known

    def open(self, model: str | None, tell: Tell = lambda _megabytes, _share: None) -> Session:
        """Open a model and keep it; the variable ``bench`` gets it where the notebook has none of that name.

        ``tell`` is called with how far it is, where the loader counts that; see :mod:`workbench.panel.progress`.
        """
        with self._watch(tell):
            bench = self._opener(model)
        with self._lock:
            self._opened.append(bench)
        self._namespace.setdefault("bench", bench)
        return self.session(bench)

    def announce(self) -> None:
        """Tell every view which benches there are."""
        for connection in list(self.connections):
            connection.announce()

    def rescan(self) -> None:
        """Announce if a cell has made or dropped a bench."""
        keys = list(self.find())
        if keys != self._last:
            self._last = keys
            self.announce()


def is_bench(value: Any) -> bool:
    """Whether ``value`` is a bench, judged by its class alone: a user's other objects are not touched."""
    kind = type(value)
    return not isinstance(value, type) and all(callable(getattr(kind, name, None)) for name in _METHODS)
