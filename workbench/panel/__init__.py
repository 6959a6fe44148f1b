"""The kernel side of the panel: what the browser asks, what it is told, and the state between two clicks.

:func:`serve` makes a kernel answer the JupyterLab panel; :class:`~workbench.panel.widget.Panel` shows the same view
inline in a notebook cell. Neither loads a model nor torch by itself.
"""

from __future__ import annotations

from workbench.panel.comms import serve

__all__ = ["serve"]
