"""What every Triton kernel needs on GPUs that are not here, read from its binary, held to its budget and printed as JSON.

    python benchmarks/cubins.py [--targets sm_80 sm_90 gfx942] [--dtypes float32 bfloat16 float16]

Needs triton (the extra ``triton``), and neither a GPU nor a driver. None of these binaries was ever run on a GPU.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)  # under its interpreter triton compiles nothing
sys.path.pop(0)  # this folder
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]

import triton
from routing_kernels.triton import aot

from benchmarks.figures import figure, publish


def main() -> None:
    """Read the command line, compile, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", nargs="+", choices=list(aot.TARGETS), default=list(aot.TARGETS))
    parser.add_argument("--dtypes", nargs="+", choices=list(aot.TYPES), default=list(aot.TYPES))
    asked = parser.parse_args()
    built = [
        aot.build(one, target)
        for target in asked.targets
        for one in aot.specimens()
        if one.dtype in asked.dtypes
    ]
    figures = []
    for target in asked.targets:
        for stats in (False, True):
            mine = [one for one in built if one.target == target and one.stats == stats]
            setting = f"{target}, statistics {'on' if stats else 'off'}, {len(mine)} builds"
            most = {
                name: max(getattr(one, name) for one in mine)
                for name in ("registers", "spilled", "shared", "atomics")
            }
            shared = f"<= {aot.SHARED_LIMIT[target]}"
            figures += [
                figure("most registers a thread", setting, most["registers"], "registers", f"<= {aot.REGISTERS[target]}"),
                figure("most that did not fit the registers", setting, most["spilled"], "bytes", "<= 0"),
                figure("most shared memory a block", setting, most["shared"], "bytes", shared),
                figure("most atomic operations in a kernel", setting, most["atomics"], "operations", "<= 0"),
            ]  # fmt: skip
    publish("cubins", figures, cases=[asdict(one) for one in built], triton=triton.__version__)


if __name__ == "__main__":
    main()
