"""How much attention each token of a pass received in a layer: a score that looks ahead."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from torch import Tensor

from workbench.runtime.attach import AttentionCall, ask_attention
from workbench.runtime.hooks.scene import Scene
from workbench.signals import attention_rank


@dataclass
class Received:
    """Mean over heads and queries of the attention [B, S] that the tokens of the pass receive in the ``wanted`` layers."""

    scene: Scene
    wanted: set[int] = field(default_factory=set)
    found: dict[int, Tensor] = field(default_factory=dict)

    def __call__(self, layer: int) -> Tensor:
        return self.found[layer]

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
            )
            self.found[layer] = attention.mean((1, 2))[:, -self.scene.now.positions.shape[1] :]

        return read
