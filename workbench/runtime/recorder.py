"""What a pass leaves for the store: small tensors, copied before the model goes on, and handed to the writer's thread.

The recorder never touches the model's tensors in place, so logits are the same bits with and without it. Nothing but
copies is made during the run; the rows are made of many passes at once, later (:mod:`workbench.runtime.rows`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from workbench.anatomy import Anatomy, RoutingRule
from workbench.interventions.ragged import NOTHING
from workbench.runtime.arena import Arena
from workbench.runtime.capture import Capture, Census, Chunks, Effects
from workbench.runtime.held import Held, array
from workbench.runtime.kept import Kept
from workbench.runtime.passes import Pass
from workbench.runtime.record import Record
from workbench.runtime.staging import Arrival
from workbench.store import Store

if TYPE_CHECKING:
    from workbench.runtime.hooks.scene import DepthEvent, MaskReport, Part, Work
    from workbench.runtime.instrument import Session

THINNEST = 64
"""Under the policy ``sample`` at least every so many-th token is kept, until there is no room at all."""


class Tokens(NamedTuple):
    """Tokens of a pass: flat index into [B x S], row of the batch, run and absolute position of each; ``whole`` says that
    they are all there are."""

    at: NDArray[np.int64]
    row: NDArray[np.int64]
    run: NDArray[np.int64]
    position: NDArray[np.int32]
    whole: bool

    def only(self, keep: NDArray[Any]) -> Tokens:
        """Those at the places ``keep``, a mask or indices."""
        return Tokens(self.at[keep], self.row[keep], self.run[keep], self.position[keep], False)

    def every(self, stride: int) -> Tokens:
        """Those at positions that ``stride`` divides."""
        return self.only(self.position % stride == 0)


@dataclass(frozen=True)
class Facts:
    """What holds for all passes of a run: what to record, of which model, on which kernels."""

    record: Record
    anatomy: Anatomy
    kernels: str
    isa: str

    def experts(self, layer: int) -> int:
        """Number of experts of a sparse layer."""
        moe = self.anatomy.layer(layer).moe
        assert moe is not None
        return moe.num_experts

    def rule(self, layer: int) -> RoutingRule | None:
        """The routing rule of a sparse layer, where there is one."""
        moe = self.anatomy.layer(layer).moe
        return None if moe is None else moe.rule


@dataclass(frozen=True)
class Decided:
    """What became of the ``tokens`` of a pass in one unit of a layer: visits, and what a token left behind, by token.
    ``told`` are those worth a row."""

    layer: int
    unit: str
    tokens: Tokens
    visits: NDArray[np.int64]
    kv: NDArray[np.int64]
    repeat_kv: str
    told: NDArray[np.bool_]
    borrowed: bool

    def held(self, batch: int) -> NDArray[np.bool_]:
        """The runs [B] in which something was decided."""
        return np.bincount(self.tokens.row, self.told, batch) > 0

    @staticmethod
    def of(event: DepthEvent, runs: NDArray[np.int64]) -> Decided:
        """The event with arrays of its own."""
        tokens = _tokens(event.now, runs)
        visits = event.visits.cpu().numpy().reshape(-1)[tokens.at]
        told = visits != 1 if not event.borrowed else np.full(visits.shape, True)
        if event.chosen is not None:
            told = told | event.chosen.cpu().numpy().reshape(-1)[tokens.at]
        kv = event.kv.cpu().numpy().reshape(-1)[tokens.at]
        return Decided(event.layer, event.unit, tokens, visits, kv, event.repeat_kv, told, event.borrowed)


@dataclass(frozen=True)
class Left:
    """Units of work done and left out by each run of a pass, and those done for nothing, [B]."""

    layer: int
    op: str
    backend: str
    executed: NDArray[np.int64]
    skipped: NDArray[np.int64]
    masked: NDArray[np.int64]

    @property
    def held(self) -> NDArray[np.bool_]:
        """The runs [B] of which there was something to do or to leave out."""
        return (self.executed > 0) | (self.skipped > 0)

    @staticmethod
    def of(work: Work, runs: NDArray[np.int64]) -> Left:
        """The work with its tokens summed up by run."""
        masked = torch.zeros_like(work.executed) if work.masked is None else work.masked
        parts = [part.cpu().numpy().reshape(-1) for part in (work.executed, work.skipped, masked)]
        if parts[0].size == len(runs) and parts[0].size != work.now.positions.numel():
            return Left(work.layer, work.op, work.backend, *parts)
        tokens = _tokens(work.now, runs)
        sums = [np.bincount(tokens.row, part[tokens.at], len(runs)).astype(np.int64) for part in parts]
        return Left(work.layer, work.op, work.backend, *sums)


@dataclass(frozen=True)
class Taken:
    """Everything the rows of one pass are made of; waits in the writer's queue (:class:`workbench.store.writer.Deferred`).

    ``tokens`` get rows of their own, ``every_token`` (a superset) enter the sums over tokens; ``seconds`` is how long it
    took. ``arrivals`` are what to wait for before the layers are read.
    """

    facts: Facts
    step: int
    runs: NDArray[np.int64]
    tokens: Tokens
    every_token: Tokens
    layers: Mapping[int, Kept]
    nbytes: int
    events: tuple[Decided, ...] = ()
    work: tuple[Left, ...] = ()
    masks: tuple[MaskReport, ...] = ()
    seconds: float | None = None
    arrivals: tuple[Arrival, ...] = ()

    def arrive(self) -> None:
        """Wait until what comes from a device can be read."""
        for arrival in self.arrivals:
            arrival.synchronize()

    @property
    def rows(self) -> int:
        """About how many rows the largest table gets."""
        return self.tokens.at.size * sum([kept.slots or 1 for kept in self.layers.values()])

    @property
    def present(self) -> NDArray[np.int64]:
        """1 for each run [B] of which there are tokens, else 0."""
        return (np.bincount(self.every_token.row, minlength=len(self.runs)) > 0).astype(np.int64)

    def count(self) -> dict[str, int]:
        """Exactly how many rows each table gets."""
        found: dict[str, int] = {}
        for tables in self.count_by_run().values():
            for table, rows in tables.items():
                found[table] = found.get(table, 0) + rows
        return found

    def count_by_run(self, tokens: Tokens | None = None) -> dict[int, dict[str, int]]:
        """The same for each run of the pass; of ``tokens`` instead of those that are kept, where they are given."""
        self.arrive()
        only = tokens is not None
        tokens = self.tokens if tokens is None else tokens
        batch = len(self.runs)
        totals: dict[str, NDArray[np.int64]] = {}

        def add(table: str, rows: NDArray[np.int64]) -> None:
            totals[table] = totals.get(table, 0) + rows

        each = np.bincount(tokens.row, minlength=batch)
        record = self.facts.record
        for layer, kept in self.layers.items():
            if "ids" in kept:
                ids = kept["ids"][tokens.at]
                executed = (ids >= 0) & (ids < self.facts.experts(layer))
                if record.routing:
                    add("routing", np.bincount(tokens.row, (ids != NOTHING).sum(-1), batch).astype(np.int64))
                    add("router", each)
                if record.wants_scores and "logits" in kept and self.facts.rule(layer) is not None:
                    chosen = sampled(record, tokens)
                    add("router_scores", np.bincount(tokens.row[chosen], minlength=batch))
                if record.sparsity and "norms" in kept:
                    add("sparsity", np.bincount(tokens.row, executed.sum(-1), batch).astype(np.int64))
                if record.routing and "norms" in kept and not only:
                    add("expert_stat", self._used_experts(layer, kept["ids"]))
                    add("cost", np.ones(batch, dtype=np.int64))
            if "contribution" in kept or "lens_kl" in kept:
                add("contribution", each)
            if kept.effects is not None and record.has_layer(layer):
                self._add_effects(add, kept, tokens, only)
            if "hoyer" in kept:
                add("sparsity", each)
            if not only:
                for sample in kept.attention:
                    heads = np.eye(batch, dtype=np.int64)[sample.row] * sample.query.shape[1]
                    for table, wanted in (
                        ("attention_rank", record.attention_rank),
                        ("attention_map", record.attention_map),
                    ):
                        if wanted:
                            add(table, heads)
                if kept.census is not None:
                    add(
                        "neuron_rate",
                        (array(kept.census.tokens) > 0).sum(-1) * kept.census.active.shape[-1],
                    )
                if kept.chunks is not None:
                    add("neuron_chunk", (~np.isnan(array(kept.chunks.union))).sum(-1))
                for ranks in kept.ranks:
                    add(
                        "attention_rank", np.eye(batch, dtype=np.int64)[ranks.row] * ranks.ranks.rank.shape[0]
                    )
        if not only:
            if self.seconds is not None:
                add("cost", self.present)
            for left in self.work:
                add("cost", left.held.astype(np.int64))
            for report in self.masks:
                add("attention_mask", np.eye(batch, dtype=np.int64)[report.row] * len(report.density))
            for event in self.events:
                add("depth", np.bincount(event.tokens.row[event.told], minlength=batch))
                add("cost", event.held(batch).astype(np.int64))
        return {
            int(run): {table: int(rows[n]) for table, rows in totals.items() if rows[n]}
            for n, run in enumerate(self.runs)
        }

    def _add_effects(
        self, add: Callable[[str, NDArray[np.int64]], None], kept: Kept, tokens: Tokens, only: bool
    ) -> None:
        assert kept.effects is not None
        batch = len(self.runs)
        each = np.bincount(tokens.row, minlength=batch)
        for unit, values in kept.effects.values.items():
            if unit == "expert":
                ran = (kept["ids"][tokens.at] >= 0).sum(-1)
                add("logit_effect", np.bincount(tokens.row, ran, batch).astype(np.int64))
            elif unit != "error":
                add("logit_effect", each * values.shape[1])
            elif not only:
                add("metric", (each > 0).astype(np.int64))

    def _used_experts(self, layer: int, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        tokens, experts = self.every_token, self.facts.experts(layer)
        found = ids[tokens.at]
        inside = (found >= 0) & (found < experts)
        used = np.unique((tokens.row[:, None] * experts + found)[inside])
        return np.bincount(used // experts, minlength=len(self.runs))


class Recorder:
    """Takes what the passes of one run leave, or of a batch of runs of which row ``b`` is ``runs[b]``."""

    def __init__(
        self, store: Store, arena: Arena, record: Record, anatomy: Anatomy, runs: Sequence[int], kernels: str, isa: str
    ) -> None:  # fmt: skip
        self._store = store
        self._arena = arena
        self._facts = Facts(record, anatomy, kernels, isa)
        self._runs = np.asarray(runs, dtype=np.int64)
        self.dropped: dict[int, dict[str, int]] = {}
        self.slots = 0
        """The most choices that a token of these passes has made in a layer."""

    def take(self, session: Session) -> None:
        """Keep what ``session`` saw of the pass that just ran. It belongs to the recorder from here on."""
        for part in session.taken():
            self._take(part)

    def _take(self, part: Part) -> None:
        now, captures = part.now, part.captures
        from workbench.runtime.rows import digest

        valid = _tokens(now, self._runs)
        record = self._facts.record
        rowed = valid if record.every == 1 else valid.every(record.every)
        layers = {layer: self._keep(layer, captures[layer]) for layer in sorted(captures)}
        nbytes = sum([kept.nbytes for kept in layers.values()])
        self.slots = max([self.slots, *[kept.slots for kept in layers.values()]])
        decided = tuple(Decided.of(event, self._runs) for event in part.events)
        work = tuple(Left.of(one, self._runs) for one in part.work)
        taken = Taken(
            self._facts, now.step, self._runs, rowed, valid, layers, nbytes, decided, work, tuple(part.reports),
            part.seconds, self._arena.send(),
        )  # fmt: skip
        if self._store.policy == "sample":
            taken = self._thin(taken)
        if self._store.defer(digest, taken):
            self._lose(taken.count_by_run())

    def _thin(self, taken: Taken) -> Taken:
        """Fewer tokens the fuller the queue is: every 2nd from half of its capacity, every 4th from three quarters, ..."""
        stride, left = 1, 1.0 - self._store.pressure
        while left <= 0.5 / stride and stride < THINNEST:
            stride *= 2
        if stride == 1:
            return taken
        kept = taken.tokens.every(stride)
        lost = np.setdiff1d(taken.tokens.at, kept.at, assume_unique=True)
        inside = np.isin(taken.tokens.at, lost)
        self._lose(taken.count_by_run(taken.tokens.only(inside)))
        return replace(taken, tokens=kept)

    def _lose(self, rows: Mapping[int, Mapping[str, int]]) -> None:
        for run, tables in rows.items():
            lost = self.dropped.setdefault(run, {})
            for table, count in tables.items():
                lost[table] = lost.get(table, 0) + count

    def _keep(self, layer: int, capture: Capture) -> Kept:
        """Copies of what ``capture`` has, on the CPU: what the model may still write to is copied now."""
        rule = self._facts.rule(layer)
        if (
            capture.logits is not None
            and capture.selection is None
            and rule is not None
            and rule.bias() is not None
        ):
            # A correction bias is state of the model, which may be another one when the rows are made.
            capture.selection = rule.selection(rule.scores(capture.logits))
        hold = self._arena.hold
        values: dict[str, Held] = {}
        if capture.contribution is not None:
            values["contribution"] = hold(capture.contribution, "contribution")
        if capture.ids is not None:
            for name in _CHOICE if capture.edited is None else (*_CHOICE, *_NATIVE):
                value = getattr(capture, name)
                if value is not None:
                    values[name] = hold(value, name)
        for group in (capture.experts, capture.activation):
            if group is not None:
                for name, value in zip(group._fields, group, strict=True):
                    values[name] = hold(value, name)
        if capture.lens_kl is not None:
            values["lens_kl"] = hold(capture.lens_kl, "lens_kl")
        effects, census, chunks = capture.effects, capture.census, capture.chunks
        return Kept(
            values, capture.seconds, capture.width, capture.attention, capture.ranks,
            effects and Effects(hold(effects.targets, "target"), {u: hold(v, u) for u, v in effects.values.items()}),
            census and Census(*[hold(part, "census") for part in census]),
            chunks and Chunks(*[hold(part, "chunks") for part in chunks]),
        )  # fmt: skip


_CHOICE = ("logits", "selection", "ids", "weights")
_NATIVE = ("edited", "native_ids", "native_weights")


def sampled(record: Record, tokens: Tokens) -> NDArray[np.int64]:
    """Which of ``tokens`` get full score vectors: all, or a share drawn by hash of run and position, the same every time."""
    if record.scores is True or record.scores >= 1:
        return np.arange(tokens.at.size)
    # The finaliser of splitmix64: neighbouring positions get unrelated numbers.
    x = tokens.run.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + tokens.position.astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return np.flatnonzero(x < np.uint64(float(record.scores) * 2**63) * np.uint64(2))


def _tokens(now: Pass, runs: NDArray[np.int64]) -> Tokens:
    positions = now.positions.cpu().numpy().astype(np.int32)
    row = np.repeat(np.arange(positions.shape[0]), positions.shape[1])
    if now.rows is not None:
        row = now.rows.cpu().numpy().reshape(-1)
    if now.valid is None:
        return Tokens(np.arange(row.size), row, runs[row], positions.reshape(-1), True)
    at = np.flatnonzero(now.valid.cpu().numpy().reshape(-1))
    return Tokens(at, row[at], runs[row[at]], positions.reshape(-1)[at], False)
