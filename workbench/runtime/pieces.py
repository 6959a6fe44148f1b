"""Layers of passes side by side: their key columns, and their tensors as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.runtime.capture import Capture
from workbench.runtime.recorder import Taken, Tokens


class Piece(NamedTuple):
    """One layer of one pass, and the tokens of it that get rows."""

    taken: Taken
    layer: int
    capture: Capture
    tokens: Tokens


def cells(pieces: Sequence[Piece]) -> dict[str, NDArray[Any]]:
    """The key columns of one row a token."""
    sizes = [p.tokens.at.size for p in pieces]
    return {
        "run": np.concatenate([p.tokens.run for p in pieces]),
        "step": np.repeat(np.asarray([p.taken.step for p in pieces], dtype=np.int32), sizes),
        "position": np.concatenate([p.tokens.position for p in pieces]),
        "layer": np.repeat(np.asarray([p.layer for p in pieces], dtype=np.uint16), sizes),
    }


def gather(
    pieces: Sequence[Piece], read: Callable[[Capture], Tensor | None], trailing: int = 1
) -> NDArray[Any]:
    """One tensor of every piece at its tokens, concatenated; it has ``trailing`` axes behind those of the tokens."""
    parts = []
    for piece in pieces:
        value = read(piece.capture)
        assert value is not None
        value = value.reshape(-1, *value.shape[value.dim() - trailing :])
        parts.append(value if piece.tokens.whole else value[torch.from_numpy(piece.tokens.at)])
    return torch.cat(parts).numpy()


def known(values: NDArray[Any]) -> pa.Array:
    """A column in which what is undefined (NaN: no runner-up, a zero vector) is NULL."""
    return pa.array(values.reshape(-1), from_pandas=True)
