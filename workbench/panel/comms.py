"""The panel's comms in a kernel.

Three targets, each used in one direction only: the front end sends on ``workbench.control`` (served on a subshell, so
also while a cell runs) and on ``workbench.compute`` (served on the main shell, where the model runs); the kernel sends
on ``workbench.stream``. A comm that carried both directions would have its incoming messages moved to whichever thread
sent last, and a click would wait for the running cell.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from workbench.errors import SetupError
from workbench.panel.benches import Benches
from workbench.panel.connection import Connection
from workbench.panel.progress import loading
from workbench.panel.protocol import Lane
from workbench.said import said

_LANES: dict[str, Lane] = {"workbench.control": "control", "workbench.compute": "compute"}
_STREAM = "workbench.stream"

SWITCH = 0.0005
"""Seconds after which a thread that computes in Python lets another one have the interpreter.

A click passes through four threads of the kernel, each of which asks for it several times: while a cell runs, Python's own
5 ms would add up to more than a click may take."""

_served: Comms | None = None


def serve() -> Comms:
    """Make this kernel answer the panel; called again, the same object is returned.

    Raises
    ------
    SetupError
        Outside a Jupyter kernel.
    """
    global _served
    if _served is None:
        from IPython import get_ipython

        shell = get_ipython()
        kernel = getattr(shell, "kernel", None)
        if kernel is None:
            raise SetupError(
                said("There is no Jupyter kernel here."), said("Run this in a notebook or in JupyterLab.")
            )
        benches = Benches(shell.user_ns, _open, loading)
        sys.setswitchinterval(min(SWITCH, sys.getswitchinterval()))
        shell.events.register("post_run_cell", lambda _result: benches.rescan())
        _served = Comms(benches, kernel.comm_manager.register_target)
    return _served


def _open(model: str | None) -> Any:
    from workbench.runtime.opening import open as open_bench

    return open_bench(model)


class Comms:
    """Joins the three comms of each panel to one :class:`Connection`.

    Parameters
    ----------
    benches
        The kernel's benches.
    register
        The comm manager's ``register_target(name, callback)``.
    """

    def __init__(self, benches: Benches, register: Callable[[str, Callable[[Any, Any], None]], None]) -> None:
        self.benches = benches
        self._lock = threading.Lock()
        self._panels: dict[str, _Panel] = {}
        for target in _LANES:
            register(target, self._opened)
        register(_STREAM, self._opened)

    def _opened(self, comm: Any, message: dict[str, Any]) -> None:
        name = str(message["content"]["data"]["panel"])
        with self._lock:
            panel = self._panels.get(name)
            if panel is None:
                panel = self._panels[name] = _Panel(self.benches)
        if comm.target_name == _STREAM:
            panel.attach(comm)
            comm.on_close(lambda _message: self._closed(name))
        else:
            lane = _LANES[comm.target_name]
            comm.on_msg(lambda message: panel.connection.receive(lane, message["content"]["data"]))

    def _closed(self, name: str) -> None:
        with self._lock:
            panel = self._panels.pop(name, None)
        if panel is not None:
            panel.connection.close()


class _Panel:
    """One panel: its connection, and what was sent before its stream was open."""

    def __init__(self, benches: Benches) -> None:
        self.connection = Connection(benches, self._send)
        self._lock = threading.Lock()
        self._stream: Any = None
        self._waiting: list[tuple[dict[str, Any], Sequence[memoryview]]] = []

    def attach(self, stream: Any) -> None:
        with self._lock:
            self._stream = stream
            for data, buffers in self._waiting:
                stream.send(data=data, buffers=list(buffers))
            self._waiting.clear()

    def _send(self, data: dict[str, Any], buffers: Sequence[memoryview]) -> None:
        with self._lock:
            if self._stream is None:
                self._waiting.append((data, buffers))
            else:
                self._stream.send(data=data, buffers=list(buffers))
