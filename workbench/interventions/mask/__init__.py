"""Masking: silencing units, activations, attention and weights while the rest of the model runs.

Every mask is a value with a criterion, a ratio and a seed, and has a matched random control.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack

from workbench.interventions.direction import Direction, direction
from workbench.interventions.edit import Edit, Layers, Scope, build
from workbench.interventions.makes import makes
from workbench.interventions.mask.activations import Activations, Method
from workbench.interventions.mask.attention import AttentionMask, Pattern
from workbench.interventions.mask.base import Criterion, Replacement, UnitMask
from workbench.interventions.mask.channels import Channels, WideSite
from workbench.interventions.mask.units import Experts, Heads, Neurons, TokenMask
from workbench.interventions.mask.weights import WeightMask

__all__ = [
    "KINDS", "Activations", "AttentionMask", "Channels", "Criterion", "Direction", "Experts", "Heads", "Neurons",
    "Replacement", "TokenMask", "UnitMask", "WeightMask", "activations", "attention", "channels", "direction", "experts",
    "heads", "neurons", "tokens", "weights",
]  # fmt: skip

KINDS: tuple[type[Edit], ...] = (
    Experts,
    Heads,
    Neurons,
    Channels,
    TokenMask,
    Activations,
    AttentionMask,
    WeightMask,
    Direction,
)

Where = int | Iterable[int] | Layers
"""Layers: one, several, or ``"all"`` that have the site."""

Units = int | Iterable[int] | None
"""Unit numbers, or ``None`` where ``ratio`` and ``criterion`` choose them."""


@makes(Experts)
def experts(layers: Where, experts: Units = None, **options: Any) -> Experts:
    """Silence experts; see :class:`Experts`. Other options: ``ratio``, ``criterion``, ``replacement``, the scope."""
    return build(Experts, layers=layers, experts=experts, **options)


@makes(Heads)
def heads(layers: Where, heads: Units = None, **options: Any) -> Heads:
    """Mask attention heads; see :class:`Heads`. Other options: ``ratio``, ``criterion``, ``replacement``, the scope."""
    return build(Heads, layers=layers, heads=heads, **options)


@makes(Neurons)
def neurons(layers: Where, neurons: Units = None, **options: Any) -> Neurons:
    """Mask neurons; see :class:`Neurons`. Other options: ``ratio``, ``criterion``, ``replacement``, the scope."""
    return build(Neurons, layers=layers, neurons=neurons, **options)


@makes(Channels)
def channels(
    layers: Where, channels: Units = None, *, site: WideSite = "resid_post", **options: Any
) -> Channels:
    """Mask channels of the residual stream; see :class:`Channels`. Other options: ``ratio``, ``criterion``,
    ``replacement``, the scope."""
    return build(Channels, layers=layers, channels=channels, site=site, **options)


@makes(TokenMask)
def tokens(layers: Where = "all", **scope: Unpack[Scope]) -> TokenMask:
    """Hide the tokens of the scope from all others; see :class:`TokenMask`."""
    return build(TokenMask, layers=layers, **scope)


@makes(Activations)
def activations(layers: Where, method: Method = "magnitude", **options: Any) -> Activations:
    """Leave small activations out; see :class:`Activations`."""
    return build(Activations, layers=layers, method=method, **options)


@makes(AttentionMask)
def attention(layers: Where, pattern: Pattern, **options: Any) -> AttentionMask:
    """Keep some blocks of the attention map; see :class:`AttentionMask`."""
    return build(AttentionMask, layers=layers, pattern=pattern, **options)


@makes(WeightMask)
def weights(layers: Where, parts: str | Iterable[str] = (), **options: Any) -> WeightMask:
    """Mask entries of projections; see :class:`WeightMask`."""
    return build(WeightMask, layers=layers, parts=parts, **options)
