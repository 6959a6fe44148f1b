"""Keys and values under skips and repeats.

Every slot of a cache has one entry per token, so that it can be cut like any other; entries of tokens that left nothing
behind are placeholders, and what is *present* is kept beside the cache and enters the attention mask on the key axis (on
the query axis a softmax would cancel it). A repeated visit has a slot of its own behind those of the layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from workbench.errors import EditRefused

_NAME = "_workbench_depth"


@dataclass
class Memory:
    """What a cache remembers beside keys and values; it hangs on the cache, so that a copy of the one copies the other.

    ``present``: slot -> [B, T] bool, missing where every token is. ``scores``: (edit, layer) -> [B, T] float32, NaN where
    a token was not scored. ``slots``: (layer, visit) -> slot of a repeated visit.
    """

    present: dict[int, Tensor] = field(default_factory=dict)
    scores: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    slots: dict[tuple[int, int], int] = field(default_factory=dict)

    def known(self, slot: int, rows: int, past: int) -> Tensor | None:
        """Which of the first ``past`` tokens are present in ``slot``, [rows, past]; ``None`` where all are."""
        kept = self.present.get(slot)
        if kept is None:
            return None
        kept = kept[:, :past]
        if bool(kept.all()) and kept.shape[1] == past:
            return None
        if kept.shape[1] < past:
            raise RuntimeError(f"slot {slot} remembers {kept.shape[1]} of {past} tokens")
        return kept.expand(rows, past)


def memory_of(cache: Any) -> Memory:
    """The memory that hangs on ``cache``, made on first use."""
    found = getattr(cache, _NAME, None)
    if found is None:
        found = Memory()
        setattr(cache, _NAME, found)
    return found


def touched(cache: Any) -> bool:
    """Whether some token left no keys and values in some layer of ``cache``, or several."""
    found = getattr(cache, _NAME, None)
    return found is not None and bool(found.present or found.slots)


def slot_of(cache: Any, layer: int, visit: int) -> int:
    """The slot of a visit of ``layer``: the layer's own for the first, one behind all layers for each later one."""
    if visit == 0:
        return layer
    slots = memory_of(cache).slots
    if (layer, visit) not in slots:
        from transformers.cache_utils import DynamicLayer

        cache.layers.append(DynamicLayer())
        slots[layer, visit] = len(cache.layers) - 1
    return slots[layer, visit]


class KeysReady(Exception):
    """Raised out of an attention as soon as its keys and values are there, so that nothing behind them runs."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values


class Store(Protocol):
    """Where an attention puts keys and values, [B, M, S, D] for ``size`` tokens a row, and gets all of them back."""

    size: int

    @property
    def length(self) -> int:
        """Tokens before this pass and in it."""

    def presence(self, kept: Tensor) -> Tensor | None:
        """[B, length]: what will be present once the tokens ``kept`` [B, size] of this pass are; ``None`` for all."""

    def put(self, keys: Tensor, values: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Store the entries of ``kept`` and placeholders for the others; gives the keys and values to attend to."""


