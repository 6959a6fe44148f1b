"""Depth: blocks that are left out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from workbench.anatomy import Block
from workbench.runtime.hooks.scene import Scene


def hook_skipped_block(scene: Scene, block: Block, undo: ExitStack) -> None:
    """Let the residual stream pass ``block`` unchanged; nothing of it runs."""
    undo.callback(replace_forward(block.module, _pass_through(scene, block)))


def _pass_through(scene: Scene, block: Block) -> Callable[..., Any]:
    """A forward that returns its input. The cache gets placeholder keys, which no token ever attends to, so that
    every layer of it counts the same tokens (transformers takes the mask's length from the first)."""

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        scene.capture(block.layer).skipped = True
        cache = kwargs.get("past_key_values")
        if cache is not None and block.attention is not None:
            shape = (hidden_states.shape[0], block.attention.num_kv_heads, hidden_states.shape[1], 1)
            empty = hidden_states.new_zeros(shape)
            cache.update(empty, empty, block.layer)
        return (hidden_states,) if block.layer in scene.tuple_blocks else hidden_states

    return forward


def replace_forward(module: nn.Module, forward: Callable[..., Any]) -> Callable[[], None]:
    """Give ``module`` another forward; the returned function takes it away again, exactly."""
    own = module.__dict__.get("forward")
    module.__dict__["forward"] = forward

    def restore() -> None:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own

    return restore
