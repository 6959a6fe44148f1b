"""Keys and values of tokens that do not run a block or an attention: computed alone, copied, or absent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from workbench.anatomy import Block
from workbench.errors import EditRefused
from workbench.runtime.depth.call import Call, chosen
from workbench.runtime.depth.decide import COMPUTE, COPY, Decision
from workbench.runtime.depth.kv import KeysOnly, KeysReady, Slot, Store, View, copied
from workbench.runtime.depth.places import leave_empty, spread
from workbench.runtime.hooks.scene import Scene
from workbench.runtime.replace import replace_forward


class Left:
    """What later tokens find of those that a session leaves out.

    ``own`` has the forward of every unit as the model made it, ``gated`` the attention modules whose forward is replaced.
    """

    def __init__(
        self, scene: Scene, own: Mapping[nn.Module, Callable[..., Any]], gated: Set[nn.Module]
    ) -> None:
        self._scene, self._own, self._gated = scene, own, gated

    def filled(
        self, block: Block, call: Call, decision: Decision, store: Store
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """Keys, values and presence that the tokens without a visit leave in the store of ``block``, or ``None``."""
        gone = decision.visits == 0
        if self._scene.now.valid is not None:
            gone = gone & self._scene.now.valid
        return self._entries(
            block, call, gone & (decision.kv == COMPUTE), gone & (decision.kv == COPY), store
        )

    def _entries(
        self, block: Block, call: Call, compute: Tensor, copy: Tensor, store: Store
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        found: tuple[Tensor, Tensor, Tensor] | None = None
        if bool(compute.any()):
            index, valid = chosen(compute)
            keys, values = self._keys_of(block, call, index, valid, store)
            found = spread(keys, values, index, valid, compute)
        if bool(copy.any()):
            keys, values, there = self._copies(block.layer, call.cache, store, copy)
            if found is None:
                return keys * there[:, None, :, None], values * there[:, None, :, None], there
            at = there[:, None, :, None]
            found = torch.where(at, keys, found[0]), torch.where(at, values, found[1]), found[2] | there
        return found

    def _copies(self, layer: int, cache: Any, store: Store, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if isinstance(cache, View):
            root, at = cache.root()
            whole = torch.ones(wanted.shape[0], root.size, dtype=torch.bool, device=wanted.device)
            keys, values, there = copied(root.cache, layer - 1, root.past, root.size, whole)
            heads, width = keys.shape[1], keys.shape[-1]
            take = at[:, None, :, None].expand(-1, heads, -1, width)
            return keys.gather(2, take), values.gather(2, take), wanted & there.gather(1, at)
        return copied(cache, layer - 1, store.length - store.size, store.size, wanted)

    def _keys_of(
        self, block: Block, call: Call, index: Tensor, valid: Tensor, store: Store
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of some tokens: the norm and the two projections run, nothing else of the unit."""
        changed = call.gathered(index, None, KeysOnly(store.length - store.size))
        attention = block.attention
        assert attention is not None
        with ExitStack() as undo:
            query = getattr(attention.module, "q_proj", None)
            if isinstance(query, nn.Linear):
                undo.callback(replace_forward(query, _no_query(query)))
            if call.own == self._own[block.module] and attention.module in self._gated:
                undo.callback(replace_forward(attention.module, self._own[attention.module]))
            try:
                call.own(**(call.named | changed))
            except KeysReady as ready:
                return ready.keys, ready.values
        raise EditRefused(
            f"The attention of layer {block.layer} does not ask its cache for keys and values.",
            'Use kv="absent" or kv="copy-last" there.',
        )

    def behind(self, block: Block, call: Call, decision: Decision, store: Slot | None) -> None:
        """Where no token runs: what ``decision`` says they leave, or placeholders."""
        if store is None or block.attention is None:
            return
        filled = self.filled(block, call, decision, store)
        if filled is None:
            leave_empty(store, block.attention, call.hidden)
        else:
            store.put(*filled)


def _no_query(projection: nn.Linear) -> Callable[[Tensor], Tensor]:
    """A query nobody asks with."""

    def forward(hidden: Tensor) -> Tensor:
        return hidden.new_zeros(*hidden.shape[:-1], projection.out_features)

    return forward
