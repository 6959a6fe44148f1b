"""Hooks at the heads of an attention: they are masked before the output projection, and left out where nobody reads them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from workbench.anatomy import Block
from workbench.interventions import mask
from workbench.interventions.edit import Edit
from workbench.runtime.attach import (
    AttentionCall,
    AttentionOptions,
    AttentionReport,
    ask_attention,
    asks_attention,
)
from workbench.runtime.hooks.scene import Planned, Scene, Work
from workbench.runtime.hooks.units import fill, units_of


def hook_heads(scene: Scene, block: Block, edits: Planned[mask.Heads], undo: ExitStack) -> None:
    """Mask heads of ``block`` where the edits hold."""
    assert block.attention is not None
    silence = _mask_heads(scene, block, edits)
    undo.callback(block.attention.out_proj.register_forward_pre_hook(silence).remove)


def drop_heads(scene: Scene, block: Block, edits: Planned[Edit], undo: ExitStack) -> None:
    """Have the heads left out that masks replace at all tokens of a call, and count what was left out, and what was
    computed and masked. ``edits`` are all of the layer, in order: what an edit before a mask reads must be there."""
    assert block.attention is not None  # the plan was checked against the anatomy
    masks: Planned[mask.Heads] = [(e, rows) for e, rows in edits if isinstance(e, mask.Heads)]
    first: Planned[mask.Heads] = []
    for edit, rows in edits:
        if isinstance(edit, mask.Heads):
            first.append((edit, rows))
        elif edit.site == "attn_head_out":
            break
    dropping = _Dropping(scene, block, masks, first)
    if asks_attention(block.attention.module):
        undo.callback(ask_attention(block.attention.module, dropping.ask))
    undo.callback(block.attention.out_proj.register_forward_pre_hook(dropping.note).remove)


class _Dropping:
    """The heads of one layer that masks replace: ``masks`` are all of them, ``first`` those that no other edit precedes."""

    def __init__(
        self, scene: Scene, block: Block, masks: Planned[mask.Heads], first: Planned[mask.Heads]
    ) -> None:
        assert block.attention is not None
        self._scene, self._layer, self._heads = scene, block.layer, block.attention.num_heads
        self._masks, self._first = masks, first
        self._units = {id(edit): units_of(edit, block) for edit, _ in masks}
        self._report: AttentionReport | None = None

    def ask(self, call: AttentionCall) -> AttentionOptions | None:
        """Drop the heads that are replaced at every token of a row."""
        if not self._scene.scoped(self._masks, self._layer):
            return None
        replaced, valid = self._replaced(self._first), self._scene.now.valid
        dropped = (replaced if valid is None else replaced | ~valid[:, :, None]).all(1)

        def sink(report: AttentionReport) -> None:
            self._report = report

        return AttentionOptions(dropped=dropped, sink=sink)

    def note(self, *_: Any) -> None:
        """Count the heads [tokens] that ran, were left out, and were computed and masked."""
        report, self._report = self._report, None
        if not self._scene.scoped(self._masks, self._layer):
            return
        replaced = self._replaced(self._masks)
        left = torch.zeros_like(replaced) if report is None else report.dropped[:, None].expand_as(replaced)
        held = replaced.flatten(1).any(1)[:, None]  # rows of which something is masked
        asked = (held * self._heads).expand(replaced.shape[:2]).reshape(-1)
        skipped = left.sum(-1).reshape(-1)
        backend = "model" if report is None else report.kernel
        self._scene.work.append(Work(
            self._layer, "attention_heads", backend, self._scene.now, asked - skipped, skipped,
            (replaced & ~left).sum(-1).reshape(-1),
        ))  # fmt: skip

    def _replaced(self, masks: Planned[mask.Heads]) -> Tensor:
        """bool [B, S, N]: heads that ``masks`` replace at each token of the pass."""
        size, device = self._scene.now.positions.shape, self._scene.now.positions.device
        found = torch.zeros(*size, self._heads, dtype=torch.bool, device=device)
        for edit, where in self._scene.scoped(masks, self._layer):
            found[:, :, self._units[id(edit)].to(device)] |= where[..., None]
        return found


def _mask_heads(scene: Scene, block: Block, edits: Planned[mask.Heads]) -> Callable[..., Any]:
    assert block.attention is not None  # the plan was checked against the anatomy
    num_heads = block.attention.num_heads
    units = {id(edit): units_of(edit, block) for edit, _ in edits}

    def apply(_: nn.Module, args: tuple[Tensor, ...]) -> Any:
        out = args[0]
        heads = out.reshape(*out.shape[:2], num_heads, -1)
        for edit, where in scene.scoped(edits, block.layer):
            chosen = units[id(edit)].to(out.device)
            value = fill(edit, f"{block.layer}.heads", chosen, scene.now.positions, heads)
            new = torch.where(where[..., None, None], value, heads[:, :, chosen])
            heads = heads.index_copy(2, chosen, new)
        return (heads.reshape(out.shape), *args[1:])

    return apply
