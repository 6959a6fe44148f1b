"""The versions a run was made with."""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata

_PACKAGES = ("torch", "transformers", "duckdb", "numpy")


@cache
def versions() -> dict[str, str]:
    """Version of the workbench, of Python and of every package whose release can change a number."""
    from workbench import __version__

    found = {"workbench": __version__, "python": platform.python_version()}
    return found | {name: metadata.version(name) for name in _PACKAGES}
