"""Re-routing: which experts a token uses and with what weight.

Edits act in the order in which routing happens, whatever their order in the plan (:class:`~.base.Stage`): logits, scores,
the policy of choice, forces, permutations, weights; within one stage the plan's order holds. Weights always come from
the scores as they were before a ban. Every function takes the scope by keyword (``tokens``, ``where``, ``phase``, ``rows``,
``steps``: see :class:`~workbench.interventions.edit.Edit`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Unpack

from workbench.interventions.edit import Layers, Scope, build
from workbench.interventions.reroute.base import Reroute, Stage
from workbench.interventions.reroute.choice import (
    Force,
    Permute,
    Policy,
    Random,
    RankOffset,
    Replay,
    Threshold,
    TopK,
    TopP,
)
from workbench.interventions.reroute.scores import Allow, Ban, Bias, ScoreMix, Temperature
from workbench.interventions.reroute.weights import Normalise, Uniform, Weights

__all__ = [
    "KINDS", "Allow", "Ban", "Bias", "Force", "Permute", "Policy", "Random", "RankOffset", "Replay", "Reroute", "ScoreMix",
    "Stage", "Temperature", "Threshold", "TopK", "TopP", "Uniform", "Weights", "allow", "ban", "bias", "force", "permute",
    "random", "rank_offset", "replay", "scores", "temperature", "threshold", "top_k", "top_p", "uniform", "weights",
]  # fmt: skip

KINDS: tuple[type[Reroute], ...] = (
    Ban, Allow, Force, Bias, Temperature, ScoreMix, TopK, TopP, Threshold, RankOffset, Random, Permute, Uniform, Weights,
    Replay,
)  # fmt: skip

Where = int | Iterable[int] | Layers
"""Layers: one, several, or ``"all"`` that have a router."""


def ban(layers: Where, experts: int | Iterable[int], *, at: Literal["scores", "logits"] = "scores",
        **scope: Unpack[Scope]) -> Ban:  # fmt: skip
    """Ban ``experts``; see :class:`Ban`."""
    return build(Ban, layers=layers, experts=experts, at=at, **scope)


def allow(layers: Where, experts: int | Iterable[int], *, at: Literal["scores", "logits"] = "scores",
          **scope: Unpack[Scope]) -> Allow:  # fmt: skip
    """Allow only ``experts``; see :class:`Allow`."""
    return build(Allow, layers=layers, experts=experts, at=at, **scope)


def force(layers: Where, experts: int | Iterable[int], *, weight: float | None = None,
          **scope: Unpack[Scope]) -> Force:  # fmt: skip
    """Force ``experts`` among the choices; see :class:`Force`."""
    return build(Force, layers=layers, experts=experts, weight=weight, **scope)


def bias(layers: Where, delta: Mapping[int, float] | Iterable[float], *, at: Literal["logits", "scores"] = "logits",
         **scope: Unpack[Scope]) -> Bias:  # fmt: skip
    """Add ``delta`` to router logits or scores; see :class:`Bias`."""
    data = dict(delta) if isinstance(delta, Mapping) else tuple(delta)
    return build(Bias, layers=layers, delta=data, at=at, **scope)


def temperature(layers: Where, tau: float, **scope: Unpack[Scope]) -> Temperature:
    """Divide the router logits by ``tau``; see :class:`Temperature`."""
    return build(Temperature, layers=layers, tau=tau, **scope)


def scores(layers: Where, scores: Iterable[float], *, alpha: float = 1.0,
           **scope: Unpack[Scope]) -> ScoreMix:  # fmt: skip
    """Mix the router's scores with given ones; see :class:`ScoreMix`."""
    return build(ScoreMix, layers=layers, scores=tuple(scores), alpha=alpha, **scope)


def top_k(layers: Where, k: int, **scope: Unpack[Scope]) -> TopK:
    """Use the ``k`` best experts; see :class:`TopK`."""
    return build(TopK, layers=layers, k=k, **scope)


def top_p(layers: Where, p: float, *, max_k: int | None = None,
          **scope: Unpack[Scope]) -> TopP:  # fmt: skip
    """Use experts up to a share ``p``; see :class:`TopP`."""
    return build(TopP, layers=layers, p=p, max_k=max_k, **scope)


def threshold(layers: Where, tau: float, *, max_k: int | None = None,
              **scope: Unpack[Scope]) -> Threshold:  # fmt: skip
    """Use experts with a share of at least ``tau``; see :class:`Threshold`."""
    return build(Threshold, layers=layers, tau=tau, max_k=max_k, **scope)


def rank_offset(layers: Where, shift: int, **scope: Unpack[Scope]) -> RankOffset:
    """Leave the ``shift`` best experts out; see :class:`RankOffset`."""
    return build(RankOffset, layers=layers, shift=shift, **scope)


def random(layers: Where, seed: int = 0, **scope: Unpack[Scope]) -> Random:
    """Use random experts; see :class:`Random`."""
    return build(Random, layers=layers, seed=seed, **scope)


def permute(layers: Where, map: Iterable[int], **scope: Unpack[Scope]) -> Permute:
    """Exchange experts after the choice; see :class:`Permute`."""
    return build(Permute, layers=layers, map=tuple(map), **scope)


def uniform(layers: Where, **scope: Unpack[Scope]) -> Uniform:
    """Give all chosen experts the same weight; see :class:`Uniform`."""
    return build(Uniform, layers=layers, **scope)


def weights(layers: Where, *, scale: float | Mapping[int, float] | None = None, values: Iterable[float] | None = None,
            normalise: Normalise = "as-is", **scope: Unpack[Scope]) -> Weights:  # fmt: skip
    """Re-mix the chosen experts; see :class:`Weights`."""
    data: dict[str, Any] = {
        "scale": dict(scale) if isinstance(scale, Mapping) else scale,
        "values": None if values is None else tuple(values),
    }
    return build(Weights, layers=layers, normalise=normalise, **data, **scope)


def replay(run: Any, *, layers: Where = "all", **scope: Unpack[Scope]) -> Replay:
    """Replay the routes of ``run`` (a Run or its id); see :class:`Replay`."""
    return build(Replay, run=run, layers=layers, **scope)
