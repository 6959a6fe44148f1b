"""Which token runs a unit how often: the edits of depth of one layer, read in plan order.

Decisions depend on a token, its position and what came before it alone (unless an edit says ``causal=False``), so that a
token decides alike in the prompt, in a batch and in a generation. What a decision needs of earlier tokens hangs on the
cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from workbench.interventions.skip import Policy, Repeat, Tokens
from workbench.runtime.artefacts import opened
from workbench.runtime.depth.kv import memory_of
from workbench.runtime.depth.routers import DepthRouter
from workbench.runtime.hooks.scene import Planned, Scene

ABSENT, COMPUTE, COPY = 0, 1, 2
_KV = {"absent": ABSENT, "compute": COMPUTE, "copy-last": COPY}

Received: TypeAlias = Callable[[int], Tensor]
"""layer -> mean attention [B, S] that each token of the pass received there."""


@dataclass
class Decision:
    """B rows, S tokens.

    ``visits`` [B, S] int64: how often each token runs. ``kv`` [B, S] int64: what a token that does not run leaves behind.
    ``gate`` [B, S] float32: what multiplies the additions of the ``gated`` sublayers (``mlp`` or ``both``). ``repeat_kv``,
    ``parts``: policy of the repeats and which sublayer is repeated. ``reindex``: kept tokens count their positions anew.
    ``chosen`` [B, S]: tokens for which the run itself decided.
    """

    visits: Tensor
    kv: Tensor
    gate: Tensor | None = None
    gated: str = "none"
    repeat_kv: str = "per-visit"
    parts: str = "block"
    reindex: bool = False
    chosen: Tensor | None = None

    @property
    def once(self) -> bool:
        """Whether every token runs exactly once and unscaled."""
        return self.gate is None and not self.reindex and bool((self.visits == 1).all())


@dataclass
class Decider:
    """The edits of one unit of one layer."""

    scene: Scene
    layer: int
    num_layers: int
    edits: Planned[Any]
    received: Received

    def __call__(self, hidden: Tensor, cache: Any) -> Decision:
        """Decide for the residual ``hidden`` [B, S, H] that enters the block."""
        now = self.scene.now
        size = now.positions.shape
        made = Decision(
            torch.ones(size, dtype=torch.int64, device=hidden.device),
            torch.zeros(size, dtype=torch.int64, device=hidden.device),
        )
        for edit, where in self.scene.scoped(self.edits, self.layer):
            if now.valid is not None:
                where = where & now.valid
            if isinstance(edit, Repeat):
                made.visits = torch.where(where & (made.visits > 0), edit.times, made.visits)
                made.repeat_kv, made.parts = edit.kv, edit.unit
            elif isinstance(edit, Tokens):
                self._tokens(made, edit, where, hidden, cache)
            elif isinstance(edit, Policy):
                self._policy(made, edit, where, hidden)
            elif edit.leaves_out(self.layer, self.num_layers):
                self._skip(made, where, getattr(edit, "kv", "absent"))
            if edit.decides:
                made.chosen = where if made.chosen is None else made.chosen | where
        if now.valid is not None:
            made.visits = torch.where(now.valid, made.visits, 0 if self._gathers(made) else 1)
        return made

    def _gathers(self, made: Decision) -> bool:
        return bool((made.visits[self.scene.now.valid] != 1).any())

    def _skip(self, made: Decision, where: Tensor, kv: str) -> None:
        made.visits = made.visits.masked_fill(where, 0)
        made.kv = made.kv.masked_fill(where, _KV[kv])

    def _tokens(self, made: Decision, edit: Tokens, where: Tensor, hidden: Tensor, cache: Any) -> None:
        positions = self.scene.now.positions
        score = self._score(edit, hidden)
        if edit.threshold is not None:
            run = score > edit.threshold
        elif edit.score == "position":
            assert edit.capacity is not None
            run = ((positions + 1) * edit.capacity).floor() > (positions * edit.capacity).floor()
        elif not edit.causal:
            run = _whole(score, where, edit.capacity or 1.0)
        else:
            run = self._causal(edit, score, where, cache)
        skipped = where & ~run & ~protected(positions, edit.protect)
        self._skip(made, skipped, edit.kv)
        if edit.gate != "none":
            made.gate = (
                torch.where(where, score, 1.0) if made.gate is None else torch.where(where, score, made.gate)
            )
            made.gated = edit.gate
        made.reindex = made.reindex or edit.positions == "reindex"

    def _score(self, edit: Tokens, hidden: Tensor) -> Tensor:
        positions = self.scene.now.positions
        if edit.score == "norm":
            return hidden.float().norm(dim=-1)
        if edit.score == "router":
            assert edit.router is not None
            return self._router(edit.router).probability(self.layer, hidden)
        if edit.score == "attention":
            return self.received(self.layer - 1)
        if edit.score == "random":
            return uniform(edit.seed, self.layer, positions)
        return positions.float()

    def _causal(self, edit: Tokens, score: Tensor, where: Tensor, cache: Any) -> Tensor:
        """Whether each token is among the best ``ceil(capacity n)`` of the ``n`` tokens in scope up to itself."""
        positions, scores = self.scene.now.positions, memory_of(cache).scores
        past = int(positions.min())
        key = (edit.model_dump_json(), self.layer)
        before = scores.get(key)
        rows = positions.shape[0]
        before = score.new_full((rows, 0), torch.nan) if before is None else before[:, :past].expand(rows, -1)
        if before.shape[1] < past:  # the edit came in later: tokens before it were not scored
            gap = score.new_full((rows, past - before.shape[1]), torch.nan)
            before = torch.cat([before, gap], dim=1)
        size = int(positions.max()) + 1
        # One column more than there are positions: padding repeats a token, and may not speak for it.
        seen = score.new_full((rows, size + 1), torch.nan)
        valid, kept = self.scene.now.valid, scores.get(key)
        if valid is not None and kept is not None:  # what another visit of this pass scored stays
            seen[:, : min(size, kept.shape[1])] = kept[:, :size].expand(rows, -1)
        seen[:, :past] = before
        at_column = positions if valid is None else torch.where(valid, positions, size)
        seen = seen.scatter(1, at_column, torch.where(where, score, torch.nan))[:, :size]
        scores[key] = seen
        counted = ~seen.isnan()
        at = positions.unsqueeze(-1)
        earlier = torch.arange(size, device=score.device) <= at
        others = seen.unsqueeze(1)
        better = (others > score.unsqueeze(-1)) | (
            (others == score.unsqueeze(-1)) & (torch.arange(size, device=score.device) < at)
        )
        ahead = (better & earlier & counted.unsqueeze(1)).sum(-1)
        total = (earlier & counted.unsqueeze(1)).sum(-1)
        return ahead < (total * (edit.capacity or 1.0)).ceil()

    def _policy(self, made: Decision, edit: Policy, where: Tensor, hidden: Tensor) -> None:
        positions = self.scene.now.positions
        safe = protected(positions, edit.protect)
        if edit.policy in ("uniform", "middle"):
            if edit.leaves_out(self.layer, self.num_layers):
                self._skip(made, where & ~safe, edit.kv)
        elif edit.policy == "decay":
            self._skip(made, where & ~safe & self._decayed(edit), edit.kv)
        elif edit.policy == "random":
            stays = uniform(edit.seed, self.layer, positions) < (edit.share or 0.0)
            self._skip(made, where & ~safe & ~stays, edit.kv)
        elif edit.policy == "early_exit":
            self._skip(made, where & ~safe & self._left(edit, hidden), edit.kv)
        else:
            assert edit.router is not None
            visits = self._router(edit.router).visits(self.layer, hidden)
            self._skip(made, where & ~safe & (visits == 0), edit.kv)
            made.visits = torch.where(where & (made.visits > 0) & (visits > 1), visits, made.visits)

    def _router(self, name: str) -> DepthRouter:
        return DepthRouter.of(opened(name, "router"))

    def _decayed(self, edit: Policy) -> Tensor:
        """Whether this layer is among those that a generated token leaves out: as many as have gone, from ``first`` on."""
        now = self.scene.now
        prompt = now.of_rows(now.prompt_tokens)
        age = (now.positions - prompt + 1).clamp(min=0)
        share = torch.pow(
            torch.full(age.shape, edit.alpha or 1.0, dtype=torch.float64, device=age.device), age
        )
        # A product that is whole but for rounding is whole.
        runs = (
            (self.num_layers * share + 1e-9).floor().clamp(min=min(edit.min_layers, self.num_layers)).long()
        )
        gone = self.num_layers - runs
        first = torch.minimum(torch.full_like(gone, edit.first), runs)
        if not edit.scattered:
            return (self.layer >= first) & (self.layer < first + gone)
        mine = uniform(edit.seed, self.layer, now.positions)
        rank = torch.zeros_like(gone)  # of this layer among those that may be left out
        for layer in range(self.num_layers):
            rank += (layer >= first) & (uniform(edit.seed, layer, now.positions) < mine)
        return (self.layer >= first) & (rank < gone)

    def _left(self, edit: Policy, hidden: Tensor) -> Tensor:
        """Whether a token has left by this layer. The residual that enters each layer is kept for the next."""
        key = edit.model_dump_json()
        before = self.scene.exits.get(key)
        left = torch.zeros(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        if before is not None:
            similar = torch.cosine_similarity(hidden.float(), before[0].float(), dim=-1).clamp(-1, 1)
            left = before[1] | ((similar > (edit.similarity or 0.0)) & (self.layer > edit.first))
        self.scene.exits[key] = (hidden, left)
        return left


def protected(positions: Tensor, names: tuple[int, ...]) -> Tensor:
    """Which of ``positions`` always run."""
    return torch.isin(positions, torch.tensor(names, dtype=positions.dtype, device=positions.device))


def uniform(seed: int, layer: int, positions: Tensor) -> Tensor:
    """Numbers in 0..1 that depend on seed, layer and position alone (the finaliser of SplitMix64, 53 bits)."""
    mixed = positions.to(torch.int64) + (
        _signed(seed * 0x9E3779B97F4A7C15) ^ _signed((layer + 1) * 0xD1B54A32D192ED03)
    )
    mixed = mixed * _signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ _right(mixed, shift)) * _signed(factor)
    mixed = mixed ^ _right(mixed, 31)
    return (_right(mixed, 11).double() / 2.0**53).float()


def _right(value: Tensor, shift: int) -> Tensor:
    """A shift to the right that brings in zeros."""
    return (value >> shift) & ((1 << (64 - shift)) - 1)


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _whole(score: Tensor, where: Tensor, capacity: float) -> Tensor:
    """The best ``ceil(capacity n)`` of all ``n`` tokens in scope of a row, looking ahead."""
    order = score.masked_fill(~where, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    keep = (where.sum(-1, keepdim=True) * capacity).ceil()
    return where & (rank < keep)
