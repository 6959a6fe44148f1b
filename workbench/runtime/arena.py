"""Room for copies of small tensors: those of one name end to end in buffers that are used again.

A tensor of its own for every small thing is let go by the writer's thread, which takes the interpreter from the model's
thread each time it does; and what is read from it there, tensor by tensor, takes it again. What lies end to end is read as
one array, without a copy.
"""

from __future__ import annotations

import ctypes
import weakref
from collections import defaultdict, deque
from mmap import mmap

import torch
from torch import Tensor

from workbench.runtime.held import DTYPES, HALF, Copy, Held, own
from workbench.runtime.staging import MOST, Arrival, Staging

BUFFER = 2**20
"""Bytes of a buffer."""

LARGE = BUFFER // 8
"""Bytes from which on a tensor gets a copy of its own."""

SPARE = 64
"""Buffers that are kept for later while nobody needs them."""


_made = tuple.__new__
"""Makes a named tuple without a call in Python: one is made for every tensor of every layer of every pass."""


class _Lane:
    """The buffer that copies of one name and dtype are put into."""

    __slots__ = ("address", "memory", "used")

    def __init__(self) -> None:
        self.used = BUFFER + 1  # there is none yet

    def begin(self, spare: deque[mmap]) -> None:
        """Go on in a buffer that nobody reads, one of ``spare`` if there is one."""
        try:
            buffer = spare.pop()
        except IndexError:
            buffer = mmap(-1, BUFFER)  # apart from the heap, which could not shrink below one that stays
        lease = (ctypes.c_ubyte * BUFFER).from_buffer(buffer)
        # Copies and arrays hold on to the lease by way of its memory: with the last of them it dies, and the buffer is free.
        weakref.finalize(lease, spare.append, buffer).atexit = False
        self.address = ctypes.addressof(lease)
        self.memory = memoryview(lease).cast("B")
        self.used = 0


class Arena:
    """Hands out room for copies. Filled by one thread at a time; what it handed out may be read and let go by any."""

    def __init__(self) -> None:
        self._spare: deque[mmap] = deque(maxlen=SPARE)
        self._lanes: defaultdict[tuple[str, torch.dtype], _Lane] = defaultdict(_Lane)
        self._staged: dict[torch.device, Staging] = {}

    def hold(self, tensor: Tensor, name: str) -> Held:
        """A copy of ``tensor`` on the CPU, of a dtype that numpy knows, behind the last one of that ``name``. One from
        another device may be read once what :meth:`send` gives after it has arrived."""
        size: int = tensor.nbytes
        dtype = tensor.dtype
        if not tensor.is_cpu:
            return self._from_device(tensor)
        if size > LARGE or dtype not in DTYPES or not tensor.is_contiguous():
            return own(tensor)
        lane = self._lanes[name, dtype]
        if lane.used + size > BUFFER:
            lane.begin(self._spare)
        start = lane.used
        ctypes.memmove(lane.address + start, tensor.data_ptr(), size)
        lane.used = start + size
        return _made(Copy, (lane.memory, start, size, tensor.shape, dtype))

    def send(self) -> tuple[Arrival, ...]:
        """Have what was held of other devices brought here; what to wait for before it is read."""
        sent = [staging.send() for staging in self._staged.values()]
        return tuple(arrival for arrival in sent if arrival is not None)

    def _from_device(self, tensor: Tensor) -> Held:
        known = tensor.dtype in DTYPES or tensor.dtype in HALF
        if not known or 2 * tensor.nbytes > MOST:  # half precision takes twice as much here
            return own(tensor)
        if tensor.device not in self._staged:
            self._staged[tensor.device] = Staging(tensor.device)
        return self._staged[tensor.device].put(tensor)
