"""Loads the compiled library and calls it on tensors.

Importing this module imports torch first: the library then shares torch's OpenMP runtime, hence its threads.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import threading

import torch
from torch import Tensor

from routing_kernels.cpu import build
from routing_kernels.errors import BackendError

ISAS = ("portable", "avx2", "avx512")  # enum rk_isa, slowest first
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # enum rk_dtype
ACTS = {"silu": 0, "gelu": 1, "gelu_pytorch_tanh": 2, "relu": 3}  # enum rk_act
STATUS_NO_MEMORY = 1
CALL = struct.Struct("=13Q13qd")  # rk_moe_call: thirteen pointers, thirteen integers, one double


class Library:
    """The loaded library: ``isas`` are the instruction sets this processor can run, best first."""

    def __init__(self, handle: ctypes.CDLL) -> None:
        self.call = handle.rk_moe_experts
        self.call.argtypes, self.call.restype = [ctypes.c_char_p], ctypes.c_int
        self.isas = tuple(isa for i, isa in reversed(list(enumerate(ISAS))) if handle.rk_isa_available(i))


_lock = threading.Lock()


def load() -> Library:
    """The library, compiled and loaded at most once per process.

    Raises
    ------
    BackendError
        It cannot be built or loaded here; the first attempt's reason, on every later call too.
    """
    with _lock:
        outcome = _attempt()
    if isinstance(outcome, BackendError):
        raise outcome
    return outcome


@functools.cache
def _attempt() -> Library | BackendError:
    try:
        path = build.library()
        return Library(ctypes.CDLL(str(path)))
    except BackendError as error:
        return error
    except OSError as error:
        return BackendError(f"The compiled kernels could not be loaded ({error}).", "Delete the file and try again.")


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
) -> tuple[Tensor, ...]:
    """Outputs of :func:`routing_kernels.moe_experts`, in its order; the arguments are taken as checked."""
    x, ids, weights = x.contiguous(), ids.contiguous(), weights.float().contiguous()
    (tokens, top_k), experts = ids.shape, gate_up.shape[0]
    y = torch.empty_like(x)
    counts, dropped = torch.zeros(experts, dtype=torch.int64), torch.zeros((), dtype=torch.int64)
    shape = (tokens, top_k) if stats else (0,)
    slot_norm, hidden_l1, hidden_l2 = torch.empty(shape), torch.empty(shape), torch.empty(shape)
    hidden_zero, hidden_below = torch.empty(shape, dtype=torch.int32), torch.empty(shape, dtype=torch.int32)
    gate_up_strides, down_strides = gate_up.stride(), down.stride()
    status = load().call(
        CALL.pack(
            x.data_ptr(),
            ids.data_ptr(),
            weights.data_ptr(),
            gate_up.data_ptr(),
            down.data_ptr(),
            y.data_ptr(),
            counts.data_ptr(),
            dropped.data_ptr(),
            slot_norm.data_ptr() if stats else 0,
            hidden_l1.data_ptr(),
            hidden_l2.data_ptr(),
            hidden_zero.data_ptr(),
            hidden_below.data_ptr(),
            tokens,
            top_k,
            experts,
            x.shape[1],
            down.shape[2],
            gate_up_strides[0],
            gate_up_strides[1],
            down_strides[0],
            down_strides[1],
            DTYPES[x.dtype],
            ACTS[act],
            ISAS.index(isa),
            torch.get_num_threads(),
            threshold,
        )
    )
    if status == STATUS_NO_MEMORY:
        raise MemoryError("No memory for the expert layer's scratch. Run fewer tokens at a time.")
    if status:
        raise BackendError(f"This processor cannot run {isa}.", f"Choose one of {', '.join(load().isas)}.")
    return y, counts, dropped, slot_norm, hidden_l1, hidden_l2, hidden_zero, hidden_below
