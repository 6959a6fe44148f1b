"""From what many passes left to the columns of the store: every step is one operation over all of them.

Runs on the writer's thread. A *piece* is one layer of one pass; the pieces of a table are concatenated before anything is
computed, so that the cost of a small pass is its share of a large one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.anatomy import RoutingRule
from workbench.interventions.ragged import NOTHING
from workbench.runtime.attention_rows import attention
from workbench.runtime.pieces import Piece, Pieces, known
from workbench.runtime.recorder import Decided, Taken, sampled
from workbench.runtime.request_rows import request_rows
from workbench.signals import routing, sparsity
from workbench.signals.contribution import Contribution

Rows: TypeAlias = tuple[str, Mapping[str, Any]]
NORM, SUMS = slice(0, 1), slice(1, 3)
"""Among the norms of experts: those of their outputs, and the L1 and L2 sums over their neurons."""


def digest(passes: Sequence[Taken]) -> Iterator[Rows]:
    """The rows of ``passes``, table by table."""
    for taken in passes:
        taken.arrive()
    pieces = [
        Piece(taken, layer, kept, taken.tokens) for taken in passes for layer, kept in taken.layers.items()
    ]
    for group in _groups([p for p in pieces if "ids" in p.kept], _choice_key):
        record = group[0].taken.facts.record
        if record.routing:
            yield "routing", _routing(group)
            yield "router", _router(group)
            if "norms" in group[0].kept:
                yield from _experts(group)
        if record.wants_scores and _rule(group[0]) is not None:
            yield "router_scores", _scores(group)
        if record.sparsity and "norms" in group[0].kept:
            yield "sparsity", _expert_sparsity(group)
    contributing = [p for p in pieces if "contribution" in p.kept or "lens_kl" in p.kept]
    for group in _groups(contributing, _known_parts):
        yield "contribution", _contribution(group)
    dense = [p for p in pieces if "hoyer" in p.kept]
    if dense:
        yield "sparsity", _dense_sparsity(Pieces(dense))
    yield from attention(passes)
    yield from request_rows(pieces)
    timed = [taken for taken in passes if taken.seconds is not None]
    if timed:
        yield "cost", _passes(timed)
    for taken in passes:
        for event in taken.events:
            yield "depth", _depth(taken, event)
            yield "cost", _depth_cost(taken, event)
        for left in taken.work:
            held = left.held
            yield "cost", {
                "run": taken.runs[held], "step": taken.step, "layer": left.layer, "op": left.op, "backend": left.backend,
                "isa": taken.facts.isa, "executed": left.executed[held], "skipped": left.skipped[held],
                "masked": left.masked[held],
            }  # fmt: skip
        for report in taken.masks:
            heads = len(report.density)
            yield "attention_mask", {
                "run": np.full(heads, taken.runs[report.row]), "step": taken.step, "layer": report.layer,
                "head": np.arange(heads), "pattern": report.patterns, "block": report.block,
                "density": report.density.numpy(), "recall": report.recall.numpy(), "error": report.error.numpy(),
            }  # fmt: skip


def _passes(timed: Sequence[Taken]) -> Mapping[str, Any]:
    """Seconds of whole passes, which the runs of a batch share by their tokens."""
    tokens = [np.bincount(taken.every_token.row, minlength=len(taken.runs)) for taken in timed]
    held = [each > 0 for each in tokens]
    sizes = [int(each.sum()) for each in held]
    seconds = [taken.seconds or 0.0 for taken in timed]
    shares = [s * each[h] / each.sum() for s, each, h in zip(seconds, tokens, held, strict=True)]
    return {
        "run": np.concatenate([taken.runs[h] for taken, h in zip(timed, held, strict=True)]),
        "step": np.repeat([taken.step for taken in timed], sizes), "op": "pass",
        "backend": np.repeat([taken.facts.kernels for taken in timed], sizes).tolist(),
        "isa": np.repeat([taken.facts.isa for taken in timed], sizes).tolist(), "seconds": np.concatenate(shares),
    }  # fmt: skip


_KV = np.asarray(("absent", "compute", "copy-last"))


def _depth(taken: Taken, event: Decided) -> Mapping[str, Any]:
    """One row for every token whose run of a unit was decided or was not a single plain one."""
    visits = event.visits
    names = np.where(
        visits == 0, "skip", np.where(visits > 1, "repeat", "reuse" if event.borrowed else "execute")
    )
    kept = np.where(visits == 0, _KV[event.kv], np.where(visits > 1, event.repeat_kv, ""))
    told = event.told
    return {
        "run": event.tokens.run[told], "step": taken.step, "position": event.tokens.position[told],
        "layer": event.layer, "unit": event.unit, "event": names[told].tolist(),
        "kv": [None if event.unit == "mlp" or not text else text for text in kept[told].tolist()],
    }  # fmt: skip


def _depth_cost(taken: Taken, event: Decided) -> Mapping[str, Any]:
    """How many tokens went through a unit, visits counted, and how many were left out."""
    batch = len(taken.runs)
    held = event.held(batch)
    executed = np.bincount(event.tokens.row, event.visits, batch).astype(np.int64)
    skipped = np.bincount(event.tokens.row, event.visits == 0, batch).astype(np.int64)
    return {
        "run": taken.runs[held], "step": taken.step, "layer": event.layer, "op": event.unit,
        "backend": taken.facts.kernels, "isa": taken.facts.isa, "executed": executed[held], "skipped": skipped[held],
        "masked": np.zeros(held.sum(), dtype=np.int64),
    }  # fmt: skip


def _groups(pieces: Iterable[Piece], key: Callable[[Piece], Hashable]) -> list[Pieces]:
    """Pieces with the same key, which can stand side by side; in the order in which the keys first come."""
    found: dict[Hashable, list[Piece]] = {}
    for piece in pieces:
        found.setdefault(key(piece), []).append(piece)
    return [Pieces(group) for group in found.values()]


def _known_parts(piece: Piece) -> tuple[str, ...]:
    """The fields of a contribution that were kept: its last rows."""
    if "contribution" not in piece.kept:
        return ()
    return Contribution._fields[-piece.kept.values["contribution"].shape[0] :]


def _rule(piece: Piece) -> RoutingRule | None:
    """The rule by which the router's logits are read, where both are known."""
    return None if "logits" not in piece.kept else piece.taken.facts.rule(piece.layer)


