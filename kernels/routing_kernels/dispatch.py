"""Which backend and instruction set a call uses, and why a faster one is not."""

from __future__ import annotations

import functools
import importlib.util
import os
import threading
import warnings
from dataclasses import dataclass

import torch

from routing_kernels.cpu import loader
from routing_kernels.errors import BackendError

NAMES = ("reference", "cpu", "triton")
REFERENCE_ISA = "torch"
TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Backend:
    """Whether a backend can be used here; ``reason`` says why not, or what is to be known of the instruction set ``isa``
    that it would use."""

    available: bool
    reason: str
    isa: str


def backends() -> dict[str, Backend]:
    """Every backend by name. Asking builds the C library if it is not built yet (some seconds, once per machine)."""
    try:
        isa = _isa()
        cpu = Backend(True, _about(isa), isa)
    except BackendError as error:
        cpu = Backend(False, str(error), "")
    try:
        triton = Backend(True, "", _triton("cuda"))
    except BackendError as error:
        triton = Backend(False, str(error), "")
    return {"reference": Backend(True, "", REFERENCE_ISA), "cpu": cpu, "triton": triton}


def resolve(
    backend: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[str, str]:
    """The (backend, instruction set) that a call on ``device`` in ``dtype`` will use.

    ``"auto"`` takes ``ROUTING_KERNELS_BACKEND`` where it is set, else the C backend for CPU tensors, else, with one
    warning per reason, the reference. float64 under auto means the reference, without a warning: only it has the
    precision that was asked for. ``ROUTING_KERNELS_ISA`` names the C backend's instruction set. The environment is
    read once for each kind of call and remembered; :func:`refresh` forgets it.

    Raises
    ------
    BackendError
        A backend or instruction set named here, or in the environment, does not exist or cannot be had.
    """
    kind = device.type if isinstance(device, torch.device) else torch.device(device).type
    return _resolve(backend, kind, dtype)


def refresh() -> None:
    """Reads the environment again at the next call."""
    _resolve.cache_clear()


@functools.cache
def _resolve(backend: str, kind: str, dtype: torch.dtype) -> tuple[str, str]:
    if backend == "auto":
        backend = os.environ.get("ROUTING_KERNELS_BACKEND", "auto")
    if backend == "auto":
        return _automatic(kind, dtype)
    if backend == "reference":
        return "reference", REFERENCE_ISA
    if backend == "triton":
        if dtype not in TRITON_DTYPES:
            raise BackendError(f"The triton backend has no {dtype}.", "Choose auto or reference for it.")
        return "triton", _triton(kind)
    if backend != "cpu":
        raise BackendError(
            f"There is no kernel backend {backend!r}.", f"Choose auto or one of {', '.join(NAMES)}."
        )
    if kind != "cpu":
        raise BackendError(
            f"The cpu backend cannot run on {kind} tensors.", "Choose auto or reference for them."
        )
    if dtype not in loader.DTYPES:
        raise BackendError(f"The cpu backend has no {dtype}.", "Choose auto or reference for it.")
    return "cpu", _isa()


def _automatic(kind: str, dtype: torch.dtype) -> tuple[str, str]:
    if dtype == torch.float64:
        return "reference", REFERENCE_ISA
    if kind == "cpu":
        try:
            loader.load()
        except BackendError as error:
            reason = str(error)
        else:
            return "cpu", _isa()
    elif kind == "cuda":
        # They stay asleep until somebody with a GPU has seen them pass: a slow right answer is better than a fast guess.
        reason = (
            "The triton kernels have never run on a GPU: pass routing_kernels.conformance.check('triton', 'cuda'), "
            "then name backend='triton' or set ROUTING_KERNELS_BACKEND=triton."
        )
    else:
        reason = f"There is no kernel for {kind} tensors."
    _warn_once(f"routing_kernels falls back to its slow reference in plain torch. {reason}")
    return "reference", REFERENCE_ISA


def _triton(kind: str) -> str:
    """What the triton backend runs on; the driver is asked first, because a launch without one fails obscurely."""
    if importlib.util.find_spec("triton") is None:
        raise BackendError(
            "Triton is not installed.", "Install it with pip install 'routing-workbench[triton]'."
        )
    if os.environ.get("TRITON_INTERPRET", "0") == "1":
        return "interpreter"
    if not torch.cuda.is_available():
        raise BackendError(
            "The triton backend needs a GPU, and torch finds none.",
            "Choose cpu or reference on this machine.",
        )
    if kind != "cuda":
        raise BackendError(
            f"The triton backend cannot run on {kind} tensors.", "Choose auto, cpu or reference for them."
        )
    major, minor = torch.cuda.get_device_capability()
    return "hip" if torch.version.hip else f"sm_{major}{minor}"


def _isa() -> str:
    library = loader.load()
    named = os.environ.get("ROUTING_KERNELS_ISA")
    if not named:
        return library.isas[0]
    if named not in library.named:
        raise BackendError(
            f"ROUTING_KERNELS_ISA asks for {named!r}, which this build or processor does not have.",
            f"Unset it or choose one of {', '.join(library.isas)}.",
        )
    return named


_UNPROVED = "amx was written and tested through emulated tiles and has never run on such a processor"


def _about(isa: str) -> str:
    """Why the C backend runs on nothing faster than ``isa``, and what nobody has seen yet."""
    if os.environ.get("ROUTING_KERNELS_ISA"):
        return f"ROUTING_KERNELS_ISA names {isa}"
    if isa == "amx":
        return f"{_UNPROVED}: ROUTING_KERNELS_ISA=avx512 goes without"
    faster = list(loader.ISAS)[loader.ISAS[isa] + 1 :]
    return f"this processor, its system or the compiler has no {' and no '.join(faster)}; {_UNPROVED}"


_warned: set[str] = set()
_warned_lock = threading.Lock()


def _warn_once(message: str) -> None:
    with _warned_lock:
        if message in _warned:
            return
        _warned.add(message)
    warnings.warn(message, RuntimeWarning, stacklevel=2)
