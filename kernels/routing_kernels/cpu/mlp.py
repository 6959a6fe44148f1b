"""Calls the C sparse MLP on tensors."""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from routing_kernels.cpu import loader

CALL = struct.Struct("=8Q11q2d")  # rk_mlp_call: eight pointers, eleven integers, two doubles
MODES = {"teal": 0, "cats": 1, "neuron": 2}  # enum rk_mlp_mode


def sparse_mlp(
    x: Tensor,
    gate: Tensor,
    up: Tensor,
    down_t: Tensor,
    active: Tensor | None,
    act: str,
    mode: str,
    threshold: float,
    input_threshold: float,
    stats: bool,
    isa: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs of the op ``routing_kernels::sparse_mlp``; the arguments are taken as checked."""
    x = x.contiguous()
    (tokens, hidden), (width, outputs) = x.shape, down_t.shape
    if active is not None:
        active = active.contiguous()
    y = x.new_empty((tokens, outputs))
    counts = x.new_empty((2, tokens), dtype=torch.int32)
    energy = x.new_empty((tokens, 2) if stats else 0, dtype=torch.float32)
    record = CALL.pack(
        x.data_ptr(),
        gate.data_ptr(),
        up.data_ptr(),
        down_t.data_ptr(),
        0 if active is None else active.data_ptr(),
        y.data_ptr(),
        counts.data_ptr(),
        energy.data_ptr() if stats else 0,
        tokens,
        hidden,
        width,
        outputs,
        gate.stride(0),
        up.stride(0),
        down_t.stride(0),
        loader.DTYPES[x.dtype],
        loader.ACTS[act],
        MODES[mode],
        torch.get_num_threads(),
        threshold,
        input_threshold,
    )
    loader.call("sparse_mlp", isa, record)
    return y, counts, energy
