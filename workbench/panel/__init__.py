"""The kernel side of the panel: what the browser asks, what it is told, and the state between two clicks.

:func:`serve` makes a kernel answer the JupyterLab panel, :func:`widget` shows the same view inline in a notebook cell.
Importing this loads neither torch nor Jupyter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.panel.comms import Comms
    from workbench.panel.inline import Panel

__all__ = ["serve", "widget"]


def serve() -> Comms:
    """Make this kernel answer the panel of JupyterLab; raises :class:`SetupError` where there is no kernel."""
    from workbench.panel.comms import serve

    return serve()


def widget(bench: Any) -> Panel:
    """The panel on ``bench`` as a widget for a notebook cell; raises :class:`SetupError` where there is no kernel."""
    from workbench.panel.comms import serve
    from workbench.panel.inline import Panel

    return Panel(bench, serve().benches)
