"""Loads the compiled library and calls it on tensors.

Importing this module imports torch first: the library then shares torch's OpenMP runtime, hence its threads.
"""

from __future__ import annotations

import ctypes
import struct
import threading

import torch
from torch import Tensor

from routing_kernels.cpu import build
from routing_kernels.errors import BackendError

ISAS = {"portable": 0, "avx2": 1, "avx512": 2}  # enum rk_isa, slowest first
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # enum rk_dtype
ACTS = {"silu": 0, "gelu": 1, "gelu_pytorch_tanh": 2, "relu": 3}  # enum rk_act
STATUS_NO_MEMORY = 1
CALL = struct.Struct("=10Q13qd")  # rk_moe_call: ten pointers, thirteen integers, one double


class Library:
    """The loaded library: ``isas`` are the instruction sets this processor can run, best first."""

    def __init__(self, handle: ctypes.CDLL) -> None:
        self.call = handle.rk_moe_experts
        self.call.argtypes, self.call.restype = [ctypes.c_char_p], ctypes.c_int
        self.isas = tuple(isa for isa in reversed(ISAS) if handle.rk_isa_available(ISAS[isa]))


_lock = threading.Lock()
_outcome: Library | BackendError | None = None


def load() -> Library:
    """The library, compiled and loaded at most once per process.

    Raises
    ------
    BackendError
        It cannot be built or loaded here; the first attempt's reason, on every later call too.
    """
    global _outcome
    if _outcome is None:
        with _lock:
            if _outcome is None:
                _outcome = _attempt()
    if isinstance(_outcome, BackendError):
        raise _outcome
    return _outcome


def _attempt() -> Library | BackendError:
    try:
        path = build.library()
    except BackendError as error:
        return error
    try:
        return Library(ctypes.CDLL(str(path)))
    except OSError as error:
        return BackendError(
            f"The compiled kernels could not be loaded ({error}).", f"Delete {path} to have them built again."
        )


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
    x, ids, weights = x.contiguous(), ids.contiguous(), weights.float().contiguous()
    (tokens, top_k), (experts, hidden, width) = ids.shape, down.shape
    y, dropped = torch.empty_like(x), torch.empty((), dtype=torch.int64)
    counts = torch.empty(experts, dtype=torch.int64)
    norms = torch.empty((3, tokens, top_k) if stats else 0)
    tallies = torch.empty((2, tokens, top_k) if stats else 0, dtype=torch.int32)
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
        DTYPES[x.dtype],
        ACTS[act],
        ISAS[isa],
        torch.get_num_threads(),
        threshold,
    )
    status = load().call(record)
    if status == STATUS_NO_MEMORY:
        raise MemoryError("No memory for the expert layer's scratch. Run fewer tokens at a time.")
    if status:
        raise BackendError(f"This processor cannot run {isa}.", f"Choose one of {', '.join(load().isas)}.")
    return y, counts, dropped, norms, tallies
