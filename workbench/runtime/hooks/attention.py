"""Hooks at the attention: maps are kept, sampled and ranked as they pass."""

from __future__ import annotations

from functools import lru_cache, partial

import torch
from torch import Tensor

from workbench.anatomy import Block
from workbench.runtime.attach import AttentionCall, AttentionSink, askers_of
from workbench.runtime.capture import AttentionSample, RowRanks
from workbench.runtime.held import Held
from workbench.runtime.hooks.mounts import Mounts
from workbench.runtime.hooks.scene import Scene
from workbench.runtime.record import Record
from workbench.signals import attention_rank, rank_sketch
from workbench.signals.rank_kernel import kernel_sketch
from workbench.signals.rank_sketch import Sketch

SKETCH_BUDGET = 2**22
"""Elements of attention maps that a sketch forms at a time."""

CHECKED = 128
"""Tokens of the map on which a sketch is held to an SVD."""


def hook_attention(block: Block, sink: AttentionSink, mounts: Mounts) -> None:
    """Let ``sink`` see every call of the attention of ``block``."""
    assert block.attention is not None
    askers = askers_of(block.attention.module)
    mounts.during(partial(askers.append, sink), partial(askers.remove, sink))


def keep_attention(scene: Scene, layer: int) -> AttentionSink:
    """Keep the mean attention map of ``layer`` for edits that weigh tokens by it."""

    def keep(call: AttentionCall) -> None:
        maps = attention_rank.attention_map(
            call.query, call.key, call.scale, call.mask, softcap=call.softcap, sinks=call.sinks
        )
        scene.captures[layer].attended = maps.mean(dim=1)

    return keep


def sample_attention(scene: Scene, layer: int, record: Record) -> AttentionSink:
    """Keep what the attention maps of ``layer`` are made of, in passes that read more than one token, for their ranks."""

    def read(call: AttentionCall) -> None:
        size = call.query.shape[2]
        if size < 2 or size != call.key.shape[2]:
            return
        capture = scene.captures[layer]
        for row, length in enumerate(scene.now.sizes):
            if length < 2:
                continue
            if record.attention_rank or record.attention_map:
                capture.attention.append(_sample(scene, call, row, length, record.rank_tokens, layer))
            if record.rank_sketch is not None:
                backend = "" if scene.attachment.kernels == "model" else scene.attachment.ops
                capture.ranks.append(_sketch(call, row, length, record.rank_sketch, layer, backend))

    return read


def _sample(
    scene: Scene, call: AttentionCall, row: int, length: int, limit: int, layer: int
) -> AttentionSample:
    """Copies of what the map of one run is made of: the queries of sampled tokens, and the keys they may look at."""
    rows, placed, last, causal = _chosen(length, limit, layer, call.query.device)
    query, key = call.query[row].transpose(0, 1), call.key[row].transpose(0, 1)
    query = query[:length] if placed is None else query.index_select(0, placed)
    hold = scene.arena.hold
    mask: Held
    if call.mask is None:
        mask, keys = causal, last + 1
    else:
        whole = call.mask[min(row, call.mask.shape[0] - 1), ..., :length]
        seen, keys = (whole[:, :length] if placed is None else whole[:, placed]), length
        mask = seen if seen.is_cpu else hold(seen, "mask")
    return AttentionSample(
        row, hold(query, "query"), hold(key[:keys], "key"), mask, rows, length, call.scale, call.softcap,
        None if call.sinks is None else hold(call.sinks, "sinks"),
    )  # fmt: skip


def _sketch(call: AttentionCall, row: int, length: int, width: int, layer: int, backend: str) -> RowRanks:
    """The sketch of the whole maps of one run, now; held to the SVD of a principal submatrix.

    It is made by the attention kernel where that knows the mask, else from rows of the map, a few at a time.
    """
    query, key = call.query[row, :, :length], call.key[row, :, :length]
    mask = None if call.mask is None else call.mask[min(row, call.mask.shape[0] - 1), :, :length, :length]
    width = min(width, length)
    rule = call.rule if backend and call.softcap is None else None
    if rule is not None and rule.causal and rule.starts is None:
        method = "kernel sketch"
        found = kernel_sketch(
            query,
            key,
            call.scale,
            window=rule.window,
            sinks=call.sinks,
            width=width,
            seed=layer,
            backend=backend,
        )
    else:
        method = "sketch"
        rows = rank_sketch.blocks(
            query, key, call.scale, mask, softcap=call.softcap, sinks=call.sinks, budget=SKETCH_BUDGET
        )
        found = rank_sketch.sketch(rows, query.shape[0], length, width, seed=layer)
    at = attention_rank.sample(length, CHECKED, seed=layer)
    chosen = torch.arange(length, device=query.device) if at is None else at.to(query.device)
    allowed = None if mask is None else mask[:, chosen][..., chosen].unsqueeze(0)
    # A submatrix of the softmaxed map would need whole rows; the map among the sampled tokens alone has the same make.
    small = attention_rank.attention_map(
        query[None, :, chosen],
        key[None, :, chosen],
        call.scale,
        allowed,
        softcap=call.softcap,
        sinks=call.sinks,
    )[0].cpu()
    exact = attention_rank.ranks(small).stable_rank
    sketched = rank_sketch.of_map(small, min(width, len(chosen)), seed=layer).stable_rank
    error = float(((sketched - exact).abs() / exact.clamp(min=1e-12)).max())
    none = torch.full_like(exact, torch.nan)
    found = Sketch(*(value.cpu() for value in found))
    ranks = attention_rank.Ranks(none, found.stable_rank, found.participation, found.entropy)
    return RowRanks(row, ranks, length, length, "full", f"{method} {width}", "float32", error)


@lru_cache(maxsize=256)
def _chosen(
    length: int, limit: int, layer: int, device: torch.device
) -> tuple[Tensor | None, Tensor | None, int, Tensor]:
    """The sampled positions (``None``: all), the same on ``device``, the last of them, and what a causal mask
    [1, R, last + 1] lets them see."""
    rows = attention_rank.sample(length, limit, seed=layer)
    at = torch.arange(length) if rows is None else rows
    last = int(at[-1])
    placed = None if rows is None else rows.to(device)
    return rows, placed, last, (torch.arange(last + 1) <= at[:, None]).unsqueeze(0)
