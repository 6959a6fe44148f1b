"""Copies of tensors on the CPU, small ones in buffers that many share, and how they are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64), torch.int64: np.dtype(np.int64),
    torch.int32: np.dtype(np.int32), torch.bool: np.dtype(np.bool_),
}  # fmt: skip
"""The dtypes of copies in buffers."""

HALF = (torch.bfloat16, torch.float16)
"""Dtypes that are kept as fp32: numpy has no bfloat16."""


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


def tensor(held: Held) -> Tensor:
    """The values of a copy as a tensor on the CPU, to be read and not to be written."""
    return held if isinstance(held, Tensor) else torch.from_numpy(array(held))


def array(held: Held) -> NDArray[Any]:
    """The values of a copy, to be read and not to be written."""
    if isinstance(held, Tensor):
        return held.numpy()
    found: NDArray[Any] = np.ndarray(held.shape, DTYPES[held.dtype], held.memory, held.start)
    return found


def end_to_end(copies: Iterable[Held]) -> list[NDArray[Any]]:
    """The values of copies of one dtype in C order, one behind the other: one array [N] for all that lie so already."""
    found: list[NDArray[Any]] = []
    memory, begin, end, dtype = None, 0, 0, torch.float32

    def close() -> None:
        if memory is not None:
            element = DTYPES[dtype]
            found.append(np.ndarray(((end - begin) // element.itemsize,), element, memory, begin))

    for one in copies:
        if isinstance(one, Tensor):
            close()
            memory = None
            found.append(one.numpy().reshape(-1))
        elif one.memory is memory and one.start == end:
            end += one.nbytes
        else:
            close()
            memory, begin, end, dtype = one.memory, one.start, one.start + one.nbytes, one.dtype
    close()
    return found


def stacked(copies: Sequence[Held]) -> list[NDArray[Any]]:
    """The values of copies of one shape and dtype, [n, ...]: one array for all in a row that lie evenly in a buffer."""
    found: list[NDArray[Any]] = []
    at = 0
    while at < len(copies):
        first = copies[at]
        at += 1
        if isinstance(first, Tensor):
            found.append(first.numpy()[None])
            continue
        last, gap, count = first.start, 0, 1
        while at < len(copies):
            one = copies[at]
            if isinstance(one, Tensor) or one.memory is not first.memory:
                break
            if gap not in (0, one.start - last) or one.start - last < first.nbytes:
                break
            last, gap, count, at = one.start, one.start - last, count + 1, at + 1
        each = array(first)
        found.append(
            np.ndarray((count, *first.shape), each.dtype, first.memory, first.start, (gap, *each.strides))
        )
    return found


def own(tensor: Tensor) -> Tensor:
    """A copy on the CPU that numpy can read."""
    tensor = tensor.detach()
    if tensor.is_cpu and tensor.dtype not in HALF:
        return tensor.clone()
    return tensor.to("cpu", torch.float32 if tensor.dtype in HALF else tensor.dtype, copy=True)
