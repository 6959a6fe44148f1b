"""The activations of transformers that our kernels have."""

from __future__ import annotations

from typing import Any

import routing_kernels


def kernel_activation(function: Any) -> str | None:
    """The name our kernels have for an activation module of transformers, or ``None``."""
    from transformers.activations import ACT2FN

    for name in routing_kernels.ACTIVATIONS:
        known = ACT2FN[name]
        if type(function) is type(known) and repr(function) == repr(known):
            return name
    return None
