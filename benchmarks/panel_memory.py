"""Memory of page and kernel while the panel streams a long generation, in a real JupyterLab and Chromium; prints JSON.

A cell generates token after token into an open panel, rewinding whenever the text has grown long, as somebody would who
works on one text for hours. Between parts of equal length the page's heap (after a collection), its elements and the
kernel's resident memory are read. What the run records goes to the store's file. Flat means: the last part is no larger than
the second; the first fills caches.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT), str(ROOT / "kernels")]

from figures import figure, publish
from lab import Panel, chromium, jupyterlab

PARTS = 5
_RESIDENT = """
import gc as _gc, ctypes as _ctypes
_gc.collect()
_ctypes.CDLL(None).malloc_trim(0)
open("resident", "w").write(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""


def measure(steps: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The figures, and what was read after every part."""
    heaps, elements, resident, drawn, taken = [], [], [], 0, 0.0
    with jupyterlab() as (url, folder), chromium() as browser:
        panel = Panel(browser, url)
        panel.page.set_default_timeout(0)
        panel.run("The capital of France is Paris and the capital of Spain is Madrid")
        panel.count()
        for _ in range(PARTS):
            panel.stream(steps // PARTS, 1e9, 0, wait=True)
            panel.idle()
            panel.cell(_RESIDENT, wait=True)
            heaps.append(panel.memory())
            elements.append(panel.page.evaluate("() => document.querySelectorAll('*').length"))
            resident.append(int((folder / "resident").read_text()) / 1024)
            taken += float((folder / "streamed").read_text().split()[1])
        drawn = panel.counted()[1]
    setting = f"demo model, {steps:,} steps, {drawn:,} of them drawn"
    figures = [
        figure("page: heap of the last part over the second", setting, heaps[-1] / heaps[1], "x", "<= 1.05"),
        figure(
            "page: elements of the last part over the second",
            setting,
            elements[-1] / elements[1],
            "x",
            "<= 1.05",
        ),
        figure(
            "kernel: memory of the last part over the second",
            setting,
            resident[-1] / resident[1],
            "x",
            "<= 1.05",
        ),
    ]
    details = {
        "page_heap_mb": [round(one, 1) for one in heaps],
        "page_elements": elements,
        "kernel_resident_mb": [round(one) for one in resident],
        "steps_a_second": round(steps / taken, 1),
    }
    return figures, details


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=10_000)
    found, told = measure(parser.parse_args().steps)
    publish("panel_memory", found, **told)
