"""Skipping: leaving parts of the model out, repeating them or running them elsewhere, and really saving their work.

Every edit states what becomes of the keys and values of what is left out or repeated, and cached decoding equals an
uncached pass under each.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack

from workbench.interventions.edit import Layers, Scope, build
from workbench.interventions.makes import makes
from workbench.interventions.skip.base import RepeatKv, Skip, SkipKv, Unit
from workbench.interventions.skip.dynamic import Dynamic, Policy, PolicyName, Score, Tokens
from workbench.interventions.skip.static import Alias, Attention, Block, Mlp, Path, Removal, Repeat

__all__ = [
    "KINDS", "Alias", "Attention", "Block", "Dynamic", "Mlp", "Path", "Policy", "Removal", "Repeat", "Skip", "Tokens",
    "alias", "attention", "block", "mlp", "path", "policy", "repeat", "tokens",
]  # fmt: skip

KINDS: tuple[type[Skip], ...] = (Block, Attention, Mlp, Repeat, Alias, Path, Tokens, Policy)

Where = int | Iterable[int] | Layers
"""Layers: one, several, or ``"all"``."""


@makes(Block)
def block(layers: Where, *, kv: SkipKv = "absent", **scope: Unpack[Scope]) -> Block:
    """Skip whole blocks; see :class:`Block`."""
    return build(Block, layers=layers, kv=kv, **scope)


@makes(Attention)
def attention(layers: Where, *, kv: SkipKv = "absent", **scope: Unpack[Scope]) -> Attention:
    """Skip attention sublayers; see :class:`Attention`."""
    return build(Attention, layers=layers, kv=kv, **scope)


@makes(Mlp)
def mlp(layers: Where, **scope: Unpack[Scope]) -> Mlp:
    """Skip MLP sublayers; see :class:`Mlp`."""
    return build(Mlp, layers=layers, **scope)


@makes(Repeat)
def repeat(
    layers: Where, times: int = 2, *, unit: Unit = "block", kv: RepeatKv = "per-visit", **scope: Unpack[Scope]
) -> Repeat:
    """Run blocks several times; see :class:`Repeat`."""
    return build(Repeat, layers=layers, times=times, unit=unit, kv=kv, **scope)


@makes(Alias)
def alias(layers: Where, source: int, *, unit: Unit = "block", **scope: Unpack[Scope]) -> Alias:
    """Run another layer's block; see :class:`Alias`."""
    return build(Alias, layers=layers, source=source, unit=unit, **scope)


@makes(Path)
def path(path: Iterable[int], *, kv: RepeatKv = "per-visit", **scope: Unpack[Scope]) -> Path:
    """Run the blocks in this order; see :class:`Path`."""
    return build(Path, path=path if isinstance(path, str) else tuple(path), kv=kv, **scope)


@makes(Tokens)
def tokens(layers: Where, *, threshold: float | None = None, capacity: float | None = None, score: Score = "norm",
           causal: bool = True, unit: Unit = "block", kv: SkipKv = "absent", protect: int | Iterable[int] = (),
           **options: Any) -> Tokens:  # fmt: skip
    """Send only some tokens through; see :class:`Tokens`. ``tokens=`` and ``phase=`` scope it."""
    return build(Tokens, layers=layers, threshold=threshold, capacity=capacity, score=score, causal=causal, unit=unit,
                 kv=kv, protect=protect, **options)  # fmt: skip


@makes(Policy)
def policy(policy: PolicyName, *, layers: Where = "all", unit: Unit = "block", kv: SkipKv = "compute",
           **options: Any) -> Policy:  # fmt: skip
    """Skip by a schedule; see :class:`Policy`, which names the parameter each one needs."""
    return build(Policy, policy=policy, layers=layers, unit=unit, kv=kv, **options)
