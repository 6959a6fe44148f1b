"""Numbers too many to be written into a plan: named by their content, kept beside it.

A plan holds a :class:`Blob`, that is the hash, dtype and shape of an array, or for a whole file of tensors the hash alone.
The array itself stands in this process (made by :func:`blob`, or brought back from the table ``blob`` of a store in which a
run under such a plan was recorded). A blob may also name a tensor that is being trained (:func:`live_blob`): such a plan
carries gradients and cannot be saved.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from workbench.errors import EditRefused

if TYPE_CHECKING:
    from torch import Tensor

INLINE = 256
"""Numbers that are written into the plan itself; more are named by their content."""

_DTYPES = ("float32", "float64", "int64", "uint8")
_ARRAYS: dict[str, NDArray[Any]] = {}
_LIVE: WeakValueDictionary[str, Any] = WeakValueDictionary()
_numbers = itertools.count()


class Blob(BaseModel):
    """An array by name.

    Attributes
    ----------
    blob
        Thirty-two hexadecimal digits of the SHA-256 of dtype, shape and elements (C order, little endian), or ``live-N`` for
        a tensor in training.
    dtype, shape
        Of the array.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    blob: str = Field(pattern=r"^([0-9a-f]{32}|live-\d+)$")
    dtype: str
    shape: tuple[int, ...]

    @property
    def live(self) -> bool:
        """Whether it names a tensor in training."""
        return self.blob.startswith("live-")

    @property
    def known(self) -> bool:
        """Whether the numbers are at hand in this process."""
        return at_hand(self.blob)

    @property
    def numbers(self) -> Any:
        """The array, or the tensor in training; raises :class:`EditRefused` where it is not at hand."""
        return numbers(self.blob)


def at_hand(name: str) -> bool:
    """Whether the numbers of that name are known to this process."""
    return name in _ARRAYS or name in _LIVE


def numbers(name: str) -> Any:
    """The array of that name, or the tensor in training; raises :class:`EditRefused` where it is not at hand."""
    live = name.startswith("live-")
    try:
        return _LIVE[name] if live else _ARRAYS[name]
    except KeyError:
        raise EditRefused(
            f"The plan names the numbers {name}, which are not at hand.",
            "Train on while the parameter exists."
            if live
            else "Open the store in which a run under this plan was recorded, or make them again with wb.blob(array).",
        ) from None


def blob(array: Any) -> Blob:
    """Name an array (numpy, torch or nested lists) by its content; integers stay integers, the rest is fp32 or fp64."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = array if str(array.dtype) in ("torch.float64", "torch.int64") else array.float()
        array = array.numpy()
    values = np.array(array)  # a copy: what the caller does with his own must not change the plan
    if values.dtype.kind in "iu":
        values = values.astype(np.int64)
    elif values.dtype != np.float64 or not hasattr(array, "dtype"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("a number of the array is not finite")
    return keep(np.ascontiguousarray(values))


def keep(values: NDArray[Any]) -> Blob:
    """Name ``values`` as they are and hold on to them."""
    dtype = str(values.dtype)
    if dtype not in _DTYPES:
        raise ValueError(f"{dtype} is not one of {', '.join(_DTYPES)}")
    content = (
        f"{dtype}{list(values.shape)}".encode() + values.astype(values.dtype.newbyteorder("<")).tobytes()
    )
    name = hashlib.sha256(content).hexdigest()[:32]
    values.setflags(write=False)
    _ARRAYS.setdefault(name, values)
    return Blob(blob=name, dtype=dtype, shape=values.shape)


def live_blob(tensor: Tensor) -> Blob:
    """Name a tensor in training; it is looked up anew at each pass, and forgotten when nobody else holds it."""
    name = f"live-{next(_numbers)}"
    _LIVE[name] = tensor
    return Blob(blob=name, dtype=str(tensor.dtype).removeprefix("torch."), shape=tuple(tensor.shape))


def _vector(value: Any) -> Any:
    """Few numbers as a tuple, many or a matrix as a :class:`Blob`; data and blobs as they are."""
    if isinstance(value, Blob | dict) or value is None:
        return value
    if isinstance(value, str):
        raise ValueError(f"{value!r} is not an array of numbers")
    if not hasattr(value, "shape"):
        value = list(value)
        if len(value) <= INLINE and not any(hasattr(v, "__len__") for v in value):
            return _inline(value)
    elif len(value.shape) == 1 and value.shape[0] <= INLINE:
        return _inline(value.tolist())
    return blob(value)


def _inline(values: list[Any]) -> tuple[Any, ...]:
    if any(isinstance(value, float) and not math.isfinite(value) for value in values):
        raise ValueError("a number of the array is not finite")
    return tuple(values)


Vector: TypeAlias = Annotated[tuple[float, ...] | Blob, BeforeValidator(_vector)]
"""Numbers of an edit: inline, or by name. One axis: the same for every layer and token. Two: the first is the edit's
``layers``. Three: the second is the edit's ``tokens``, which must be positions."""


def shape_of(vector: tuple[float, ...] | Blob) -> tuple[int, ...]:
    """The extents of ``vector``."""
    return vector.shape if isinstance(vector, Blob) else (len(vector),)
