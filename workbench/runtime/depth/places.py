"""Taken tokens and their entries put back at their places among all tokens of a pass."""

from __future__ import annotations

import torch
from routing_kernels import scatter_add_rows
from torch import Tensor

from workbench.anatomy import Attention
from workbench.runtime.depth.kv import Slot, Store


def put_back(base: Tensor, out: Tensor, index: Tensor, valid: Tensor, gate: Tensor | None) -> Tensor:
    """``base`` [B, S, H] with the tokens ``index`` replaced by ``out`` [B, K, H]; with a gate, moved towards it by that
    share."""
    rows, size, width = base.shape
    flat = (index + torch.arange(rows, device=index.device).unsqueeze(-1) * size).reshape(-1)
    named = torch.where(valid.reshape(-1), flat, -1)
    base_rows = base.reshape(rows * size, width)
    if gate is not None:
        change = (out - base.gather(1, index.unsqueeze(-1).expand_as(out))).reshape(-1, width)
        return scatter_add_rows(base_rows, change, named, gate.reshape(-1)).y.reshape(base.shape)
    kept = valid.reshape(-1)
    return base_rows.index_copy(0, flat[kept], out.reshape(-1, width)[kept].to(base.dtype)).reshape(
        base.shape
    )


def spread(
    keys: Tensor, values: Tensor, index: Tensor, valid: Tensor, wanted: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Entries [B, M, K, D] of the tokens ``index`` at their places among all tokens [B, S] of the pass."""
    size = wanted.shape[1]
    target = torch.where(valid, index, size)
    spread = []
    for part in (keys, values):
        rows, heads, _, width = part.shape
        at = target[:, None, :, None].expand(rows, heads, -1, width)
        spread.append(part.new_zeros(rows, heads, size + 1, width).scatter(2, at, part)[:, :, :-1])
    return spread[0], spread[1], wanted


def leave_empty(store: Store, attention: Attention, hidden: Tensor) -> None:
    """Placeholders for every token of the pass."""
    if isinstance(store, Slot):
        store.leave_empty(hidden.shape[0], attention.num_kv_heads, attention.head_dim, hidden)
        return
    blank = hidden.new_zeros(hidden.shape[0], attention.num_kv_heads, store.size, attention.head_dim)
    store.put(blank, blank, torch.zeros(hidden.shape[0], store.size, dtype=torch.bool, device=hidden.device))
