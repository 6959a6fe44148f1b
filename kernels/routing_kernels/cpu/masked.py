"""Calls the C product with masked weights on tensors."""

from __future__ import annotations

import struct
from collections.abc import MutableMapping

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from routing_kernels.cpu import loader
from routing_kernels.errors import bad_masked_weight

CALL = struct.Struct("=5Q8q")  # rk_masked_call: five pointers, eight integers
SPARE = 16  # values that may be read past the last

# Bits whose rows have been checked, with what they were checked against. Reading all bits once more would cost up to a
# tenth of the product.
_CHECKED: MutableMapping[Tensor, tuple[object, ...]] = WeakTensorKeyDictionary()


def masked_matmul(x: Tensor, values: Tensor, bits: Tensor, start: Tensor, isa: str) -> Tensor:
    """Output of the op ``routing_kernels::masked_matmul``; the arguments are taken as checked."""
    x = x.contiguous()
    state = _state(values, bits, start)
    checked = state is not None and _CHECKED.get(bits) == state
    y = x.new_empty((x.shape[0], bits.shape[0]))
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
        checked,
    )
    if loader.call("masked_matmul", isa, record):
        raise bad_masked_weight()
    if state is not None and not checked and len(x):
        _CHECKED[bits] = state
    return y


def _state(values: Tensor, bits: Tensor, start: Tensor) -> tuple[object, ...] | None:
    """What changes when any of the three does, as far as torch knows; ``None`` where torch does not keep count."""
    if bits.is_inference() or start.is_inference():
        return None
    return len(values), bits._version, start._version, start.data_ptr(), start.shape
