"""Questions over the store that SQL alone does not answer; no torch here."""

from __future__ import annotations

from workbench.analysis.diff import RunDiff, diff

__all__ = ["RunDiff", "diff"]
