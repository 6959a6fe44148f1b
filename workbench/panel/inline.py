"""The panel inline in a notebook cell: the same view over one widget model instead of three comms."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget

from workbench.panel.benches import Benches
from workbench.panel.connection import Connection

_STATIC = Path(__file__).parent.parent / "static"


class Panel(anywidget.AnyWidget):
    """The workbench panel as a widget; ``bench.panel()`` makes it.

    Parameters
    ----------
    bench
        The bench to show.
    benches
        The kernel's benches; the view may switch among them.

    Notes
    -----
    A widget model carries both directions on one comm, so a click may wait until a running cell has ended; the panel
    of JupyterLab has no such wait.
    """

    _esm = _STATIC / "widget.js"

    def __init__(self, bench: Any, benches: Benches) -> None:
        super().__init__()
        self._loop = _running_loop()
        self._connection = Connection(benches, self._deliver)
        self._connection.show_bench(bench)
        self.on_msg(self._received)

    def _received(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if content.get("vega"):
            # Charts are drawn by a library ten times the size of the view: it is sent when the first one is.
            self.send({"type": "vega"}, [(_STATIC / "vega.js").read_bytes()])
            return
        lane, message = content.get("lane"), content.get("message")
        if lane == "compute" and self._loop is not None:
            # Widget messages come on another thread where subshells are on; the model runs on the main one only.
            self._loop.call_soon_threadsafe(self._connection.receive, lane, message)
        else:
            self._connection.receive("compute" if lane == "compute" else "control", message)

    def _deliver(self, data: dict[str, Any], buffers: Sequence[memoryview]) -> None:
        self.send(data, list(buffers))

    def close(self) -> None:
        """Close the widget and forget its view."""
        self._connection.close()
        super().close()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
