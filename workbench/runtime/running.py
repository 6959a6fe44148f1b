"""What runs together, and the state of the process while it does."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

from workbench.anatomy import Anatomy
from workbench.interventions import Plan
from workbench.runtime.hooks.depth import depth_key

_BATCH_TOKENS = 8192


class Running:
    """While a run goes on: one at a time, no gradients, the model in evaluation mode and put back after."""

    def __init__(self, model: Any, lock: threading.RLock) -> None:
        self._model = model
        self._lock = lock
        self._no_grad = torch.no_grad()
        self._was_training = False

    def __enter__(self) -> None:
        self._lock.acquire()
        self._no_grad.__enter__()
        self._was_training = self._model.training
        if self._was_training:
            self._model.eval()

    def __exit__(self, *error: Any) -> None:
        if self._was_training:
            self._model.train()
        self._no_grad.__exit__(*error)
        self._lock.release()


def batches(anatomy: Anatomy, ids: Sequence[Sequence[int]], plans: Sequence[Plan]) -> list[list[int]]:
    """Rows that may share a pass: the same path and the same units that run for no token, and at most
    ``_BATCH_TOKENS`` tokens with padding."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row, plan in enumerate(plans):
        groups.setdefault(depth_key(plan, anatomy), []).append(row)
    batches: list[list[int]] = []
    for rows in groups.values():
        batch: list[int] = []
        for row in sorted(rows, key=lambda r: len(ids[r])):
            if batch and (len(batch) + 1) * len(ids[row]) > _BATCH_TOKENS:
                batches.append(batch)
                batch = []
            batch.append(row)
        batches.append(batch)
    return batches
