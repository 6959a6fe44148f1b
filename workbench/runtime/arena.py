"""Room for copies of small tensors: end to end in buffers that are used again.

A tensor of its own for every small thing is let go by the writer's thread, which takes the interpreter from the model's
thread each time it does; and what is read from it there, tensor by tensor, takes it again.
"""

from __future__ import annotations

import ctypes
import weakref
from collections import deque
from mmap import mmap
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BUFFER = 2**20
"""Bytes of a buffer."""

LARGE = BUFFER // 8
"""Bytes from which on a tensor gets a copy of its own."""

SPARE = 64
"""Buffers that are kept for later while nobody needs them."""

_DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64), torch.int64: np.dtype(np.int64),
    torch.int32: np.dtype(np.int32), torch.bool: np.dtype(np.bool_),
}  # fmt: skip
_HALF = (torch.bfloat16, torch.float16)  # numpy has no bfloat16
_Lease = ctypes.c_ubyte * BUFFER


class Copy(NamedTuple):
    """Where in a buffer a copy lies. The buffer is not used again before the last copy in it, and the last array made of
    one, is gone."""

    memory: memoryview
    start: int
    nbytes: int
    shape: tuple[int, ...]
    dtype: torch.dtype


Held: TypeAlias = Copy | Tensor
"""A copy of a tensor on the CPU; :func:`array` reads it."""


class Arena:
    """Hands out room for copies. Filled by one thread at a time; what it handed out may be read and let go by any."""

    def __init__(self) -> None:
        self._spare: deque[mmap] = deque(maxlen=SPARE)
        self._begin()

    def _begin(self) -> None:
        """Go on in a buffer that nobody reads."""
        try:
            buffer = self._spare.pop()
        except IndexError:
            buffer = mmap(-1, BUFFER)  # apart from the heap, which could not shrink below one that stays
        lease = _Lease.from_buffer(buffer)
        # Copies and arrays hold on to the lease by way of its memory: with the last of them it dies, and the buffer is free.
        weakref.finalize(lease, self._spare.append, buffer).atexit = False
        self._address = ctypes.addressof(lease)
        self._memory = memoryview(lease).cast("B")
        self._used = 0

    def hold(self, tensor: Tensor) -> Held:
        """A copy of ``tensor`` on the CPU, of a dtype that numpy knows."""
        size: int = tensor.nbytes
        if size > LARGE or tensor.dtype not in _DTYPES or not tensor.is_cpu or not tensor.is_contiguous():
            return own(tensor)
        start = self._used
        if start + size > BUFFER:
            self._begin()
            start = 0
        ctypes.memmove(self._address + start, tensor.data_ptr(), size)
        self._used = start + (size + 63 & -64)
        return Copy(self._memory, start, size, tensor.shape, tensor.dtype)


def array(held: Held) -> NDArray[Any]:
    """The values of a copy, to be read and not to be written."""
    if isinstance(held, Tensor):
        return held.numpy()
    found: NDArray[Any] = np.ndarray(held.shape, _DTYPES[held.dtype], held.memory, held.start)
    return found


def memory(held: Held) -> memoryview | bytes:
    """The bytes of a copy, in C order."""
    if isinstance(held, Tensor):
        return held.numpy().tobytes()
    return held.memory[held.start : held.start + held.nbytes]


def own(tensor: Tensor) -> Tensor:
    """A copy on the CPU that numpy can read."""
    tensor = tensor.detach()
    if tensor.is_cpu and tensor.dtype not in _HALF:
        return tensor.clone()
    return tensor.to("cpu", torch.float32 if tensor.dtype in _HALF else tensor.dtype, copy=True)
