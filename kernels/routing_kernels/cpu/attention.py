"""Calls the C block-sparse attention on tensors."""

from __future__ import annotations

import struct

import torch
import torch.nn.functional as F
from torch import Tensor

from routing_kernels.cpu import loader
from routing_kernels.errors import bad_block_rows

CALL = struct.Struct("=14Q23q2d")  # rk_attention_call: fourteen pointers, twenty-three integers, two doubles


def block_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ptr: Tensor,
    col: Tensor,
    block: int,
    scale: float,
    causal: bool,
    lengths: Tensor | None,
    sinks: Tensor | None,
    extra: Tensor | None,
    window: int,
    softcap: float,
    starts: Tensor | None,
    stats: bool,
    isa: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Outputs of the op ``routing_kernels::block_attention``; the arguments are taken as checked, but for the rows."""
    q, k, v = (t if t.stride(3) == 1 else t.contiguous() for t in (q, k, v))
    ptr, col = ptr.contiguous(), col.contiguous()
    starts, lengths = (t if t is None else t.contiguous() for t in (starts, lengths))
    sinks, extra = (t if t is None else t.detach().float().contiguous() for t in (sinks, extra))
    (batch, heads, queries, depth), (kv_heads, keys, values) = q.shape, v.shape[1:]
    extras = 0 if extra is None else extra.shape[1]
    o = q.new_empty((batch, heads, queries, values))
    sketch = q.new_empty((batch, heads, queries, extras) if extras else 0, dtype=torch.float32)
    lse = q.new_empty((batch, heads, queries) if stats else 0, dtype=torch.float32)
    mass = q.new_empty((batch, len(col)) if stats else 0, dtype=torch.float32)
    executed = col.new_empty(())
    record = CALL.pack(
        q.data_ptr(),
        k.data_ptr(),
        v.data_ptr(),
        ptr.data_ptr(),
        col.data_ptr(),
        *(0 if t is None else t.data_ptr() for t in (starts, lengths, sinks, extra)),
        o.data_ptr(),
        sketch.data_ptr(),
        lse.data_ptr() if stats else 0,
        mass.data_ptr() if stats else 0,
        executed.data_ptr(),
        batch,
        heads,
        kv_heads,
        queries,
        keys,
        depth,
        values,
        extras,
        len(col),
        block,
        causal,
        window,
        *q.stride()[:3],
        *k.stride()[:3],
        *v.stride()[:3],
        loader.DTYPES[q.dtype],
        torch.get_num_threads(),
        scale,
        softcap,
    )
    if loader.call("block_rows", isa, record):
        raise bad_block_rows()
    # Where nothing is masked but by causality, torch's dense kernel is the faster one, unless ours has the long vectors.
    # It says neither lse nor masses; for those ours runs beside it, so that o has the same bits with statistics. Heads that
    # keep no block are left out of it, so that the others have the same bits without them.
    plain = all(t is None for t in (lengths, sinks, extra, starts)) and not window and not softcap
    live: Tensor | None = None
    # With values of another width torch's dense kernel forms the whole map.
    dense = (
        plain and loader.BENEATH.get(isa, isa) != "avx512" and values == depth and q.dtype == torch.float32
    )
    if dense and (queries == keys or not causal):
        blocks, columns = -(-queries // block), -(-keys // block)
        each = batch * (blocks * (blocks + 1) // 2 if causal else blocks * columns)
        live = _whole_heads(ptr, executed, each)
    if stats or live is None:
        loader.call("block_attention", isa, record)
    if live is not None:
        o = _dense(q, k, v, live, causal, scale)
    return o.contiguous(), sketch, lse, mass, executed


def _whole_heads(ptr: Tensor, executed: Tensor, each: int) -> Tensor | None:
    """The heads that keep any block, if they keep all of ``each`` that can be seen; else ``None``."""
    live = (ptr[:, -1] > ptr[:, 0]).nonzero().squeeze(1)
    return live if len(live) and executed.item() == each * len(live) else None


def _dense(q: Tensor, k: Tensor, v: Tensor, live: Tensor, causal: bool, scale: float) -> Tensor:
    """Torch's dense attention of the ``live`` heads, and zeros for the others."""
    heads, kv_heads = q.shape[1], k.shape[1]
    if len(live) == heads:
        return F.scaled_dot_product_attention(
            q, k, v, is_causal=causal, scale=scale, enable_gqa=heads != kv_heads
        )
    read = live // (heads // kv_heads)
    some = F.scaled_dot_product_attention(q[:, live], k[:, read], v[:, read], is_causal=causal, scale=scale)
    return some.new_zeros((*q.shape[:3], v.shape[3])).index_copy_(1, live, some)
