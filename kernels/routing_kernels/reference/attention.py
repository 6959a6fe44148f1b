"""Block-sparse attention in plain torch, as a dense map with zeros, and its gradient, which every backend shares."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from routing_kernels.errors import bad_block_rows
from routing_kernels.reference.moe import accumulator


def kept_blocks(ptr: Tensor, col: Tensor, columns: int) -> Tensor:
    """Rows of blocks as a mask [N, query blocks, columns], checked."""
    heads, rows = ptr.shape[0], ptr.shape[1] - 1
    kept = torch.zeros((heads, rows, columns), dtype=torch.bool, device=ptr.device)
    at, edges, blocks = 0, ptr.tolist(), col.tolist()
    for head in range(heads):
        for row in range(rows):
            first, last = edges[head][row : row + 2]
            mine = blocks[first:last]
            if first != at or not first <= last <= len(blocks) or mine != sorted(set(mine)):
                raise bad_block_rows()
            if mine and not 0 <= mine[0] <= mine[-1] < columns:
                raise bad_block_rows()
            kept[head, row, mine] = True
            at = last
    if at != len(blocks):
        raise bad_block_rows()
    return kept


def _probabilities(
    q: Tensor,
    k: Tensor,
    ptr: Tensor,
    col: Tensor,
    block: int,
    scale: float,
    causal: bool,
    lengths: Tensor | None,
    sinks: Tensor | None,
    window: int,
    softcap: float,
    starts: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Probabilities [B, N, Q, K], lse [B, N, Q], the slope of the softcap (a factor of each score's gradient), what is
    seen [B, N, Q, K], and the kept blocks; ``k`` has a head for each of ``q``."""
    (batch, heads, queries, _), keys = q.shape, k.shape[2]
    blocks = kept_blocks(ptr, col, -(-keys // block))
    seen = blocks.repeat_interleave(block, 1).repeat_interleave(block, 2)[:, :queries, :keys]
    seen = seen.expand(batch, heads, queries, keys)
    key = torch.arange(keys, device=q.device)
    position = torch.arange(queries, device=q.device)[:, None] + keys - queries
    if causal:
        seen = seen & (key <= position)
    if window:
        seen = seen & (key > position - window)
    if lengths is not None:
        seen = seen & (key < lengths[:, None, None, None])
    if starts is not None:
        seen = seen & (key >= starts[:, None, None, None])
    scores = q @ k.mT * scale
    slope = torch.ones_like(scores)
    if softcap:
        squashed = torch.tanh(scores / softcap)
        scores, slope = squashed * softcap, 1 - squashed.square()
    scores = scores.masked_fill(~seen, -torch.inf)
    joined = scores if sinks is None else torch.cat([scores, _sink_column(sinks, scores)], dim=-1)
    lse = torch.logsumexp(joined, dim=-1) if joined.shape[-1] else scores.new_full(q.shape[:3], -torch.inf)
    return torch.where(seen, torch.exp(scores - lse[..., None]), 0), lse, slope, seen, blocks


def _sink_column(sinks: Tensor, scores: Tensor) -> Tensor:
    return sinks.to(scores.dtype)[:, None, None].expand(*scores.shape[:3], 1)


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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Outputs of the op ``routing_kernels::block_attention``; arguments are taken as checked, but for the rows.

    Intermediate values are float32, or float64 where ``q`` is, and are rounded to ``q.dtype`` once, at the end.
    """
    exact, group = accumulator(q.dtype), q.shape[1] // k.shape[1]
    wide_k, wide_v = (t.to(exact).repeat_interleave(group, 1) for t in (k, v))
    p, lse, _, seen, blocks = _probabilities(
        q.to(exact), wide_k, ptr, col, block, scale, causal, lengths, sinks, window, softcap, starts
    )
    o = (p @ wide_v).to(q.dtype).contiguous()
    nothing = [
        q.new_empty(0, dtype=torch.float32) for _ in range(3)
    ]  # three: an op's outputs share no memory
    sketch = nothing[0] if extra is None else (p @ extra.to(exact)).float()
    executed = _in_blocks(seen.long(), blocks, block).count_nonzero()
    if not stats:
        return o, sketch, nothing[1], nothing[2], executed
    return o, sketch, lse.float(), _in_blocks(p, blocks, block)[:, blocks].float(), executed


def _in_blocks(values: Tensor, blocks: Tensor, block: int) -> Tensor:
    """Sums over each block of [B, N, Q, K]: [B, N, query blocks, key blocks]."""
    rows, columns = blocks.shape[1:]
    padded = F.pad(values, (0, columns * block - values.shape[3], 0, rows * block - values.shape[2]))
    return padded.unflatten(3, (columns, block)).unflatten(2, (rows, block)).sum((3, 5))


def block_attention_backward(
    grad: Tensor,
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
    window: int,
    softcap: float,
    starts: Tensor | None,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``q``, ``k``, ``v`` and ``sinks`` from the gradient of ``o``, from the whole map made again.

    ``needs`` says which of the four are wanted; the others come back with zero size. With P the probabilities:
    dV = P^T dO, dP = dO V^T, dS = P * (dP - rowsum(dO * O)) times the slope of the softcap, dQ = scale dS K,
    dK = scale dS^T Q; a sink's own share has dP = 0. Sums are float32 (float64 where ``q`` is).
    """
    exact, kv_heads = accumulator(q.dtype), k.shape[1]
    group = q.shape[1] // kv_heads
    wide_q, grad_o = q.to(exact), grad.to(exact)
    wide_k, wide_v = (t.to(exact).repeat_interleave(group, 1) for t in (k, v))
    p, lse, slope, *_ = _probabilities(
        wide_q, wide_k, ptr, col, block, scale, causal, lengths, sinks, window, softcap, starts
    )
    grad_p = grad_o @ wide_v.mT
    common = (p * grad_p).sum(-1, keepdim=True)  # = rowsum(dO * O)
    grad_scores = p * (grad_p - common) * slope * scale

    def grouped(of_heads: Tensor) -> Tensor:
        return of_heads.unflatten(1, (kv_heads, group)).sum(2)

    nothing = [q.new_empty(0) for _ in range(4)]
    grad_q = (grad_scores @ wide_k).to(q.dtype) if needs[0] else nothing[0]
    grad_k = grouped(grad_scores.mT @ wide_q).to(q.dtype) if needs[1] else nothing[1]
    grad_v = grouped(p.mT @ grad_o).to(q.dtype) if needs[2] else nothing[2]
    if not needs[3] or sinks is None:
        return grad_q, grad_k, grad_v, nothing[3]
    share = torch.exp(_sink_column(sinks, p) - lse[..., None])
    return grad_q, grad_k, grad_v, -(share * common).sum((0, 2, 3)).to(sinks.dtype)