def _choice_key(piece: Piece) -> Hashable:
    """What pieces have in common whose choices are read in one go."""
    kept, facts = piece.kept, piece.taken.facts
    asked = (facts.record.routing, facts.record.wants_scores, facts.record.sparsity)
    return kept.slots, facts.experts(piece.layer), _rule(piece), "selection" in kept, "norms" in kept, *asked


def _repeat(cells: Mapping[str, NDArray[Any]], times: int, used: NDArray[np.bool_] | None) -> dict[str, Any]:
    """Each row ``times`` times, those in ``used`` alone."""
    spread = {name: np.repeat(column, times) for name, column in cells.items()}
    return spread if used is None else {name: column[used] for name, column in spread.items()}


def _routing(pieces: Pieces) -> dict[str, Any]:
    ids, weights = pieces.gather("ids"), pieces.gather("weights")
    norm = pieces.fields("norms", NORM)[0] if "norms" in pieces[0].kept else None
    size, k = ids.shape
    empty = ids == NOTHING
    used = ~empty.reshape(-1) if empty.any() else None
    columns = _repeat(pieces.cells, k, used)
    slots = {
        "slot": np.tile(np.arange(k, dtype=np.uint8), size), "expert": ids.reshape(-1),
        "weight": weights.reshape(-1), "rank": _ranks(weights, empty).reshape(-1),
    }  # fmt: skip
    if norm is not None:
        slots["norm"] = norm.reshape(-1)
    slots = slots if used is None else {name: column[used] for name, column in slots.items()}
    slots["expert"] = slots["expert"].astype(np.uint16)
    return columns | slots


