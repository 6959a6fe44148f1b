"""What runs each part of each layer, and why it is not our kernel where it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class KernelPath:
    """What runs one part of one layer.

    Attributes
    ----------
    layer
        The layer, from the module path.
    part
        ``experts``, ``attention`` or ``mlp``.
    path
        ``ours``: every call runs on our kernel. ``composed``: every call runs on our products of experts, with the
        model's own gate between them. ``mixed``: some calls run on ours, as ``reason`` says. ``model``: none does unless
        an edit asks for what only our kernel leaves out.
    reason
        Why it is not ``ours``; empty where it is.
    """

    layer: int
    part: Literal["experts", "attention", "mlp"]
    path: Literal["ours", "composed", "mixed", "model"]
    reason: str


def summary(paths: list[KernelPath]) -> list[tuple[str, str, str, str]]:
    """Layers that agree as one line: (part, layers such as "0-3, 7", path, reason)."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for one in paths:
        groups.setdefault((one.part, one.path, one.reason), []).append(one.layer)
    return [(part, _ranges(layers), path, reason) for (part, path, reason), layers in groups.items()]


def _ranges(layers: list[int]) -> str:
    """ "0-3, 7" for [0, 1, 2, 3, 7]."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and runs[-1][-1] == layer - 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
