"""The state a model is in while a run goes on, and in which it is left."""

from __future__ import annotations

import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def uncompiled() -> AbstractContextManager[Any]:
    """While it holds, compiled models run as they are written: a graph compiled before would pass our hooks by, silently."""
    if "torch._dynamo" not in sys.modules:  # then nothing is compiled, and importing it takes seconds
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


class Running:
    """While a run goes on: one at a time, the model in evaluation mode and uncompiled, and everything put back after.

    Gradients, where they are asked for, flow to the plan's tensors and never to the model's own parameters.
    """

    def __init__(self, model: Any, lock: threading.RLock, gradients: bool) -> None:
        self._model = model
        self._lock = lock
        self._grad = torch.enable_grad() if gradients else torch.no_grad()
        self._frozen: list[Tensor] = []
        self._gradients = gradients
        self._was_training = False
        self._uncompiled: AbstractContextManager[Any] = nullcontext()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._uncompiled = uncompiled()
        self._uncompiled.__enter__()
        self._grad.__enter__()
        if self._gradients:
            self._frozen = [p for p in self._model.parameters() if p.requires_grad]
            for parameter in self._frozen:
                parameter.requires_grad_(False)
        self._was_training = self._model.training
        if self._was_training:
            self._model.eval()

    def __exit__(self, *error: Any) -> None:
        if self._was_training:
            self._model.train()
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._grad.__exit__(*error)
        self._uncompiled.__exit__(*error)
        self._lock.release()
