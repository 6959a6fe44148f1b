"""How much attention each token of a pass received in a layer: a score that looks ahead."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor

from workbench.runtime.attach import AttentionCall, ask_attention
from workbench.runtime.hooks.scene import Scene
from workbench.signals import attention_rank


@dataclass
class Received:
    """Mean over heads and queries of the attention that the tokens of the pass receive in the ``wanted`` layers.

    Only queries that run in that layer count, and no padding. Where none of them ran, no token received any.
    """

    scene: Scene
    wanted: set[int] = field(default_factory=set)
    found: dict[int, Tensor] = field(default_factory=dict)

    def __call__(self, layer: int) -> Tensor:
        """The attention [B, S] that each token of the running pass received in ``layer``."""
        positions = self.scene.now.positions
        found = self.found.get(layer)
        if found is None:
            return torch.zeros(positions.shape, device=positions.device)
        # Keys stand in the order of positions, those of tokens that did not run among them; the last is the newest.
        before = int(positions.max()) + 1 - found.shape[1]
        return found.gather(1, (positions - before).clamp(min=0))

    def listen(self, undo: ExitStack) -> None:
        """Read the queries and keys of the wanted layers."""
        for layer in self.wanted:
            attention = self.scene.anatomy.layer(layer).attention
            assert attention is not None  # the edit was checked against the anatomy
            undo.callback(ask_attention(attention.module, self._keep(layer)))

    def _keep(self, layer: int) -> Callable[[AttentionCall], None]:
        def read(call: AttentionCall) -> None:
            attention = attention_rank.attention_map(
                call.query, call.key, call.scale, call.mask, softcap=call.softcap, sinks=call.sinks
            ).mean(1)
            valid = self.scene.now.valid
            if valid is not None:
                attention = attention * valid.unsqueeze(-1)
            queries = attention.shape[1] if valid is None else valid.sum(-1, keepdim=True).clamp(min=1)
            self.found[layer] = attention.sum(1) / queries

        return read
