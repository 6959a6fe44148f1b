"""An interactive workbench for the routing inside neural networks.

Everything is reached from here (``import workbench as wb``) and loaded on first use, so that the import itself costs
neither torch nor a database.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench import errors as errors
    from workbench import experiments as experiments
    from workbench import tasks as tasks
    from workbench.address import Address as Address
    from workbench.interventions import Plan as Plan
    from workbench.interventions import blob as blob
    from workbench.interventions import custom as custom
    from workbench.interventions import edit as edit
    from workbench.interventions import mask as mask
    from workbench.interventions import patch as patch
    from workbench.interventions import reroute as reroute
    from workbench.interventions import skip as skip
    from workbench.runtime.bench import Bench as Bench
    from workbench.runtime.opening import open as open
    from workbench.runtime.record import Record as Record
    from workbench.store import connect as connect

__version__ = "0.1.0"

_HOME = {
    "Address": "workbench.address",
    "Bench": "workbench.runtime.bench",
    "Plan": "workbench.interventions",
    "Record": "workbench.runtime.record",
    "blob": "workbench.interventions",
    "connect": "workbench.store",
    "custom": "workbench.interventions",
    "edit": "workbench.interventions",
    "errors": None,
    "experiments": None,
    "mask": "workbench.interventions",
    "open": "workbench.runtime.opening",
    "patch": "workbench.interventions",
    "reroute": "workbench.interventions",
    "skip": "workbench.interventions",
    "tasks": None,
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    home = _HOME[name]
    value = (
        importlib.import_module(f"workbench.{name}")
        if home is None
        else getattr(importlib.import_module(home), name)
    )
    if name in ("Bench", "open"):
        _give_panel()
    globals()[name] = value
    return value


def _give_panel() -> None:
    """Give benches their ``panel()`` from up here: the runtime stands below the panel and never imports it."""
    from workbench.runtime.bench import Bench

    def panel(bench: Bench) -> Any:
        """The panel as a widget for a notebook cell, on this bench."""
        from workbench.panel import widget

        return widget(bench)

    Bench.panel = panel  # type: ignore[assignment]


def __dir__() -> list[str]:
    return sorted(__all__)
