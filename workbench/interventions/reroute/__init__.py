"""Re-routing: which experts a token uses and with what weight.

Edits act in the order in which routing happens, whatever their order in the plan (:class:`~.base.Stage`): logits, scores,
the policy of choice, forces, permutations, weights; within one stage the plan's order holds. Weights always come from
the scores as they were before a ban.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from workbench.interventions.edit import Layers, Phase, Tokens, build
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

When = Tokens | slice | int | list[int]
"""Tokens: see :class:`workbench.interventions.edit.Edit`."""


def ban(layers: Where, experts: int | Iterable[int], *, at: Literal["scores", "logits"] = "scores",
        tokens: When = "all", phase: Phase = "all") -> Ban:  # fmt: skip
    """Ban ``experts``; see :class:`Ban`."""
    return build(Ban, layers=layers, experts=experts, at=at, tokens=tokens, phase=phase)


def allow(layers: Where, experts: int | Iterable[int], *, at: Literal["scores", "logits"] = "scores",
          tokens: When = "all", phase: Phase = "all") -> Allow:  # fmt: skip
    """Allow only ``experts``; see :class:`Allow`."""
    return build(Allow, layers=layers, experts=experts, at=at, tokens=tokens, phase=phase)


def force(layers: Where, experts: int | Iterable[int], *, weight: float | None = None,
          tokens: When = "all", phase: Phase = "all") -> Force:  # fmt: skip
    """Force ``experts`` among the choices; see :class:`Force`."""
    return build(Force, layers=layers, experts=experts, weight=weight, tokens=tokens, phase=phase)


def bias(layers: Where, delta: Mapping[int, float] | Iterable[float], *, at: Literal["logits", "scores"] = "logits",
         tokens: When = "all", phase: Phase = "all") -> Bias:  # fmt: skip
    """Add ``delta`` to router logits or scores; see :class:`Bias`."""
    data = dict(delta) if isinstance(delta, Mapping) else tuple(delta)
    return build(Bias, layers=layers, delta=data, at=at, tokens=tokens, phase=phase)


def temperature(layers: Where, tau: float, *, tokens: When = "all", phase: Phase = "all") -> Temperature:
    """Divide the router logits by ``tau``; see :class:`Temperature`."""
    return build(Temperature, layers=layers, tau=tau, tokens=tokens, phase=phase)


def scores(layers: Where, scores: Iterable[float], *, alpha: float = 1.0,
           tokens: When = "all", phase: Phase = "all") -> ScoreMix:  # fmt: skip
    """Mix the router's scores with given ones; see :class:`ScoreMix`."""
    return build(ScoreMix, layers=layers, scores=tuple(scores), alpha=alpha, tokens=tokens, phase=phase)


def top_k(layers: Where, k: int, *, tokens: When = "all", phase: Phase = "all") -> TopK:
    """Use the ``k`` best experts; see :class:`TopK`."""
    return build(TopK, layers=layers, k=k, tokens=tokens, phase=phase)


def top_p(layers: Where, p: float, *, max_k: int | None = None,
          tokens: When = "all", phase: Phase = "all") -> TopP:  # fmt: skip
    """Use experts up to a share ``p``; see :class:`TopP`."""
    return build(TopP, layers=layers, p=p, max_k=max_k, tokens=tokens, phase=phase)


def threshold(layers: Where, tau: float, *, max_k: int | None = None,
              tokens: When = "all", phase: Phase = "all") -> Threshold:  # fmt: skip
    """Use experts with a share of at least ``tau``; see :class:`Threshold`."""
    return build(Threshold, layers=layers, tau=tau, max_k=max_k, tokens=tokens, phase=phase)


def rank_offset(layers: Where, shift: int, *, tokens: When = "all", phase: Phase = "all") -> RankOffset:
    """Leave the ``shift`` best experts out; see :class:`RankOffset`."""
    return build(RankOffset, layers=layers, shift=shift, tokens=tokens, phase=phase)


def random(layers: Where, seed: int = 0, *, tokens: When = "all", phase: Phase = "all") -> Random:
    """Use random experts; see :class:`Random`."""
    return build(Random, layers=layers, seed=seed, tokens=tokens, phase=phase)


def permute(layers: Where, map: Iterable[int], *, tokens: When = "all", phase: Phase = "all") -> Permute:
    """Exchange experts after the choice; see :class:`Permute`."""
    return build(Permute, layers=layers, map=tuple(map), tokens=tokens, phase=phase)


def uniform(layers: Where, *, tokens: When = "all", phase: Phase = "all") -> Uniform:
    """Give all chosen experts the same weight; see :class:`Uniform`."""
    return build(Uniform, layers=layers, tokens=tokens, phase=phase)


def weights(layers: Where, *, scale: float | Mapping[int, float] | None = None, values: Iterable[float] | None = None,
            normalise: Normalise = "as-is", tokens: When = "all", phase: Phase = "all") -> Weights:  # fmt: skip
    """Re-mix the chosen experts; see :class:`Weights`."""
    data: dict[str, Any] = {
        "scale": dict(scale) if isinstance(scale, Mapping) else scale,
        "values": None if values is None else tuple(values),
    }
    return build(Weights, layers=layers, normalise=normalise, tokens=tokens, phase=phase, **data)


def replay(run: Any, *, layers: Where = "all", tokens: When = "all", phase: Phase = "all") -> Replay:
    """Replay the routes of ``run`` (a Run or its id); see :class:`Replay`."""
    return build(Replay, run=run, layers=layers, tokens=tokens, phase=phase)
