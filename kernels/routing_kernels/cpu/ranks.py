"""Calls the C ranks of attention maps on tensors."""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from routing_kernels.cpu import loader

CALL = struct.Struct("=3Q5qd")  # rk_ranks_call: three pointers, five integers, one double
ROWS = 4


def map_ranks(maps: Tensor, columns: Tensor, tolerance: float, isa: str) -> Tensor:
    """Output [4, M] of the op ``routing_kernels::map_ranks``; the arguments are taken as checked."""
    maps, columns = maps.contiguous(), columns.contiguous()
    count, rows, width = maps.shape
    out = torch.empty((ROWS, count))
    record = CALL.pack(
        maps.data_ptr(), columns.data_ptr() if columns.numel() else 0, out.data_ptr(),
        count, rows, width, count // max(len(columns), 1), torch.get_num_threads(), tolerance,
    )  # fmt: skip
    loader.call("map_ranks", isa, record)
    return out
