"""Calls the C statistics of the residual stream on tensors."""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from routing_kernels.cpu import loader

CALL = struct.Struct("=4Q4q")  # rk_residual_call: four pointers, four integers
ROWS = 11


def residual_stats(pre: Tensor, attn: Tensor, mlp: Tensor, isa: str) -> Tensor:
    """Output [11, T] of the op ``routing_kernels::residual_stats``; the arguments are taken as checked."""
    pre, attn, mlp = pre.contiguous(), attn.contiguous(), mlp.contiguous()
    tokens, hidden = pre.shape[:-1].numel(), pre.shape[-1]
    out = pre.new_empty((ROWS, tokens), dtype=torch.float32)
    record = CALL.pack(
        pre.data_ptr(),
        attn.data_ptr(),
        mlp.data_ptr(),
        out.data_ptr(),
        tokens,
        hidden,
        loader.DTYPES[pre.dtype],
        torch.get_num_threads(),
    )
    loader.call("residual_stats", isa, record)
    return out
