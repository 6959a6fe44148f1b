"""Attention over the kept blocks of its map: one program for a block of queries, online softmax, masses in a second pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from routing_kernels.errors import bad_block_rows
from routing_kernels.triton.launch import PRECISION, power


@triton.jit
def scores_of(
    q, k, begin, low, high, keys, depth, k_key, scale, softcap, SOFTCAP: tl.constexpr, BN: tl.constexpr,
    BE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Scores [BM, BN] of a tile of queries against the keys from ``begin`` on; -inf where a key is not seen."""
    key = begin + tl.arange(0, BN)
    column = tl.arange(0, BE)
    part = tl.load(
        k + key.to(tl.int64)[None, :] * k_key + column[:, None],
        mask=(key < keys)[None, :] & (column < depth)[:, None], other=0.0,
    )  # fmt: skip
    score = tl.dot(q, part, input_precision=PRECISION) * scale
    if SOFTCAP:
        score = softcap - 2.0 * softcap / (1.0 + tl.exp(2.0 * score / softcap))
    return tl.where((key[None, :] >= low[:, None]) & (key[None, :] < high[:, None]), score, float("-inf"))


@triton.jit
def attend(
    q, k, v, ptr, col, lengths, starts, sinks, extra, o, sketch, lse, mass, executed,
    q_batch, q_head, q_query, k_batch, k_head, k_key, v_batch, v_head, v_key,
    heads, group, queries, keys, depth, values, extras, rows, kept, window, scale, softcap,
    CAUSAL: tl.constexpr, LENGTHS: tl.constexpr, STARTS: tl.constexpr, SINKS: tl.constexpr, WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr, EXTRA: tl.constexpr, STATS: tl.constexpr, BLOCK: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, BE: tl.constexpr, BD: tl.constexpr, BR: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of queries of one head and row of the batch over the kept blocks of keys of the block that holds it."""
    tile, place = tl.program_id(0), tl.program_id(1)
    number = tile // (BLOCK // BM)
    batch, head = (place // heads).to(tl.int64), (place % heads).to(tl.int64)
    query = tile * BM + tl.arange(0, BM)
    there = query < queries
    position = query + keys - queries
    low = tl.zeros((BM,), dtype=tl.int32)
    high = tl.zeros((BM,), dtype=tl.int32) + keys
    # What a block of queries sees is one stretch of keys; whether a block of keys runs is the same for all its tiles.
    lowest, highest = 0, keys
    first_position = number * BLOCK + keys - queries
    last_position = tl.minimum((number + 1) * BLOCK, queries) - 1 + keys - queries
    if CAUSAL:
        high = tl.minimum(high, position + 1)
        highest = tl.minimum(highest, last_position + 1)
    if WINDOW:
        low = tl.maximum(low, position + 1 - window)
        lowest = tl.maximum(lowest, first_position + 1 - window)
    if LENGTHS:
        length = tl.load(lengths + batch).to(tl.int32)
        high = tl.minimum(high, length)
        highest = tl.minimum(highest, length)
    if STARTS:
        start = tl.load(starts + batch).to(tl.int32)
        low = tl.maximum(low, start)
        lowest = tl.maximum(lowest, start)
    high = tl.where(there, high, 0)
    column = tl.arange(0, BE)
    left = tl.load(
        q + batch * q_batch + head * q_head + query.to(tl.int64)[:, None] * q_query + column[None, :],
        mask=there[:, None] & (column < depth)[None, :], other=0.0,
    )  # fmt: skip
    keys_of = k + batch * k_batch + head // group * k_head
    values_of = v + batch * v_batch + head // group * v_head
    value_column = tl.arange(0, BD)
    extra_column = tl.arange(0, BR)
    most = tl.full((BM,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BM,), dtype=tl.float32)
    if SINKS:
        most = tl.zeros((BM,), dtype=tl.float32) + tl.load(sinks + head)
        total += 1.0
    out = tl.zeros((BM, BD), dtype=tl.float32)
    beside = tl.zeros((BM, BR), dtype=tl.float32)
    ran = 0
    first = tl.load(ptr + head * (rows + 1) + number)
    last = tl.load(ptr + head * (rows + 1) + number + 1)
    for entry in range(first, last):
        block = (tl.load(col + entry) * BLOCK).to(tl.int32)
        if tl.maximum(lowest, block) < tl.minimum(highest, block + BLOCK):
            ran += 1
            for begin in range(block, block + BLOCK, BN):
                score = scores_of(
                    left,
                    keys_of,
                    begin,
                    low,
                    high,
                    keys,
                    depth,
                    k_key,
                    scale,
                    softcap,
                    SOFTCAP,
                    BN,
                    BE,
                    PRECISION,
                )
                now = tl.maximum(most, tl.max(score, 1))
                base = tl.where(now == float("-inf"), 0.0, now)
                weight = tl.exp(score - base[:, None])
                shrink = tl.where(most == float("-inf"), 0.0, tl.exp(most - base))
                total = total * shrink + tl.sum(weight, 1)
                most = now
                key = begin + tl.arange(0, BN)
                seen = key < tl.minimum(keys, highest)
                value = tl.load(
                    values_of + key.to(tl.int64)[:, None] * v_key + value_column[None, :],
                    mask=seen[:, None] & (value_column < values)[None, :], other=0.0,
                )  # fmt: skip
                out = tl.dot(weight.to(value.dtype), value, out * shrink[:, None], input_precision=PRECISION)
                if EXTRA:
                    more = tl.load(
                        extra + key.to(tl.int64)[:, None] * extras + extra_column[None, :],
                        mask=seen[:, None] & (extra_column < extras)[None, :], other=0.0,
                    )  # fmt: skip
                    beside = tl.dot(weight, more, beside * shrink[:, None], input_precision=PRECISION)
    share = tl.where(total == 0.0, 0.0, 1.0 / total)
    row = place.to(tl.int64) * queries + query
    tl.store(
        o + row[:, None] * values + value_column[None, :], (out * share[:, None]).to(o.dtype.element_ty),
        mask=there[:, None] & (value_column < values)[None, :],
    )  # fmt: skip
    if EXTRA:
        tl.store(
            sketch + row[:, None] * extras + extra_column[None, :], beside * share[:, None],
            mask=there[:, None] & (extra_column < extras)[None, :],
        )  # fmt: skip
    if tile % (BLOCK // BM) == 0:
        tl.store(executed + place * rows + number, ran)
    if STATS:
        found = tl.where(total == 0.0, float("-inf"), most + tl.log(tl.where(total == 0.0, 1.0, total)))
        tl.store(lse + row, found, mask=there)
        base = tl.where(total == 0.0, 0.0, found)
        for entry in range(first, last):
            block = (tl.load(col + entry) * BLOCK).to(tl.int32)
            amount = 0.0
            if tl.maximum(lowest, block) < tl.minimum(highest, block + BLOCK):
                for begin in range(block, block + BLOCK, BN):
                    score = scores_of(
                        left,
                        keys_of,
                        begin,
                        low,
                        high,
                        keys,
                        depth,
                        k_key,
                        scale,
                        softcap,
                        SOFTCAP,
                        BN,
                        BE,
                        PRECISION,
                    )
                    amount += tl.sum(tl.sum(tl.exp(score - base[:, None]), 1), 0)
            tl.store(mass + (batch * kept + entry) * (BLOCK // BM) + tile % (BLOCK // BM), amount)


def fused(dtype: torch.dtype) -> bool:
    """Whether extra columns go through beside the values. In float32 they do not fit the registers and take a launch of
    their own, as values."""
    return dtype != torch.float32


def tile_of(block: int, size: int, dtype: torch.dtype) -> dict[str, int]:
    """Queries and keys of a tile, warps and stages, such that nothing spills at this head size (:mod:`aot` holds it)."""
    wide = dtype == torch.float32
    queries, keys = (min(block, 16 if size > 64 else 32), 16) if wide else (min(block, 64), min(block, 32))
    return {"BM": queries, "BN": keys, "num_warps": 8 if wide or size > 64 else 4, "num_stages": 2}


def block_attention(
    q: Tensor, k: Tensor, v: Tensor, ptr: Tensor, col: Tensor, block: int, scale: float, causal: bool,
    lengths: Tensor | None, sinks: Tensor | None, extra: Tensor | None, window: int, softcap: float,
    starts: Tensor | None, stats: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Outputs of the op ``routing_kernels::block_attention``; the arguments are taken as checked, but for the rows.

    Checking the rows reads one number back from the device. Weights are rounded to ``q.dtype`` before they meet the
    values, as tensor cores want them; their sums are float32.
    """
    q, k, v = (t if t.stride(3) == 1 else t.contiguous() for t in (q, k, v))
    ptr, col = ptr.contiguous(), col.contiguous()
    (batch, heads, queries, depth), (kv_heads, keys, values) = q.shape, v.shape[1:]
    rows, device = ptr.shape[1] - 1, q.device
    _check_rows(ptr, col, -(-keys // block))
    sinks, extra = (t if t is None else t.detach().float().contiguous() for t in (sinks, extra))
    extras = 0 if extra is None else extra.shape[1]
    o = torch.empty((batch, heads, queries, values), dtype=q.dtype, device=device)

    def floats(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=device)

    sketch = floats(batch, heads, queries, extras) if extras else floats(0)
    lse = floats(batch, heads, queries) if stats else floats(0)
    tiles = tile_of(block, max(power(depth), power(values)), q.dtype)
    parts = block // tiles["BM"]
    mass = floats(batch, len(col), parts) if stats else floats(0)
    executed = torch.zeros((batch * heads, rows), dtype=torch.int32, device=device)
    none = executed  # a pointer that is never read
    beside = extra if fused(q.dtype) else None

    def launch(value: Tensor, beside: Tensor | None, out: Tensor, stats: bool) -> None:
        size = value.shape[3]
        attend[(rows * parts, batch * heads)](
            q, k, value, ptr, col, none if lengths is None else lengths.contiguous(),
            none if starts is None else starts.contiguous(), none if sinks is None else sinks,
            none if beside is None else beside, out, sketch, lse, mass, executed,
            *q.stride()[:3], *k.stride()[:3], *value.stride()[:3], heads, heads // kv_heads, queries, keys, depth, size,
            extras, rows, len(col), window, scale, softcap, CAUSAL=causal, LENGTHS=lengths is not None,
            STARTS=starts is not None, SINKS=sinks is not None, WINDOW=window > 0, SOFTCAP=softcap > 0,
            EXTRA=beside is not None, STATS=stats, BLOCK=block, BE=power(depth), BD=power(size), BR=power(extras),
            PRECISION=PRECISION, **tiles,
        )  # fmt: skip

    if rows and batch:
        launch(v, beside, o, stats)
        if extra is not None and beside is None:
            launch(extra.expand(batch, kv_heads, keys, extras), None, sketch, False)
    return o, sketch, lse, mass.sum(-1) if stats else mass, executed.sum()


def _check_rows(ptr: Tensor, col: Tensor, columns: int) -> None:
    """Each row starts where the one before ends, and its blocks ascend within the map."""
    starts, ends = ptr[:, :-1].flatten(), ptr[:, 1:].flatten()
    before = torch.cat([ends.new_zeros(1), ends])
    wrong = (starts != before[:-1]).any() | (ends < starts).any() | (before[-1] != len(col))
    wrong |= ((col < 0) | (col >= columns)).any()
    # A step down is only allowed where a row begins.
    down = torch.where(col[1:] <= col[:-1])[0] + 1 if len(col) > 1 else col.new_zeros(0)
    wrong |= ~torch.isin(down, starts).all()
    if bool(wrong):
        raise bad_block_rows()
