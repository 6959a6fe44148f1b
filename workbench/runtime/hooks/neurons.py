"""Hooks at the neurons: what enters the down projection of a dense MLP, and of every expert where a census asks for it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from workbench.anatomy import Block, expert_inputs
from workbench.runtime.attach import bank_of
from workbench.runtime.capture import Census, Chunks
from workbench.runtime.hooks.scene import Scene
from workbench.runtime.record import Record
from workbench.signals import neurons, sparsity

CHUNK = 8
"""Consecutive tokens whose neurons are taken together."""


def hook_activation(scene: Scene, block: Block, record: Record, undo: ExitStack) -> None:
    """Measure the activation sparsity of ``block``; experts are measured by the kernel that runs them, but for a census."""
    if block.moe is not None:
        if record.census and bank_of(block.moe.experts) is not None:
            _hook_experts(scene, block, record.threshold, undo)
        return
    if block.mlp is None or block.mlp.down_proj is None:
        return

    def read(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        capture = scene.capture(block.layer)
        if record.sparsity:
            capture.activation = sparsity.activation(args[0], record.threshold)
            capture.width = args[0].shape[-1]
        if record.census:
            rows = args[0].reshape(*scene.now.positions.shape, -1)
            found = neurons.census(rows, record.threshold, scene.now.valid)
            capture.census = Census(*(part.unsqueeze(1) for part in found))
            used = neurons.chunk_union(rows, record.threshold, CHUNK, scene.now.valid)
            start = scene.now.positions[:, : used.union.shape[1] * CHUNK : CHUNK]
            capture.chunks = Chunks(start, used.union, used.expected)

    undo.callback(block.mlp.down_proj.register_forward_pre_hook(read).remove)


def _hook_experts(scene: Scene, block: Block, threshold: float, undo: ExitStack) -> None:
    moe = block.moe
    assert moe is not None
    experts: Any = moe.experts

    def read(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden, ids, _weights = expert_inputs(args, kwargs)

        def activations(expert: int, tokens: Tensor) -> Tensor:
            gate, up = F.linear(hidden[tokens], experts.gate_up_proj[expert]).chunk(2, dim=-1)
            return experts.act_fn(gate) * up

        batch, width = scene.now.positions.shape[0], experts.down_proj.shape[-1]
        rows = scene.now.positions.new_zeros(scene.now.positions.shape)
        rows += rows.new_tensor(range(batch)).unsqueeze(-1)
        keep = None if scene.now.valid is None else scene.now.valid.reshape(-1)
        found = neurons.expert_census(
            activations, ids, rows.reshape(-1), batch, moe.num_experts, width, threshold, keep
        )
        scene.capture(block.layer).census = Census(*found)

    undo.callback(moe.experts.register_forward_pre_hook(read, with_kwargs=True).remove)
