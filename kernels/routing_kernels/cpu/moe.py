"""Calls the C expert layer on tensors."""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from routing_kernels.cpu import loader
from routing_kernels.errors import BackendError

CALL = struct.Struct("=10Q14qd")  # rk_moe_call: ten pointers, fourteen integers, one double
ISAS = loader.ISAS | loader.EMULATED


def moe_experts(
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    gate_up: Tensor,
    down: Tensor,
    act: str,
    stats: bool,
    threshold: float,
    isa: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Outputs of the op ``routing_kernels::moe_experts``; the arguments are taken as checked."""
    x, ids, weights = x.contiguous(), ids.contiguous(), weights.contiguous()
    if weights.dtype not in loader.DTYPES:
        weights = weights.float()
    (tokens, top_k), (experts, hidden, width) = ids.shape, down.shape
    y, dropped, counts = torch.empty_like(x), ids.new_empty(()), ids.new_empty(experts)
    norms = x.new_empty((3, tokens, top_k) if stats else 0, dtype=torch.float32)
    tallies = x.new_empty((2, tokens, top_k) if stats else 0, dtype=torch.int32)
    gate_up_expert, gate_up_row, _ = gate_up.stride()
    down_expert, down_row, _ = down.stride()
    record = CALL.pack(
        x.data_ptr(),
        ids.data_ptr(),
        weights.data_ptr(),
        gate_up.data_ptr(),
        down.data_ptr(),
        y.data_ptr(),
        counts.data_ptr(),
        dropped.data_ptr(),
        norms.data_ptr() if stats else 0,
        tallies.data_ptr(),
        tokens,
        top_k,
        experts,
        hidden,
        width,
        gate_up_expert,
        gate_up_row,
        down_expert,
        down_row,
        loader.DTYPES[x.dtype],
        loader.DTYPES[weights.dtype],
        loader.ACTS[act],
        ISAS[isa],
        torch.get_num_threads(),
        threshold,
    )
    library = loader.load()
    status = library.entry("rk_moe_experts")(record)
    if status == loader.STATUS_NO_MEMORY:
        raise MemoryError("No memory for the expert layer's scratch. Run fewer tokens at a time.")
    if status:
        raise BackendError(f"This processor cannot run {isa}.", f"Choose one of {', '.join(library.isas)}.")
    return y, counts, dropped, norms, tallies
