"""Hooks at the attention: heads are masked before the output projection, and maps are ranked as they pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from workbench.anatomy import Block
from workbench.interventions import mask
from workbench.runtime.attach import AttentionCall, AttentionSink, listen_to_attention
from workbench.runtime.hooks.scene import Planned, Scene
from workbench.runtime.record import Record
from workbench.signals import attention_rank


def hook_heads(scene: Scene, block: Block, edits: Planned[mask.Heads], undo: ExitStack) -> None:
    """Mask heads of ``block`` where the edits hold."""
    assert block.attention is not None
    silence = _mask_heads(scene, block, edits)
    undo.callback(block.attention.out_proj.register_forward_pre_hook(silence).remove)


def hook_attention(block: Block, sinks: Sequence[AttentionSink], undo: ExitStack) -> None:
    """Let each of ``sinks`` see every call of the attention of ``block``."""
    assert block.attention is not None

    def spread(call: AttentionCall) -> None:
        for sink in sinks:
            sink(call)

    listen_to_attention(block.attention.module, spread)
    undo.callback(listen_to_attention, block.attention.module, None)


def keep_attention(scene: Scene, layer: int) -> AttentionSink:
    """Keep the mean attention map of ``layer`` for edits that weigh tokens by it."""

    def keep(call: AttentionCall) -> None:
        maps = attention_rank.attention_map(
            call.query, call.key, call.scale, call.mask, softcap=call.softcap, sinks=call.sinks
        )
        scene.capture(layer).attention = maps.mean(dim=1)

    return keep


def _mask_heads(scene: Scene, block: Block, edits: Planned[mask.Heads]) -> Callable[..., Any]:
    assert block.attention is not None  # the plan was checked against the anatomy
    num_heads = block.attention.num_heads

    def apply(_: nn.Module, args: tuple[Tensor, ...]) -> Any:
        out = args[0]
        heads = out.reshape(*out.shape[:2], num_heads, -1)
        for edit, where in scene.scoped(edits, block.layer):
            silenced = torch.zeros(num_heads, dtype=torch.bool, device=out.device)
            silenced[list(edit.heads)] = True
            heads = heads.masked_fill((where.unsqueeze(-1) & silenced).unsqueeze(-1), 0.0)
        return (heads.reshape(out.shape), *args[1:])

    return apply


def rank_attention(scene: Scene, layer: int, record: Record) -> AttentionSink:
    """Rank the attention maps of ``layer`` in passes that read more than one token."""

    def read(call: AttentionCall) -> None:
        tokens = call.query.shape[2]
        if tokens < 2 or tokens != call.key.shape[2]:
            return
        rows = attention_rank.sample(tokens, limit=record.rank_tokens, seed=layer)
        attention = attention_rank.attention_map(
            call.query, call.key, call.scale, call.mask, rows, softcap=call.softcap, sinks=call.sinks
        )
        capture = scene.capture(layer)
        capture.ranks = attention_rank.ranks(attention, record.rank_tolerance, rows)
        capture.rank_tokens, capture.rank_sampled = attention.shape[-2], rows is not None

    return read
