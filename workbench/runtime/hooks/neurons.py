"""Hooks at the neurons of a dense MLP: the activations that enter its down projection."""

from __future__ import annotations

from contextlib import ExitStack

from torch import Tensor, nn

from workbench.anatomy import Block
from workbench.runtime.hooks.scene import Scene
from workbench.signals import sparsity


def hook_activation(scene: Scene, block: Block, threshold: float, undo: ExitStack) -> None:
    """Measure the activation sparsity of ``block``; experts are measured by the kernel that runs them."""
    if block.mlp is None or block.mlp.down_proj is None:
        return

    def read(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        capture = scene.capture(block.layer)
        capture.activation = sparsity.activation(args[0], threshold)
        capture.width = args[0].shape[-1]

    undo.callback(block.mlp.down_proj.register_forward_pre_hook(read).remove)
