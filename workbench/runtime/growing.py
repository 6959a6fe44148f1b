"""Rows that are added to at the end, a few at a time, at a cost that does not grow with how many there are."""

from __future__ import annotations

import torch
from torch import Tensor


class Growing:
    """Rows [n, V] on the CPU, with room behind them that doubles whenever it is used up.

    What :attr:`rows` and :meth:`head` have given stays as it was: a row is written once, and never again.
    """

    def __init__(self, rows: Tensor) -> None:
        self._room = rows
        self._size = len(rows)

    def __len__(self) -> int:
        return self._size

    @property
    def rows(self) -> Tensor:
        """The rows so far, as a view."""
        return self._room[: self._size]

    def append(self, rows: Tensor) -> None:
        """Add ``rows`` [m, V] at the end."""
        stop = self._size + len(rows)
        if stop > len(self._room):
            room = self._room.new_empty(max(stop, 2 * self._size), *self._room.shape[1:])
            room[: self._size] = self.rows
            self._room = room
        self._room[self._size : stop] = rows
        self._size = stop

    def head(self, count: int) -> Growing:
        """The first ``count`` rows, to be added to apart from these."""
        # Without room of its own: the first row that is added moves it, so that what lies behind is never written over.
        return Growing(self._room[: min(count, self._size)])

    def compact(self) -> Tensor:
        """The rows in memory of their own, which has no room behind them."""
        return self.rows.clone() if self._room.untyped_storage().nbytes() > self.rows.nbytes else self.rows


def empty(width: int) -> Growing:
    """No rows yet, of ``width`` numbers each."""
    return Growing(torch.empty(0, width))
