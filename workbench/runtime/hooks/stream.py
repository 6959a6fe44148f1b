"""Hooks on the residual stream: what attention, MLP and block add to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from routing_kernels import residual_rows
from torch import Tensor, nn

from workbench.anatomy import Block
from workbench.runtime.hooks.mounts import Mounts
from workbench.runtime.hooks.scene import Scene
from workbench.signals import contribution


def hook_contribution(
    scene: Scene, block: Block, mounts: Mounts, *, measure: bool = True, keep_parts: bool = False
) -> None:
    """Measure the contributions of ``block``, or keep its parts for the lens; only those of the whole block where it is not
    proved additive. Where a block hands on several streams (hyper-connections), they are measured as one wide vector."""
    layer = block.layer

    def enter(hidden: Tensor) -> None:
        scene.captures[layer].stream["pre"] = _wide(hidden)

    def keep(name: str, multiplier: float) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            added = _tensor(output)
            scene.captures[layer].stream[name] = added if multiplier == 1.0 else added * multiplier

        return hook

    def leave(output: Any) -> None:
        capture = scene.captures[layer]
        stream = capture.stream
        capture.stream = {}
        pre, post = stream["pre"], _wide(_tensor(output))
        parts = {"pre": pre, "post": post}
        if block.additive and "attn" in stream and "mlp" in stream:
            for name in ("attn", "mlp"):
                part = stream[name]
                parts[name] = part if part.shape == pre.shape else part.reshape(pre.shape)
        if measure:
            whole = "attn" not in parts
            capture.contribution = _whole(pre, post) if whole else _block(**parts)
        if keep_parts:
            capture.parts |= parts

    scene.on_block(block, enter, leave, mounts)
    if block.additive:
        for name, outlet in (("attn", block.attn_outlet), ("mlp", block.mlp_outlet)):
            if outlet is not None:
                mounts.after(outlet.module, keep(name, outlet.multiplier))


def _block(pre: Tensor, attn: Tensor, mlp: Tensor, post: Tensor) -> Tensor:
    """[6, T], or all [11, T] of :class:`routing_kernels.ResidualStats` where the kernel takes it, in one pass over the
    stream."""
    if pre.dtype == attn.dtype == mlp.dtype and pre.device == attn.device == mlp.device:
        return residual_rows(pre, attn, mlp)
    parts = contribution.block(pre, attn, pre + attn, mlp, post)
    return torch.stack([part for part in parts if part is not None]).flatten(1)


def _whole(pre: Tensor, post: Tensor) -> Tensor:
    """[2, T] of a block whose parts are not known."""
    found = contribution.whole_block(pre, post)
    return torch.stack([found.block_norm, found.influence]).flatten(1)


def _wide(stream: Tensor) -> Tensor:
    """[B, S, H], or the streams [B, S, C, H] of a block that has several side by side."""
    return stream.flatten(2) if stream.dim() > 3 else stream


def _tensor(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
