"""Calls the C log-probabilities on tensors."""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from routing_kernels.cpu import loader
from routing_kernels.errors import ArgumentError

CALL = struct.Struct("=3Q3q")  # rk_logprob_call: three pointers, three integers


def token_logprob(logits: Tensor, tokens: Tensor, isa: str) -> Tensor:
    """Output [T] of the op ``routing_kernels::token_logprob``; the arguments are taken as checked, but for the ids."""
    logits, tokens = logits.contiguous(), tokens.contiguous()
    count, width = logits.shape
    out = torch.empty(count)
    record = CALL.pack(
        logits.data_ptr(), tokens.data_ptr(), out.data_ptr(), count, width, torch.get_num_threads()
    )  # fmt: skip
    if loader.call("token_logprob", isa, record) == loader.STATUS_BAD_INDEX:
        raise ArgumentError(f"A token is not among the {width} of the logits.", "Number them from 0.")
    return out
