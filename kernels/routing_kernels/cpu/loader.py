"""Loads the compiled library and calls it on tensors.

Importing this module imports torch first: the library then shares torch's OpenMP runtime, hence its threads.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable

import torch

from routing_kernels.cpu import build
from routing_kernels.errors import BackendError

ISAS = {"portable": 0, "avx2": 1, "avx512": 2, "amx": 3}  # enum rk_isa, slowest first
EMULATED = {
    "amx-emulated": 4
}  # the same code with its instructions in plain C: for tests, never chosen unless named
BENEATH = {"amx": "avx512", "amx-emulated": "portable"}  # what runs the ops that have no such build
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # enum rk_dtype
ACTS = {"silu": 0, "gelu": 1, "gelu_pytorch_tanh": 2, "relu": 3}  # enum rk_act
STATUS_NO_MEMORY, STATUS_NO_SUCH_ISA, STATUS_BAD_INDEX = 1, 2, 3  # enum rk_status


class Library:
    """The loaded library: ``isas`` are the instruction sets this processor can run, best first; ``named`` those, and the
    emulated ones, which run only where they are named."""

    def __init__(self, handle: ctypes.CDLL) -> None:
        self._handle = handle
        self._entries: dict[str, Callable[[bytes], int]] = {}
        self.isas = tuple(isa for isa in reversed(ISAS) if handle.rk_isa_available(ISAS[isa]))
        self.named = (*self.isas, *EMULATED)

    def entry(self, name: str) -> Callable[[bytes], int]:
        """The entry point ``name``: it takes one packed record and returns a status (enum rk_status)."""
        found = self._entries.get(name)
        if found is None:
            found = getattr(self._handle, name)
            found.argtypes, found.restype = [ctypes.c_char_p], ctypes.c_int
            self._entries[name] = found
        return found


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


@functools.cache
def _entry(name: str, isa: str) -> Callable[[bytes], int]:
    library = load()
    if isa not in library.named:
        raise BackendError(f"This processor cannot run {isa}.", f"Choose one of {', '.join(library.isas)}.")
    return library.entry(f"rk_{name}_{BENEATH.get(isa, isa)}")


def call(name: str, isa: str, record: bytes) -> int:
    """Runs ``rk_<name>_<isa>`` on a packed record; a status that only the op can explain comes back.

    Raises
    ------
    BackendError
        This processor has no such instruction set.
    MemoryError
        There is no memory for the op's scratch.
    """
    status = _entry(name, isa)(record)
    if status == STATUS_NO_MEMORY:
        raise MemoryError(f"No memory for the scratch of {name}. Run fewer tokens at a time.")
    return status
