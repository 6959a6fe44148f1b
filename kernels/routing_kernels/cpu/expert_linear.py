"""Calls the C linear layer of chosen experts on tensors."""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from routing_kernels.cpu import loader

CALL = struct.Struct("=5Q11q")  # rk_linear_call: five pointers, eleven integers


def expert_linear(
    x: Tensor, ids: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool, isa: str
) -> Tensor:
    """Output of the op ``routing_kernels::expert_linear``; the arguments are taken as checked."""
    x, ids = x.contiguous(), ids.contiguous()
    bias = bias if bias is None or bias.stride(1) == 1 else bias.contiguous()
    outputs = weight.shape[2 if transposed else 1]
    y = x.new_empty((*ids.shape, outputs))
    record = CALL.pack(
        x.data_ptr(),
        ids.data_ptr(),
        weight.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        y.data_ptr(),
        ids.numel(),
        ids.shape[1] if x.dim() == 2 else 1,
        weight.shape[0],
        x.shape[-1],
        outputs,
        weight.stride(0),
        weight.stride(1),
        0 if bias is None else bias.stride(0),
        transposed,
        loader.DTYPES[x.dtype],
        torch.get_num_threads(),
    )
    if y.numel():
        loader.call("expert_linear", isa, record)
    return y
