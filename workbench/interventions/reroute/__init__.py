"""Re-routing: which experts a token uses and with what weight.

Edits act in the order in which routing happens, whatever their order in the plan (:class:`~.base.Stage`): logits, scores
across tokens, scores, the policy of choice, capacity, forces, permutations, merges, weights, pseudo-experts; within one
stage the plan's order holds. Weights always come from the scores as they were before a ban. Every function takes the scope
by keyword (``tokens``, ``where``, ``phase``, ``rows``, ``steps``: see :class:`~workbench.interventions.edit.Edit`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Unpack

from workbench.interventions.edit import Layers, Scope, build
from workbench.interventions.makes import makes
from workbench.interventions.reroute.across import CopyLayer, Group, Mixed, Smooth
from workbench.interventions.reroute.assign import Balanced, Capacity, ExpertChoice, Order, Pool, Pooled
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
from workbench.interventions.reroute.experts import Merge, Pseudo
from workbench.interventions.reroute.scores import Allow, Ban, Bias, ScoreMix, Temperature
from workbench.interventions.reroute.weights import Normalise, Uniform, Weights

__all__ = [
    "KINDS", "Allow", "Balanced", "Ban", "Bias", "Capacity", "CopyLayer", "ExpertChoice", "Force", "Group", "Merge", "Mixed",
    "Permute", "Policy", "Pooled", "Pseudo", "Random", "RankOffset", "Replay", "Reroute", "ScoreMix", "Smooth", "Stage",
    "Temperature", "Threshold", "TopK", "TopP", "Uniform", "Weights", "allow", "balanced", "ban", "bias", "capacity",
    "copy_layer", "expert_choice", "force", "group", "merge", "permute", "pseudo", "random", "rank_offset", "replay",
    "scores", "smooth", "temperature", "threshold", "top_k", "top_p", "uniform", "weights",
]  # fmt: skip

KINDS: tuple[type[Reroute], ...] = (
    Ban, Allow, Force, Bias, Temperature, ScoreMix, TopK, TopP, Threshold, RankOffset, Random, Permute, Uniform, Weights,
    Replay, Smooth, Group, CopyLayer, Capacity, ExpertChoice, Balanced, Merge, Pseudo,
)  # fmt: skip

Where = int | Iterable[int] | Layers
"""Layers: one, several, or ``"all"`` that have a router."""


@makes(Ban)
def ban(layers: Where, experts: int | Iterable[int], *, at: Literal["scores", "logits"] = "scores",
        short: Literal["refuse", "shrink"] = "refuse", **scope: Unpack[Scope]) -> Ban:  # fmt: skip
    """Ban ``experts``; see :class:`Ban`."""
    return build(Ban, layers=layers, experts=experts, at=at, short=short, **scope)


@makes(Allow)
def allow(layers: Where, experts: int | Iterable[int], *, at: Literal["scores", "logits"] = "scores",
          short: Literal["refuse", "shrink"] = "refuse", **scope: Unpack[Scope]) -> Allow:  # fmt: skip
    """Allow only ``experts``; see :class:`Allow`."""
    return build(Allow, layers=layers, experts=experts, at=at, short=short, **scope)


@makes(Force)
def force(layers: Where, experts: int | Iterable[int], *, weight: float | None = None,
          **scope: Unpack[Scope]) -> Force:  # fmt: skip
    """Force ``experts`` among the choices; see :class:`Force`."""
    return build(Force, layers=layers, experts=experts, weight=weight, **scope)


@makes(Bias)
def bias(layers: Where, delta: Any, *, at: Literal["logits", "scores"] = "logits",
         **scope: Unpack[Scope]) -> Bias:  # fmt: skip
    """Add ``delta`` to router logits or scores; see :class:`Bias`."""
    return build(Bias, layers=layers, delta=delta, at=at, **scope)


@makes(Temperature)
def temperature(layers: Where, tau: float, **scope: Unpack[Scope]) -> Temperature:
    """Divide the router logits by ``tau``; see :class:`Temperature`."""
    return build(Temperature, layers=layers, tau=tau, **scope)


@makes(ScoreMix)
def scores(layers: Where, scores: Any, *, alpha: float = 1.0, how: Literal["mix", "add"] = "mix",
           **scope: Unpack[Scope]) -> ScoreMix:  # fmt: skip
    """Mix the router's scores with given ones; see :class:`ScoreMix`."""
    return build(ScoreMix, layers=layers, scores=scores, alpha=alpha, how=how, **scope)


@makes(TopK)
def top_k(layers: Where, k: int, **scope: Unpack[Scope]) -> TopK:
    """Use the ``k`` best experts; see :class:`TopK`."""
    return build(TopK, layers=layers, k=k, **scope)


@makes(TopP)
def top_p(layers: Where, p: float, *, max_k: int | None = None,
          **scope: Unpack[Scope]) -> TopP:  # fmt: skip
    """Use experts up to a share ``p``; see :class:`TopP`."""
    return build(TopP, layers=layers, p=p, max_k=max_k, **scope)


@makes(Threshold)
def threshold(layers: Where, tau: float, *, max_k: int | None = None,
              **scope: Unpack[Scope]) -> Threshold:  # fmt: skip
    """Use experts with a share of at least ``tau``; see :class:`Threshold`."""
    return build(Threshold, layers=layers, tau=tau, max_k=max_k, **scope)


@makes(RankOffset)
def rank_offset(layers: Where, shift: int, **scope: Unpack[Scope]) -> RankOffset:
    """Leave the ``shift`` best experts out; see :class:`RankOffset`."""
    return build(RankOffset, layers=layers, shift=shift, **scope)


