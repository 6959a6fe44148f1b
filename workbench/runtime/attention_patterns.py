"""Which blocks of an attention map a mask keeps: static patterns, estimators of block mass, and their controls.

Blocks are counted from the first position for queries and keys alike. An estimator gives every block that a block of
queries can see a score; the best are kept, with the diagonal and the sinks among them.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from workbench.interventions.mask import AttentionMask
from workbench.interventions.mask.attention import STATIC
from workbench.runtime.attach import AttentionCall
from workbench.runtime.attach.block_calls import visible
from workbench.runtime.depth.decide import uniform
from workbench.signals import attention_rank


def kept_blocks(edit: AttentionMask, call: AttentionCall, layer: int) -> Tensor:
    """The kept blocks [N, query blocks, key blocks] (bool) of a ``call`` of one row; heads out of scope keep all."""
    first, rows, columns = call.grid(edit.block)
    heads = call.query.shape[1]
    seen = visible(call, edit.block)[0]
    if edit.pattern in ("window", "strided", "explicit"):
        kept = static_blocks(edit, heads, layer, first, rows, columns, call.query.device)
    else:
        always = _always(edit, first, rows, columns, call.query.device) & seen
        kept = _best(edit, _scores(edit, call, layer, seen), seen, always)
    return of_heads(edit, kept)


def static_blocks(
    edit: AttentionMask, heads: int, layer: int, first: int, rows: int, columns: int, device: torch.device
) -> Tensor:
    """The kept blocks [N, rows, columns] of a pattern that depends on positions alone; query blocks from ``first`` on."""
    query = torch.arange(first, first + rows, device=device)[:, None]
    key = torch.arange(columns, device=device)[None, :]
    always = _always(edit, first, rows, columns, device)
    if edit.pattern == "window":
        assert edit.window is not None
        kept = (key + 1) * edit.block > query * edit.block - edit.window
    elif edit.pattern == "strided":
        assert edit.stride is not None
        kept = (key % edit.stride == 0).expand(rows, columns)
    elif edit.pattern == "explicit":
        kept = torch.zeros(rows, columns, dtype=torch.bool, device=device)
        for q, k in edit.blocks or ():
            if first <= q < first + rows and k < columns:
                kept[q - first, k] = True
    else:
        seen = key <= query
        return _best(edit, _random(edit, heads, layer, first, rows, columns, device), seen, always & seen)
    return (kept | always).expand(heads, rows, columns)


def of_heads(edit: AttentionMask, kept: Tensor) -> Tensor:
    """``kept`` for the heads of the edit, everything for the others."""
    if edit.heads is None:
        return kept
    others = torch.ones(kept.shape[0], dtype=torch.bool, device=kept.device)
    others[list(edit.heads)] = False
    return kept | others[:, None, None]


def is_static(edit: AttentionMask) -> bool:
    """Whether the kept blocks depend on positions alone."""
    return edit.pattern in STATIC


def _always(edit: AttentionMask, first: int, rows: int, columns: int, device: torch.device) -> Tensor:
    query = torch.arange(first, first + rows, device=device)[:, None]
    key = torch.arange(columns, device=device)[None, :]
    return (key == query) | (key * edit.block < edit.sinks)


def _best(edit: AttentionMask, scores: Tensor, seen: Tensor, always: Tensor) -> Tensor:
    """The blocks with the best ``scores`` [N, rows, columns] among those ``seen``: a share, or up to a mass."""
    scores = scores.masked_fill(~seen, -torch.inf)
    order = scores.masked_fill(always, torch.inf).argsort(dim=-1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        -1, order, torch.arange(order.shape[-1], device=order.device).expand_as(order)
    )
    if edit.keep is not None:
        count = torch.maximum((seen.sum(-1) * edit.keep).ceil().long(), always.sum(-1))
        return (rank < count[:, None]) & seen
    assert edit.mass is not None
    share = scores.clamp(min=0).masked_fill(~seen, 0.0)
    share = share / share.sum(-1, keepdim=True).clamp(min=1e-30)
    before = share.gather(-1, order).cumsum(-1) - share.gather(-1, order)
    needed = torch.zeros_like(seen.expand_as(order)).scatter(-1, order, before < edit.mass)
    return (needed | always) & seen


def _scores(edit: AttentionMask, call: AttentionCall, layer: int, seen: Tensor) -> Tensor:
    if edit.pattern == "pooled":
        return _pooled(edit, call, seen)
    if edit.pattern == "clusters":
        return _clustered(edit, call)
    if edit.pattern == "random":
        first, rows, columns = call.grid(edit.block)
        return _random(edit, call.query.shape[1], layer, first, rows, columns, call.query.device)
    if edit.pattern == "vertical-slash":
        return _vertical_slash(edit, call)
    if edit.pattern == "hierarchical":
        return _hierarchical(edit, call, seen)
    dims = None
    if edit.pattern == "channels":
        assert edit.channels is not None
        dims = min(edit.channels, call.query.shape[-1])
    return _mass(edit, call, dims)


def _random(
    edit: AttentionMask, heads: int, layer: int, first: int, rows: int, columns: int, device: torch.device
) -> Tensor:
    query = torch.arange(first, first + rows, device=device)[None, :, None]
    key = torch.arange(columns, device=device)[None, None, :]
    head = torch.arange(heads, device=device)[:, None, None]
    return uniform(edit.seed, layer, (head * 65536 + query) * 65536 + key)


def _block_sums(values: Tensor, first: int, block: int, count: int) -> Tensor:
    """Sums of ``values`` [N, T, ...] over blocks of tokens, the first of which stands at position ``first``."""
    at = (torch.arange(values.shape[1], device=values.device) + first) // block - first // block
    return values.new_zeros(values.shape[0], count, *values.shape[2:]).index_add_(1, at, values)


def _means(call: AttentionCall, block: int) -> tuple[Tensor, Tensor]:
    """Mean query [N, query blocks, D] and mean key [N, key blocks, D] of each block."""
    _, rows, columns = call.grid(block)
    heads = call.query.shape[1]
    query, key = call.query[0].float(), call.key[0].float().repeat_interleave(heads // call.key.shape[1], 0)
    found = []
    for values, first, count in ((query, call.first_query, rows), (key, 0, columns)):
        ones = values.new_ones(1, values.shape[1], 1)
        found.append(_block_sums(values, first, block, count) / _block_sums(ones, first, block, count))
    return found[0], found[1]


def _pooled(edit: AttentionMask, call: AttentionCall, seen: Tensor) -> Tensor:
    query, key = _means(call, edit.block)
    return ((query @ key.transpose(1, 2)) * call.scale).masked_fill(~seen, -torch.inf).softmax(-1)


def _clustered(edit: AttentionMask, call: AttentionCall) -> Tensor:
    """Similarity of every block of keys to the centre that a block of queries is nearest to."""
    assert edit.clusters is not None
    query, key = _means(call, edit.block)
    key = torch.nn.functional.normalize(key, dim=-1)
    count = min(edit.clusters, key.shape[1])
    centres = key[:, torch.linspace(0, key.shape[1] - 1, count).round().long()]
    for _ in range(8):
        nearest = (key @ centres.transpose(1, 2)).argmax(-1)
        members = torch.nn.functional.one_hot(nearest, count).float()
        sums = members.transpose(1, 2) @ key
        centres = torch.where(
            members.sum(1)[..., None] > 0, torch.nn.functional.normalize(sums, dim=-1), centres
        )
    mine = (query @ centres.transpose(1, 2)).argmax(-1)
    return centres.gather(1, mine[..., None].expand(-1, -1, centres.shape[-1])) @ key.transpose(1, 2)


def _hierarchical(edit: AttentionMask, call: AttentionCall, seen: Tensor) -> Tensor:
    """The scores of the blocks that the search of each block of queries ends at; all others stand below them."""
    assert edit.keep is not None
    query, _ = _means(call, edit.block)
    key = call.key[0].float().repeat_interleave(query.shape[0] // call.key.shape[1], 0)
    scores = query.new_full((*query.shape[:2], seen.shape[-1]), torch.finfo(torch.float32).min)
    for row in range(query.shape[1]):
        visible = seen[row].nonzero().squeeze(-1)
        found, score = _search(edit, query[:, row], key, int(visible[0]), len(visible))
        scores[:, row] = scores[:, row].scatter(-1, found, score)
    return scores


def _search(edit: AttentionMask, query: Tensor, key: Tensor, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Blocks and their scores [N, kept] for one block of queries [N, D] among ``count`` blocks from ``first`` on."""
    keep = math.ceil(count * (edit.keep or 0.0))
    edges = torch.linspace(0, count, min(2 * keep, count) + 1, device=query.device).round().long() + first
    start, stop = (part.expand(len(query), -1) for part in (edges[:-1], edges[1:]))
    while True:
        middle = ((start + stop) * edit.block // 2).clamp(max=key.shape[1] - 1)
        shown = key.gather(1, middle.unsqueeze(-1).expand(-1, -1, key.shape[-1]))
        score = (shown @ query.unsqueeze(-1)).squeeze(-1).masked_fill(stop <= start, -torch.inf)
        best = score.topk(min(keep, score.shape[1]), dim=-1).indices
        start, stop, score = (part.gather(1, best) for part in (start, stop, score))
        if bool((stop - start <= 1).all()):
            return start, score
        half = (start + stop + 1) // 2
        start, stop = torch.cat([start, half], dim=1), torch.cat([half, stop], dim=1)


def _map(call: AttentionCall, rows: Tensor | None = None) -> Tensor:
    return attention_rank.attention_map(
        call.query, call.key, call.scale, call.mask, rows, softcap=call.softcap, sinks=call.sinks
    )[0]


def _vertical_slash(edit: AttentionMask, call: AttentionCall) -> Tensor:
    """Mean attention of the last queries to a block's column and along its diagonal."""
    first, rows, columns = call.grid(edit.block)
    last = min(edit.last, call.queries)
    attention = _map(call)[:, -last:].float()
    heads = attention.shape[0]
    vertical = _block_sums(attention.sum(1), 0, edit.block, columns)
    query = torch.arange(call.keys - last, call.keys, device=attention.device)[:, None]
    key = torch.arange(call.keys, device=attention.device)[None, :]
    offset = ((query - key).clamp(min=0) // edit.block).reshape(-1)
    slash = attention.new_zeros(heads, columns).index_add_(1, offset, attention.reshape(heads, -1))
    distance = torch.arange(first, first + rows, device=attention.device)[:, None] - torch.arange(
        columns, device=attention.device
    )
    return vertical[:, None, :] + slash[:, distance.clamp(min=0)]


def _mass(edit: AttentionMask, call: AttentionCall, dims: int | None) -> Tensor:
    """Mass of every block: exact, or from the scores of the ``dims`` head dimensions with the largest ``|q k|``."""
    first, rows, columns = call.grid(edit.block)
    attention = _map(call if dims is None else _narrow(call, dims)).float()
    by_query = _block_sums(attention, call.first_query, edit.block, rows)
    return _block_sums(by_query.transpose(1, 2), 0, edit.block, columns).transpose(1, 2)


def _narrow(call: AttentionCall, dims: int) -> AttentionCall:
    query = call.query.float()
    key = call.key.float().repeat_interleave(query.shape[1] // call.key.shape[1], 1)
    weight = (query.abs().mean(2) * key.abs().mean(2))[0]
    at = weight.topk(dims, dim=-1).indices[None, :, None, :]
    return replace(
        call,
        query=query.gather(-1, at.expand(*query.shape[:3], -1)),
        key=key.gather(-1, at.expand(*key.shape[:3], -1)),
    )
