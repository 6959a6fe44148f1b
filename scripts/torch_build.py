"""Print which torch build this interpreter has: cpu, cuda, any (a platform with one build), or nothing."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

try:
    found = version("torch")
except PackageNotFoundError:
    found = ""
release, _, local = found.partition("+")
supported = bool(found) and (2, 9) <= tuple(int(part) for part in release.split(".")[:2]) < (3, 0)
if supported:
    # Only Linux has wheels of both kinds under one release; there the CPU build says so in its local version.
    print("any" if sys.platform != "linux" else "cpu" if local == "cpu" else "cuda")