@makes(Random)
def random(layers: Where, seed: int = 0, **scope: Unpack[Scope]) -> Random:
    """Use random experts; see :class:`Random`."""
    return build(Random, layers=layers, seed=seed, **scope)


@makes(Permute)
def permute(layers: Where, map: Iterable[int], **scope: Unpack[Scope]) -> Permute:
    """Exchange experts after the choice; see :class:`Permute`."""
    return build(Permute, layers=layers, map=tuple(map), **scope)


@makes(Uniform)
def uniform(layers: Where, **scope: Unpack[Scope]) -> Uniform:
    """Give all chosen experts the same weight; see :class:`Uniform`."""
    return build(Uniform, layers=layers, **scope)


@makes(Weights)
def weights(layers: Where, *, scale: float | Mapping[int, float] | None = None, values: Iterable[float] | None = None,
            add: Any = None, normalise: Normalise = "as-is", **scope: Unpack[Scope]) -> Weights:  # fmt: skip
    """Re-mix the chosen experts; see :class:`Weights`."""
    data: dict[str, Any] = {
        "scale": dict(scale) if isinstance(scale, Mapping) else scale,
        "values": None if values is None else tuple(values),
    }
    return build(Weights, layers=layers, add=add, normalise=normalise, **data, **scope)


@makes(Replay)
def replay(run: Any, *, layers: Where = "all", token_map: Mapping[int, int] | None = None,
           layer_map: Mapping[int, int] | None = None, **scope: Unpack[Scope]) -> Replay:  # fmt: skip
    """Replay the routes of ``run`` (a Run or its id); see :class:`Replay`."""
    return build(
        Replay,
        run=run,
        layers=layers,
        token_map=dict(token_map or {}),
        layer_map=dict(layer_map or {}),
        **scope,
    )


@makes(Smooth)
def smooth(layers: Where, *, by: Literal["attention", "window", "matrix"] = "attention", window: int | None = None,
           matrix: Any = None, alpha: float = 1.0, causal: bool = True, **scope: Unpack[Scope]) -> Smooth:  # fmt: skip
    """Smooth the scores across tokens; see :class:`Smooth`."""
    return build(
        Smooth, layers=layers, by=by, window=window, matrix=matrix, alpha=alpha, causal=causal, **scope
    )


@makes(Group)
def group(layers: Where, *, by: Literal["sentence", "sample"] = "sentence",
          take: Literal["first", "running", "mean"] = "running", alpha: float = 1.0,
          **options: Any) -> Group:  # fmt: skip
    """Route a sentence or sample alike; ``options`` are ``ends`` and the scope: see :class:`Group`."""
    return build(Group, layers=layers, by=by, take=take, alpha=alpha, **options)


@makes(CopyLayer)
def copy_layer(layers: Where, source: int, *, weights: Literal["source", "own"] = "source",
               **scope: Unpack[Scope]) -> CopyLayer:  # fmt: skip
    """Use the choice of layer ``source``; see :class:`CopyLayer`."""
    return build(CopyLayer, layers=layers, source=source, weights=weights, **scope)


@makes(Capacity)
def capacity(layers: Where, factor: float = 1.0, *, order: Order = "position", overflow: Literal["drop", "next"] = "drop",
             pool: Pool = "sequence", causal: bool = True, couples_rows: bool = False, seed: int = 0,
             **scope: Unpack[Scope]) -> Capacity:  # fmt: skip
    """Limit the places of each expert; see :class:`Capacity`."""
    return build(
        Capacity, layers=layers, factor=factor, order=order, overflow=overflow, pool=pool, causal=causal,
        couples_rows=couples_rows, seed=seed, **scope,
    )  # fmt: skip


@makes(ExpertChoice)
def expert_choice(layers: Where, factor: float = 1.0, *, pool: Pool = "sequence", couples_rows: bool = False,
                  **scope: Unpack[Scope]) -> ExpertChoice:  # fmt: skip
    """Let experts choose their tokens; see :class:`ExpertChoice`."""
    return build(ExpertChoice, layers=layers, factor=factor, pool=pool, couples_rows=couples_rows, **scope)


@makes(Balanced)
def balanced(layers: Where, factor: float = 1.0, *, method: Literal["exact", "sinkhorn"] = "exact", tau: float = 1.0,
             iterations: int = 50, pool: Pool = "sequence", couples_rows: bool = False,
             **scope: Unpack[Scope]) -> Balanced:  # fmt: skip
    """Balance the loads of the experts; see :class:`Balanced`."""
    return build(
        Balanced, layers=layers, factor=factor, method=method, tau=tau, iterations=iterations, pool=pool,
        couples_rows=couples_rows, **scope,
    )  # fmt: skip


@makes(Merge)
def merge(layers: Where, map: Mapping[int, int], **scope: Unpack[Scope]) -> Merge:
    """Let one expert stand for others; see :class:`Merge`."""
    return build(Merge, layers=layers, map=dict(map), **scope)


@makes(Pseudo)
def pseudo(layers: Where, experts: int | Iterable[int], *, output: Literal["zero", "copy", "constant"] = "zero",
           vector: Any = None, **scope: Unpack[Scope]) -> Pseudo:  # fmt: skip
    """Replace experts by something that costs nothing; see :class:`Pseudo`."""
    return build(Pseudo, layers=layers, experts=experts, output=output, vector=vector, **scope)