def _ranks(weights: NDArray[Any], empty: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The place of every slot by weight [T, k], 0 for the largest; unused slots come last."""
    size, k = weights.shape
    if k == 1 or (not empty.any() and bool((weights[:, 1:] <= weights[:, :-1]).all())):
        return np.broadcast_to(np.arange(k, dtype=np.uint8), (size, k))
    ordered = np.where(empty, np.inf, -weights)
    return np.argsort(np.argsort(ordered, axis=-1, kind="stable"), axis=-1, kind="stable").astype(np.uint8)


def _router(pieces: Pieces) -> dict[str, Any]:
    ids = pieces.gather("ids")
    columns: dict[str, Any] = dict(pieces.cells)
    rule = _rule(pieces[0])
    if rule is not None:
        logits, selection = _logits_and_selection(pieces, rule)
        margin, tie = routing.margins(selection, ids.shape[-1])
        columns["margin"] = known(margin.numpy())
        columns["tie"] = tie.numpy()
        columns["entropy"] = known(routing.entropy(logits, rule.score).numpy())
        if rule.n_group > 1:
            between = routing.group_margins(selection, rule.n_group, rule.topk_group, rule.group)
            columns["group_margin"] = known(between.numpy())
    experts = pieces[0].taken.facts.experts(pieces[0].layer)
    columns["dropped"] = ((ids < 0) | (ids >= experts)).sum(axis=-1).astype(np.uint8)
    edited = _edited(pieces)
    columns["edited"] = edited
    if edited.any():
        columns["native"] = _where_edited(pieces, "native_ids")
        columns["native_weights"] = _where_edited(pieces, "native_weights")
    return columns


def _logits_and_selection(pieces: Pieces, rule: RoutingRule) -> tuple[Tensor, Tensor]:
    logits = torch.from_numpy(pieces.gather("logits"))
    if "selection" not in pieces[0].kept:
        return logits, rule.selection(rule.scores(logits))
    return logits, torch.from_numpy(pieces.gather("selection"))


def _edited(pieces: Pieces) -> NDArray[np.bool_]:
    return np.concatenate([
        p.kept["edited"][p.tokens.at] if "edited" in p.kept else np.zeros(p.tokens.at.size, dtype=bool)
        for p in pieces
    ])  # fmt: skip


def _where_edited(pieces: Pieces, name: str) -> list[Any]:
    """The native ids or weights, by ``name``, of the edited tokens, ``None`` for the others."""
    values: list[Any] = []
    for piece in pieces:
        if "edited" not in piece.kept:
            values.extend([None] * piece.tokens.at.size)
            continue
        rows = piece.kept[name][piece.tokens.at].tolist()
        flags = piece.kept["edited"][piece.tokens.at]
        values.extend(row if flag else None for row, flag in zip(rows, flags, strict=True))
    return values


def _experts(pieces: Pieces) -> Iterator[Rows]:
    """Sums by run, layer and expert over every token, and what the kernel did; the pieces have equally many experts."""
    if any(p.tokens is not p.taken.every_token for p in pieces):
        pieces = Pieces(p._replace(tokens=p.taken.every_token) for p in pieces)
    facts = pieces[0].taken.facts
    experts = facts.experts(pieces[0].layer)
    ids, weights = pieces.gather("ids"), pieces.gather("weights")
    norm = pieces.fields("norms", NORM)[0]
    k = ids.shape[-1]
    # A bin is one run of one piece; its sums stand at bin x experts + expert.
    first = np.cumsum([0, *(len(p.taken.runs) for p in pieces)])
    bins = np.concatenate([start + p.tokens.row for start, p in zip(first, pieces, strict=False)])
    run = np.concatenate([p.taken.runs for p in pieces])
    batch = [len(p.taken.runs) for p in pieces]
    step = np.repeat(np.asarray([p.taken.step for p in pieces], dtype=np.int32), batch)
    layer = np.repeat(np.asarray([p.layer for p in pieces], dtype=np.uint16), batch)
    size = int(first[-1]) * experts
    inside = (ids >= 0) & (ids < experts)
    key = (bins[:, None] * experts + ids)[inside]
    w, v = np.abs(weights[inside]).astype(np.float64), norm[inside].astype(np.float64)
    counts = np.bincount(key, minlength=size)
    used = np.flatnonzero(counts)
    columns: dict[str, Any] = {
        "run": run[used // experts], "step": step[used // experts], "layer": layer[used // experts],
        "expert": (used % experts).astype(np.uint16), "tokens": counts[used],
        "weight_sum": np.bincount(key, w, size)[used], "norm_sum": np.bincount(key, v, size)[used],
        "weighted_norm_sum": np.bincount(key, w * v, size)[used], "norm_max": _largest(key, norm[inside]),
    }  # fmt: skip
    rule = _rule(pieces[0])
    if rule is not None and rule.score in ("softmax", "topk_softmax"):
        p = torch.from_numpy(pieces.gather("logits")).double().softmax(-1).numpy()
        soft = np.zeros((int(first[-1]), experts))
        starts = np.flatnonzero(np.diff(bins, prepend=-1))
        soft[bins[starts]] = np.add.reduceat(p, starts) if len(starts) else 0.0
        columns["soft_sum"] = soft.reshape(-1)[used]
        own = np.take_along_axis(p, np.where(inside, ids, 0), axis=-1)[inside]
        columns["reap_sum"] = np.bincount(key, own * v, size)[used]
    yield "expert_stat", columns
    executed = np.bincount(bins, inside.sum(axis=-1), int(first[-1]))
    asked = np.bincount(bins, minlength=int(first[-1])) * k
    touched = (counts.reshape(-1, experts) > 0).sum(-1)
    yield "cost", {
        "run": run, "step": step, "layer": layer, "op": "moe_experts", "backend": facts.kernels, "isa": facts.isa,
        "executed": executed.astype(np.int64), "skipped": (asked - executed).astype(np.int64),
        "masked": np.zeros_like(executed, dtype=np.int64),
        "seconds": _shared_seconds(pieces, executed, batch), **_expert_work(pieces[0], executed, touched, batch, pieces),
    }  # fmt: skip


def _shared_seconds(pieces: Pieces, executed: NDArray[Any], batch: Sequence[int]) -> NDArray[np.float64]:
    """Seconds of each call of the kernel, which the runs of a batch share by the slots they executed."""
    whole = np.add.reduceat(executed, np.cumsum([0, *batch])[:-1])
    return np.repeat([p.kept.seconds for p in pieces] / np.maximum(whole, 1.0), batch) * executed


def _matrices(piece: Piece) -> int:
    moe = piece.taken.facts.anatomy.layer(piece.layer).moe
    return 2 if moe is not None and not getattr(moe.experts, "has_gate", True) else 3


def _expert_work(
    piece: Piece, executed: NDArray[Any], touched: NDArray[Any], batch: list[int], pieces: Pieces
) -> dict[str, Any]:
    """Floating-point operations and bytes of expert banks: 2 for a multiplication with addition, over the three matrices
    of H x F of each executed slot (two without a gate); the bytes are the weights of the experts touched, read once."""
    matrices = [_matrices(p) for p in pieces]
    mlps = [p.taken.facts.anatomy.layer(p.layer).mlp for p in pieces]
    width = np.repeat([0 if mlp is None else mlp.act_width for mlp in mlps], batch)
    one = np.repeat(matrices, batch) * float(piece.taken.facts.anatomy.hidden_size) * width
    element = next(piece.taken.facts.anatomy.model.parameters()).element_size()
    return {"flops": 2 * one * executed, "bytes": one * touched * element}


def _largest(key: NDArray[np.int64], values: NDArray[Any]) -> NDArray[Any]:
    """The largest of ``values`` for every distinct ``key``, in ascending order of the keys."""
    if not key.size:
        return values
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    return np.maximum.reduceat(values[order], starts)


def _scores(pieces: Pieces) -> dict[str, Any]:
    thinned = Pieces(
        p._replace(tokens=p.tokens.only(sampled(p.taken.facts.record, p.tokens))) for p in pieces
    )
    rule = _rule(pieces[0])
    assert rule is not None
    logits, selection = _logits_and_selection(thinned, rule)
    shares = [float(p.taken.facts.record.scores) for p in thinned]
    return thinned.cells | {
        "scores": selection.float().numpy(),
        "logits": logits.float().numpy(),
        "share": np.repeat(shares, thinned.sizes),
    }


def _contribution(pieces: Pieces) -> dict[str, Any]:
    columns: dict[str, Any] = dict(pieces.cells)
    parts = _known_parts(pieces[0])
    if parts:
        fields = pieces.fields("contribution", slice(-len(parts), None))
        columns |= {name: known(field) for name, field in zip(parts, fields, strict=True)}
    lens = _lens(pieces)
    if not np.isnan(lens).all():
        columns["lens_kl"] = known(lens)
    return columns


def _lens(pieces: Pieces) -> NDArray[Any]:
    """KL of the logit lens of every token, NaN where it was not asked for."""
    return np.concatenate([
        np.full(p.tokens.at.size, np.nan, dtype=np.float32) if "lens_kl" not in p.kept
        else Pieces([p]).gather("lens_kl", 0).astype(np.float32)
        for p in pieces
    ])  # fmt: skip


def _expert_sparsity(pieces: Pieces) -> dict[str, Any]:
    ids, sizes = pieces.gather("ids"), pieces.sizes
    k = ids.shape[-1]
    experts = np.repeat([p.taken.facts.experts(p.layer) for p in pieces], sizes)[:, None]
    ran = ((ids >= 0) & (ids < experts)).reshape(-1)
    widths = [p.taken.facts.anatomy.layer(p.layer).mlp.act_width for p in pieces]  # type: ignore[union-attr]
    width = np.repeat(np.repeat(np.asarray(widths, dtype=np.int32), sizes), k)[ran]
    (l1, l2), (zero, below) = (
        torch.from_numpy(pieces.fields(name, sums).reshape(2, -1)[:, ran])
        for name, sums in (("norms", SUMS), ("tallies", slice(None)))
    )
    found = sparsity.from_sums(torch.from_numpy(width), zero, below, l1, l2)
    thresholds = np.asarray([p.taken.facts.record.threshold for p in pieces], dtype=np.float32)
    return _repeat(pieces.cells, k, ran) | {
        "expert": ids.reshape(-1)[ran].astype(np.int16), "width": width,
        "threshold": np.repeat(np.repeat(thresholds, sizes), k)[ran], **_shares(found),
    }  # fmt: skip


def _dense_sparsity(pieces: Pieces) -> dict[str, Any]:
    sizes = pieces.sizes
    found = sparsity.Sparsity(*(
        torch.from_numpy(pieces.gather(name, 0)) for name in sparsity.Sparsity._fields
    ))  # fmt: skip
    return pieces.cells | {
        "expert": -1, "width": np.repeat(np.asarray([p.kept.width for p in pieces], dtype=np.int32), sizes),
        "threshold": np.repeat(np.asarray([p.taken.facts.record.threshold for p in pieces], dtype=np.float32), sizes),
        **_shares(found),
    }  # fmt: skip


def _shares(found: sparsity.Sparsity) -> dict[str, Any]:
    return {
        "zero_share": found.zero_share.numpy(),
        "below_share": found.below_share.numpy(),
        "hoyer": known(found.hoyer.numpy()),
    }