class Slot:
    """One slot of a cache, seen by a pass of ``size`` tokens a row behind ``past`` earlier ones."""

    def __init__(self, cache: Any, slot: int, past: int, size: int) -> None:
        self.cache, self.slot, self.past, self.size = cache, slot, past, size
        self.memory = memory_of(cache)

    @property
    def length(self) -> int:
        return self.past + self.size

    def presence(self, kept: Tensor) -> Tensor | None:
        before = self.memory.known(self.slot, kept.shape[0], self.past)
        if before is None and self._missing():
            before = kept.new_zeros(kept.shape[0], self.past)
        if before is None:
            if bool(kept.all()):
                return None
            before = kept.new_ones(kept.shape[0], self.past)
        return torch.cat([before, kept], dim=1)

    def _missing(self) -> bool:
        """Whether the slot was opened after the first tokens, which have nothing in it."""
        layers = self.cache.layers
        return self.past > 0 and (self.slot >= len(layers) or layers[self.slot].get_seq_length() == 0)

    def put(self, keys: Tensor, values: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        present = self.presence(kept)
        layer = self.cache.layers[self.slot] if self.slot < len(self.cache.layers) else None
        if self._missing():
            keys, values = _padded(keys, self.past), _padded(values, self.past)
        elif layer is not None and self.past and layer.keys.shape[-1] != keys.shape[-1]:
            # Placeholders were made before the true width of the keys was known.
            layer.keys, layer.values = _blank(keys, self.past), _blank(values, self.past)
        stored = self.cache.update(keys, values, self.slot)
        if present is None:
            self.memory.present.pop(self.slot, None)
        else:
            self.memory.present[self.slot] = present
        return stored

    def stored(self) -> tuple[Tensor, Tensor]:
        """All keys and values of the slot."""
        layer = self.cache.layers[self.slot]
        return layer.keys, layer.values

    def take_back(self) -> tuple[Tensor, Tensor, Tensor]:
        """Forget the tokens of this pass; gives their keys and values, and which of them were present."""
        layer = self.cache.layers[self.slot]
        keys, values = layer.keys[:, :, self.past :], layer.values[:, :, self.past :]
        known = self.memory.known(self.slot, keys.shape[0], self.length)
        there = (
            torch.ones(keys.shape[0], self.size, dtype=torch.bool, device=keys.device)
            if known is None
            else known[:, self.past :]
        )
        layer.keys, layer.values = layer.keys[:, :, : self.past], layer.values[:, :, : self.past]
        if self.slot in self.memory.present:
            self.memory.present[self.slot] = self.memory.present[self.slot][:, : self.past]
        return keys, values, there

    @property
    def written(self) -> bool:
        """Whether the tokens of this pass stand in the slot."""
        layers = self.cache.layers
        return self.slot < len(layers) and layers[self.slot].get_seq_length() >= self.length

    def leave_empty(self, rows: int, kv_heads: int, head_dim: int, like: Tensor) -> None:
        """Give every token of the pass a placeholder."""
        blank = like.new_zeros(rows, kv_heads, self.size, head_dim)
        layer = self.cache.layers[self.slot] if self.slot < len(self.cache.layers) else None
        if layer is not None and layer.get_seq_length():
            blank = layer.keys.new_zeros(*layer.keys.shape[:2], self.size, layer.keys.shape[-1])
            values = layer.values.new_zeros(*layer.values.shape[:2], self.size, layer.values.shape[-1])
            self.put(blank, values, torch.zeros(rows, self.size, dtype=torch.bool, device=like.device))
            return
        self.put(blank, blank, torch.zeros(rows, self.size, dtype=torch.bool, device=like.device))


class Shared:
    """The slot of a first visit as later visits see it: read, never written."""

    def __init__(self, first: Slot) -> None:
        self.first, self.size = first, first.size

    @property
    def length(self) -> int:
        return self.first.length

    def presence(self, kept: Tensor) -> Tensor | None:
        return self.first.memory.known(self.first.slot, kept.shape[0], self.first.length)

    def put(self, keys: Tensor, values: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        return self.first.stored()


class View:
    """A store as the gathered tokens of a pass see it: what an attention gets in place of its cache.

    Parameters
    ----------
    parent
        The store of the whole pass.
    index
        [B, K] int64: the tokens of the pass, ascending, that are gathered; padding repeats one of them.
    valid
        [B, K] bool: false at padding.
    filled
        Keys and values [B, M, size, D] of tokens that are not gathered, and which tokens have them [B, size].
    """

    is_compileable = False

    def __init__(
        self,
        parent: Store,
        index: Tensor,
        valid: Tensor,
        filled: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> None:
        self.parent, self.index, self.valid, self.filled = parent, index, valid, filled
        self.size = index.shape[1]

    @property
    def length(self) -> int:
        return self.parent.length

    @property
    def root_size(self) -> int:
        """Tokens of the whole pass."""
        return self.parent.root_size if isinstance(self.parent, View) else self.parent.size

    def root(self) -> tuple[Slot, Tensor]:
        """The slot behind all views, and the gathered tokens as indices [B, K] into its pass."""
        if isinstance(self.parent, View):
            slot, at = self.parent.root()
            return slot, at.gather(1, self.index)
        behind = self.parent.first if isinstance(self.parent, Shared) else self.parent
        assert isinstance(behind, Slot)
        return behind, self.index

    def _spread(self, kept: Tensor) -> Tensor:
        spread = kept.new_zeros(kept.shape[0], self.parent.size + 1)
        target = torch.where(self.valid & kept, self.index, self.parent.size)
        spread.scatter_(1, target, torch.ones_like(kept))
        spread = spread[:, :-1]
        return spread if self.filled is None else spread | self.filled[2]

    def presence(self, kept: Tensor) -> Tensor | None:
        return self.parent.presence(self._spread(kept))

    def put(self, keys: Tensor, values: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        target = torch.where(self.valid & kept, self.index, self.parent.size)
        whole = []
        for n, part in enumerate((keys, values)):
            rows, heads, _, width = part.shape
            spread = part.new_zeros(rows, heads, self.parent.size + 1, width)
            if self.filled is not None:
                spread[:, :, :-1] = self.filled[n]
            at = target[:, None, :, None].expand(rows, heads, -1, width)
            whole.append(spread.scatter(2, at, part)[:, :, :-1])
        return self.parent.put(whole[0], whole[1], self._spread(kept))

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """What an attention calls on its cache."""
        return self.put(keys, values, torch.ones_like(self.valid))

    def get_seq_length(self, *_: Any) -> int:
        """Tokens before this pass, as an attention may ask its cache."""
        return self.length - self.root_size


class KeysOnly:
    """Stands in for a cache until the keys and values are there, and ends the call then."""

    is_compileable = False

    def __init__(self, past: int) -> None:
        self.past = past

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        raise KeysReady(keys, values)

    def get_seq_length(self, *_: Any) -> int:
        return self.past


def forgets(cache: Any, slot: int) -> bool:
    """Whether a slot of ``cache`` drops old tokens (a sliding window)."""
    from transformers.cache_utils import DynamicLayer

    return slot < len(cache.layers) and type(cache.layers[slot]) is not DynamicLayer


def copied(cache: Any, layer: int, past: int, size: int, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, values and presence that the tokens ``wanted`` [B, size] of this pass have in ``layer``."""
    if forgets(cache, layer):
        raise EditRefused(
            f"Keys and values of layer {layer} cannot be copied: its cache keeps a window only.",
            'Use kv="compute" or kv="absent" there.',
        )
    keys, values = Slot(cache, layer, past, size).stored()
    known = memory_of(cache).known(layer, wanted.shape[0], past + size)
    there = wanted if known is None else wanted & known[:, past:]
    return keys[:, :, past:], values[:, :, past:], there


def _blank(like: Tensor, length: int) -> Tensor:
    return like.new_zeros(*like.shape[:2], length, like.shape[-1])


def _padded(entries: Tensor, length: int) -> Tensor:
    return torch.cat([_blank(entries, length), entries], dim=2)
