"""What a pass leaves on a device: put into one buffer there, and brought to the host by one copy that nobody waits for.

A copy to the host for every tensor would stop the host until the device has come so far, many times a pass.
"""

from __future__ import annotations

import ctypes
import weakref
from collections import deque
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from workbench.runtime.held import HALF, Copy

ALIGNED = 64
"""Bytes that a tensor in the buffer starts at a multiple of."""

MOST = 2**25
"""Bytes of a buffer at most: what a pass leaves beyond it is brought in more copies than one."""

SPARE = 4
"""Buffers of the host that are kept for later while nobody needs them."""


class Arrival(Protocol):
    """When a copy to the host is complete."""

    def synchronize(self) -> None:
        """Wait until it is."""


class _Room(NamedTuple):
    """A buffer on the device, and the buffer of the host that it is copied to."""

    device: Tensor
    host: Tensor
    memory: memoryview


class Staging:
    """One buffer on ``device``, as large as the largest pass so far needed (up to :data:`MOST`), and buffers of the host to
    copy it to.

    Filled by one thread at a time. What is put next is written into the same buffer of the device: it comes behind the copy
    in the stream. A buffer of the host is used again when the last copy in it, and the last array made of one, is gone.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spare: deque[Tensor] = deque(maxlen=SPARE)
        self._buffer = torch.empty(0, dtype=torch.uint8, device=device)
        self._room: _Room | None = None
        self._used = 0
        self._needed = 0  # by the tensors since the last pass was sent
        self._largest = 0  # of what passes needed
        self._last: Arrival | None = None

    def put(self, tensor: Tensor) -> Copy:
        """Copy ``tensor``, of :data:`MOST` bytes at most, into the buffer; half precision as fp32."""
        dtype = torch.float32 if tensor.dtype in HALF else tensor.dtype
        size = tensor.numel() * dtype.itemsize
        padded = -(-size // ALIGNED) * ALIGNED
        self._needed += padded
        if self._room is None or self._used + padded > self._room.host.numel():
            self._ship()
            self._room = self._open(max(padded, self._needed, self._largest))
        start, self._used = self._used, self._used + padded
        place = self._room.device[start : start + size].view(dtype).view(tensor.shape)
        place.copy_(tensor.detach())
        return Copy(self._room.memory, start, size, tensor.shape, dtype)

    def send(self) -> Arrival | None:
        """Start to copy what was put since the last time. What it gives, if anything, is to be waited for first."""
        self._ship()
        self._largest, self._needed = max(self._largest, self._needed), 0
        return self._last

    def _open(self, least: int) -> _Room:
        """The buffer of the device, with a buffer of the host as large that nobody reads."""
        size = max(self._buffer.numel(), 1 << (min(least, MOST) - 1).bit_length())
        if size > self._buffer.numel():
            self._buffer = torch.empty(size, dtype=torch.uint8, device=self._device)
            self._spare = deque(maxlen=SPARE)  # those of the old size come back to the old one
        host = self._spare.pop() if self._spare else self._host(size)
        lease = (ctypes.c_ubyte * size).from_buffer(host.numpy().data)
        weakref.finalize(lease, self._spare.append, host).atexit = False
        return _Room(self._buffer, host, memoryview(lease).cast("B"))

    def _host(self, size: int) -> Tensor:
        # Only from memory that cannot be paged out does a GPU copy while the host goes on.
        return torch.empty(size, dtype=torch.uint8, pin_memory=self._device.type == "cuda")

    def _ship(self) -> None:
        room, used, self._room, self._used = self._room, self._used, None, 0
        if room is not None:
            self._last = self._copy(room.host[:used], room.device[:used])

    def _copy(self, host: Tensor, device: Tensor) -> Arrival | None:
        """One copy, and what says that it is there; ``None`` where it is there already."""
        if device.device.type != "cuda":
            host.copy_(device)
            return None
        host.copy_(device, non_blocking=True)
        arrival = torch.cuda.Event()
        arrival.record(torch.cuda.current_stream(device.device))
        return arrival
