"""Calls the C product with masked weights on tensors."""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from routing_kernels.cpu import loader
from routing_kernels.errors import bad_masked_weight

CALL = struct.Struct("=5Q7q")  # rk_masked_call: five pointers, seven integers
SPARE = 16  # values that may be read past the last


def masked_matmul(x: Tensor, values: Tensor, bits: Tensor, start: Tensor, isa: str) -> Tensor:
    """Output of the op ``routing_kernels::masked_matmul``; the arguments are taken as checked."""
    x = x.contiguous()
    y = torch.empty((x.shape[0], bits.shape[0]), dtype=x.dtype)
    record = CALL.pack(
        x.data_ptr(),
        values.data_ptr(),
        bits.data_ptr(),
        start.data_ptr(),
        y.data_ptr(),
        x.shape[0],
        bits.shape[0],
        x.shape[1],
        bits.shape[1],
        len(values),
        loader.DTYPES[x.dtype],
        torch.get_num_threads(),
    )
    if loader.call("masked_matmul", isa, record):
        raise bad_masked_weight()
    return y
