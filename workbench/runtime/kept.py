"""What a layer leaves for the store: copies, out of the reach of the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from workbench.runtime.capture import AttentionSample, Census, Chunks, Effects, RowRanks
from workbench.runtime.held import Held, array


@dataclass(frozen=True)
class Kept:
    """What one layer left in one pass: ``values`` are the tensors of its :class:`~workbench.runtime.capture.Capture` by
    name, where they were asked for, those of ``experts`` and ``activation`` by their own names; the rest is as it is
    there."""

    values: dict[str, Held]
    seconds: float
    width: int
    attention: list[AttentionSample] = field(default_factory=list)
    ranks: list[RowRanks] = field(default_factory=list)
    effects: Effects[Held] | None = None
    census: Census[Held] | None = None
    chunks: Chunks[Held] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def __getitem__(self, name: str) -> NDArray[Any]:
        return array(self.values[name])

    @property
    def slots(self) -> int:
        """Choices a token; 0 where none were kept."""
        ids = self.values.get("ids")
        return 0 if ids is None else ids.shape[-1]

    @property
    def nbytes(self) -> int:
        """Bytes it holds while it waits."""
        size = 0  # by loops: a generator would be resumed for every tensor of every layer of every pass
        for held in self.values.values():
            size += held.nbytes
        for sample in self.attention:
            size += sample.query.nbytes + sample.key.nbytes
        for group in (self.effects, self.census, self.chunks):
            if group is not None:
                parts = [group.targets, *group.values.values()] if isinstance(group, Effects) else group
                size += sum(part.nbytes for part in parts)
        return size
