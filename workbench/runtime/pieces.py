"""Layers of passes side by side: their key columns, and their tensors as one."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from workbench.runtime.held import end_to_end
from workbench.runtime.kept import Kept
from workbench.runtime.recorder import Taken, Tokens


class Piece(NamedTuple):
    """One layer of one pass, and the tokens of it that get rows."""

    taken: Taken
    layer: int
    kept: Kept
    tokens: Tokens


class Pieces(tuple[Piece, ...]):
    """Pieces that can stand side by side: what they kept has one shape but for the number of tokens.

    What is asked for is made once, for whichever tables need it. It is not to be written to.
    """

    @cached_property
    def sizes(self) -> list[int]:
        """Tokens of each."""
        return [p.tokens.at.size for p in self]

    @cached_property
    def cells(self) -> dict[str, NDArray[Any]]:
        """The key columns of one row a token."""
        return {
            "run": np.concatenate([p.tokens.run for p in self]),
            "step": np.repeat(np.asarray([p.taken.step for p in self], dtype=np.int32), self.sizes),
            "position": np.concatenate([p.tokens.position for p in self]),
            "layer": np.repeat(np.asarray([p.layer for p in self], dtype=np.uint16), self.sizes),
        }

    @cached_property
    def _made(self) -> dict[Hashable, NDArray[Any]]:
        return {}

    def gather(self, name: str, trailing: int = 1) -> NDArray[Any]:
        """What every piece kept by ``name`` at its tokens, concatenated; it has ``trailing`` axes behind those of the
        tokens."""
        found = self._made.get(name)
        if found is None:
            found = self._made[name] = self._gather(name, trailing)
        return found

    def fields(self, name: str, only: slice = slice(None)) -> NDArray[Any]:
        """The same of what has fields before its tokens [fields, T, ...]: all of them, or ``only`` some."""
        found = self._made.get((name, only.start, only.stop))
        if found is None:
            found = self._made[name, only.start, only.stop] = self._fields(name, only)
        return found

    def _gather(self, name: str, trailing: int) -> NDArray[Any]:
        if self._alike(name):
            first = self[0].kept[name]
            return self._joined(name).reshape(sum(self.sizes), *first.shape[first.ndim - trailing :])
        parts = []
        for piece in self:
            value = piece.kept[name]
            value = value.reshape(-1, *value.shape[value.ndim - trailing :])
            parts.append(value if piece.tokens.whole else value[piece.tokens.at])
        return np.concatenate(parts)

    def _fields(self, name: str, only: slice) -> NDArray[Any]:
        if self._alike(name) and len({p.kept.values[name].shape for p in self}) == 1:
            each = self._joined(name).reshape(len(self), *self[0].kept.values[name].shape)[:, only]
            return each.swapaxes(0, 1).reshape(each.shape[1], sum(self.sizes), *each.shape[3:])
        parts = ((p.kept[name][only], p.tokens) for p in self)
        return np.concatenate([part if at.whole else part[:, at.at] for part, at in parts], axis=1)

    def _alike(self, name: str) -> bool:
        """Whether what was kept by ``name`` can be joined as it lies there: all tokens of each, and one dtype."""
        return self._whole and len({p.kept.values[name].dtype for p in self}) == 1

    @cached_property
    def _whole(self) -> bool:
        return all(p.tokens.whole for p in self)

    def _joined(self, name: str) -> NDArray[Any]:
        # Of many arrays numpy would take the interpreter from the model's thread for each.
        parts = end_to_end(p.kept.values[name] for p in self)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def known(values: NDArray[Any]) -> pa.Array:
    """A column in which what is undefined (NaN: no runner-up, a zero vector) is NULL."""
    return pa.array(values.reshape(-1), from_pandas=True)
