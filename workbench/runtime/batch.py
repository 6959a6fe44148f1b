"""What a batch of prompts is given: labels for each, and plans that may let its rows compete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.errors import EditRefused, PromptError
from workbench.interventions import Plan


def labels_of(
    labels: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None, count: int
) -> list[Mapping[str, Any]]:
    """The labels of each of ``count`` prompts."""
    if labels is None or isinstance(labels, Mapping):
        return [labels or {}] * count
    if len(labels) != count:
        raise PromptError(
            f"There are {len(labels)} sets of labels for {count} prompts.",
            "Give one for all, or one for each.",
        )
    return list(labels)


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
