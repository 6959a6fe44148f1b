"""Questions over the store that SQL alone does not answer; no torch here."""

from __future__ import annotations

from workbench.analysis import charts
from workbench.analysis.diff import RunDiff, diff
from workbench.analysis.resample import bootstrap, permutation
from workbench.analysis.tolerance import Tolerable, tolerable
from workbench.analysis.vectors import clusters, components, neighbours, probe, routing_vectors

__all__ = [
    "RunDiff",
    "Tolerable",
    "bootstrap",
    "charts",
    "clusters",
    "components",
    "diff",
    "neighbours",
    "permutation",
    "probe",
    "routing_vectors",
    "tolerable",
]
