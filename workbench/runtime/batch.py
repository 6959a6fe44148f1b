"""Prompts in batches: which may share a pass, labels for each, and plans that let the rows of a pass compete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.anatomy import Anatomy
from workbench.errors import EditRefused
from workbench.interventions import Plan
from workbench.runtime.hooks.depth import depth_key

_TOKENS = 8192
"""Most tokens of a pass, padding included."""


def batches_of(ids: Sequence[Sequence[int]], plans: Sequence[Plan], anatomy: Anatomy) -> list[list[int]]:
    """Rows that may share a pass: the same path and the same units that run for no token, and at most ``_TOKENS`` tokens
    with padding."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row, plan in enumerate(plans):
        groups.setdefault(depth_key(plan, anatomy), []).append(row)
    batches: list[list[int]] = []
    for rows in groups.values():
        batch: list[int] = []
        for row in sorted(rows, key=lambda r: len(ids[r])):
            if batch and (len(batch) + 1) * len(ids[row]) > _TOKENS:
                batches.append(batch)
                batch = []
            batch.append(row)
        batches.append(batch)
    return batches


def check_coupled(plans: Sequence[Plan], batches: Sequence[Sequence[int]]) -> None:
    """Refuse edits in which sequences compete, unless they were asked to and all of them run in one pass."""
    for edit in (edit for plan in plans for edit in plan.active if edit.couples()):
        if len(plans) > 1 and not getattr(edit, "couples_rows", True):
            raise EditRefused(
                f"{edit.kind} would let the {len(plans)} sequences of this batch compete with each other.",
                "Say couples_rows=True if that is meant, or choose another pool.",
            )
        if len(batches) > 1:
            raise EditRefused(
                f"{edit.kind} pools the whole batch, but its {len(plans)} prompts need {len(batches)} passes.",
                "Give fewer or shorter prompts, or choose another pool.",
            )
