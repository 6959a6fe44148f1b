"""Calls the C gather and scatter on tensors."""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from routing_kernels.cpu import loader

CALL = struct.Struct("=7Q5q")  # rk_rows_call: seven pointers, five integers


def gather_rows(x: Tensor, ids: Tensor, stats: bool, isa: str) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs of the op ``routing_kernels::gather_rows``; the arguments are taken as checked."""
    y = x.new_empty((len(ids), x.shape[1]))
    return _call("gather_rows", x, None, ids, None, y, len(x), stats, isa)


def scatter_add_rows(
    base: Tensor, rows: Tensor, ids: Tensor, weights: Tensor | None, stats: bool, isa: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs of the op ``routing_kernels::scatter_add_rows``; the arguments are taken as checked."""
    y = base.new_empty(base.shape)
    return _call("scatter_add_rows", rows, base, ids, weights, y, len(base), stats, isa)


def _call(
    name: str,
    x: Tensor,
    base: Tensor | None,
    ids: Tensor,
    weights: Tensor | None,
    y: Tensor,
    height: int,
    stats: bool,
    isa: str,
) -> tuple[Tensor, Tensor, Tensor]:
    x, ids = x.contiguous(), ids.contiguous()
    base = base if base is None else base.contiguous()
    weights = weights if weights is None else weights.float().contiguous()
    norms = x.new_empty(len(ids) if stats else 0, dtype=torch.float32)
    dropped = ids.new_empty(())
    record = CALL.pack(
        x.data_ptr(),
        0 if base is None else base.data_ptr(),
        ids.data_ptr(),
        0 if weights is None else weights.data_ptr(),
        y.data_ptr(),
        norms.data_ptr() if stats else 0,
        dropped.data_ptr(),
        height,
        len(ids),
        x.shape[1],
        loader.DTYPES[x.dtype],
        torch.get_num_threads(),
    )
    loader.call(name, isa, record)
    return y, dropped, norms
