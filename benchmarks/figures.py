"""The one form in which every benchmark prints: the machine, the figures a reader is told, and everything behind them.

A figure is ``{"what", "setting", "value", "unit", "budget"}``: what was measured, where, the number, its unit (``x`` for a
ratio), and the budget it is held against in words (``"<= 1.25"``, or ``null`` where there is none).
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16")


def figure(what: str, setting: str, value: float, unit: str, budget: str | None = None) -> dict[str, Any]:
    """One figure, rounded to four significant digits; ``budget`` is a comparison such as ``">= 2.2"``."""
    return {"what": what, "setting": setting, "value": float(f"{value:.4g}"), "unit": unit, "budget": budget}


def holds(one: dict[str, Any]) -> bool | None:
    """Whether a figure keeps its budget; ``None`` without one."""
    if one["budget"] is None:
        return None
    sign, bound = one["budget"].split()
    return bool(one["value"] <= float(bound) if sign == "<=" else one["value"] >= float(bound))


def machine() -> dict[str, Any]:
    """What the figures were taken on, and how busy it was."""
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = {
        key.strip(): value.strip()
        for key, value in (line.split(":", 1) for line in described.splitlines() if ":" in line)
    }
    return {
        "processor": fields.get("model name", platform.processor() or platform.machine()),
        "flags": [flag for flag in _FLAGS if flag in fields.get("flags", "").split()],
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")) or None,
        "python": platform.python_version(),
    }


def publish(benchmark: str, figures: Sequence[dict[str, Any]], **details: Any) -> None:
    """Print the JSON of one benchmark; ``details`` is whatever the figures were drawn from."""
    json.dump(
        {"benchmark": benchmark, "machine": machine(), "figures": list(figures), **details},
        sys.stdout,
        indent=2,
    )
    print()
