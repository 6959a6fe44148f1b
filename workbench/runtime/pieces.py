"""Layers of passes side by side: their key columns, and their tensors as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from workbench.runtime.kept import Kept
from workbench.runtime.recorder import Taken, Tokens


class Piece(NamedTuple):
    """One layer of one pass, and the tokens of it that get rows."""

    taken: Taken
    layer: int
    kept: Kept
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


def gather(pieces: Sequence[Piece], name: str, trailing: int = 1) -> NDArray[Any]:
    """What every piece kept by ``name`` at its tokens, concatenated; it has ``trailing`` axes behind those of the tokens."""
    parts = []
    for piece in pieces:
        value = piece.kept[name]
        value = value.reshape(-1, *value.shape[value.ndim - trailing :])
        parts.append(value if piece.tokens.whole else value[piece.tokens.at])
    return np.concatenate(parts)


def gather_fields(pieces: Sequence[Piece], name: str, only: slice = slice(None)) -> NDArray[Any]:
    """The same of what has fields before its tokens [fields, T, ...]: all of them, or ``only`` some."""
    parts = (piece.kept[name][only] for piece in pieces)
    return np.concatenate(
        [part if p.tokens.whole else part[:, p.tokens.at] for p, part in zip(pieces, parts, strict=True)],
        axis=1,
    )


def known(values: NDArray[Any]) -> pa.Array:
    """A column in which what is undefined (NaN: no runner-up, a zero vector) is NULL."""
    return pa.array(values.reshape(-1), from_pandas=True)
