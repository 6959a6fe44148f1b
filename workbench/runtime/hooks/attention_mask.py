"""Hooks at the attention map: blocks that are kept, tokens that are hidden, and what that did."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TypeAlias

import torch
from torch import Tensor

from workbench.anatomy import Block
from workbench.errors import EditRefused
from workbench.interventions import mask
from workbench.runtime.attach import AttentionCall, AttentionOptions, AttentionReport, ask_attention
from workbench.runtime.attach.block_calls import visible, visible_tokens
from workbench.runtime.attention_patterns import is_static, kept_blocks, of_heads, static_blocks
from workbench.runtime.depth.kv import memory_of
from workbench.runtime.hooks.scene import MaskReport, Planned, Scene, Work
from workbench.signals import attention_rank

Masks: TypeAlias = Planned[mask.AttentionMask | mask.TokenMask]
MEASURED = 256
"""Queries of a call whose recall and error are measured, evenly spread."""


def hook_attention_mask(scene: Scene, block: Block, edits: Masks, record: bool, undo: ExitStack) -> None:
    """Keep the blocks and hide the tokens that the edits name; with ``record``, measure what that did."""
    assert block.attention is not None  # the plan was checked against the anatomy
    asker = _Asker(scene, block.layer, edits, record)
    undo.callback(ask_attention(block.attention.module, asker))


class _Asker:
    def __init__(self, scene: Scene, layer: int, edits: Masks, record: bool) -> None:
        self._scene, self._layer, self._record = scene, layer, record
        self._blocks = [(e, rows) for e, rows in edits if isinstance(e, mask.AttentionMask)]
        self._tokens = [(e, rows) for e, rows in edits if isinstance(e, mask.TokenMask)]
        self._finest = min((edit.block for edit, _ in self._blocks), default=64)

    def __call__(self, call: AttentionCall) -> AttentionOptions | None:
        hidden = self._hidden(call)
        scoped = self._scene.scoped(self._blocks, self._layer)
        if not scoped and hidden is None:
            return None
        kept, allowed = self._kept(scoped, call)
        if hidden is not None:
            allowed = hidden if allowed is None else allowed & hidden
        if kept is None and allowed is None:
            return None
        self._measure(scoped, call, kept, allowed)

        def sink(report: AttentionReport) -> None:
            self._note(call, kept, report)

        return AttentionOptions(kept, self._finest, allowed, sink=sink)

    def _kept(
        self, scoped: Planned[mask.AttentionMask], call: AttentionCall
    ) -> tuple[Tensor | None, Tensor | None]:
        """The blocks [B, N, rows, columns] that all edits keep; and, for blocks of which only some queries are in scope and
        for queries that were taken out of their pass, the same token by token [B, N, Q, K]."""
        kept: Tensor | None = None
        allowed: Tensor | None = None
        batch, heads = call.query.shape[:2]
        gathered = self._gathered(call)
        for edit, where in scoped:
            if gathered:
                mine = self._by_token(edit, call, where)
                allowed = mine if allowed is None else allowed & mine
                continue
            first, rows, columns = call.grid(edit.block)
            blocks = torch.ones(batch, heads, rows, columns, dtype=torch.bool, device=call.query.device)
            of_query = (
                torch.arange(call.first_query, call.keys, device=call.query.device) // edit.block - first
            )
            for row in where.any(-1).nonzero().squeeze(-1).tolist():
                own = call.rows(torch.tensor([row], device=call.query.device))
                inside = where[row].long()
                count = torch.zeros(rows, dtype=torch.int64, device=inside.device)
                total = count.index_add(0, of_query, self._real(row, inside))
                count = count.index_add(0, of_query, inside * self._real(row, inside))
                found = kept_blocks(edit, own, self._layer)
                whole = count == total
                blocks[row] = torch.where(whole[:, None], found, True)
                if bool(((count > 0) & ~whole).any()):
                    part = found[:, of_query][
                        :, :, torch.arange(call.keys, device=inside.device) // edit.block
                    ]
                    if allowed is None:
                        allowed = torch.ones(
                            batch, heads, call.queries, call.keys, dtype=torch.bool, device=inside.device
                        )
                    allowed[row] &= part | ~where[row][None, :, None]
            blocks = _refined(blocks, call, edit.block, self._finest)
            kept = blocks if kept is None else kept & blocks
        return kept, allowed

    def _real(self, row: int, like: Tensor) -> Tensor:
        """Which queries of a row are not padding, as numbers."""
        valid = self._scene.now.valid
        return torch.ones_like(like) if valid is None else valid[row].long()

    def _gathered(self, call: AttentionCall) -> bool:
        """Whether the queries were taken out of their pass, so that they are not the last positions of the keys."""
        positions = self._scene.now.positions
        expected = torch.arange(call.first_query, call.keys, device=positions.device)
        return positions.shape[1] != call.queries or not bool((positions == expected).all())

    def _by_token(self, edit: mask.AttentionMask, call: AttentionCall, where: Tensor) -> Tensor:
        if not is_static(edit):
            raise EditRefused(
                f"The pattern {edit.pattern} ranks blocks by all their queries, but layer {self._layer} skips some of them.",
                "Use a static pattern there (window, strided, random, explicit), or other layers.",
            )
        heads, device = call.query.shape[1], call.query.device
        size = -(-call.keys // edit.block)
        blocks = of_heads(edit, static_blocks(edit, heads, self._layer, 0, size, size, device))
        query = self._scene.now.positions // edit.block
        key = torch.arange(call.keys, device=device) // edit.block
        kept = torch.stack([blocks[:, row][:, :, key] for row in query])
        return kept | ~where[:, None, :, None]

    def _hidden(self, call: AttentionCall) -> Tensor | None:
        """Which keys each query may see [B, 1, Q, K], where tokens are hidden from the others."""
        if not self._tokens:
            return None
        now = self._scene.now
        gone = torch.zeros(now.positions.shape[0], call.keys, dtype=torch.bool, device=call.query.device)
        scores = memory_of(self._scene.cache).scores
        key = ("mask.tokens", self._layer)
        before = scores.get(key)
        if before is not None:
            past = min(now.past, before.shape[1])
            gone[:, :past] = before[:, :past].bool().expand(gone.shape[0], -1)
        here = torch.zeros_like(now.positions, dtype=torch.bool)
        for _, where in self._scene.scoped(self._tokens, self._layer):
            here = here | where
        gone.scatter_(1, now.positions, gone.gather(1, now.positions) | here)
        self._note_hidden(here)
        scores[key] = gone.float()
        if not bool(gone.any()):
            return None
        own = torch.arange(call.keys, device=gone.device) == now.positions.unsqueeze(-1)
        return (~gone[:, None, :] | own).unsqueeze(1)

    def _note_hidden(self, hidden: Tensor) -> None:
        """Tokens whose keys are computed, and those ``hidden`` [B, S] among them, of the rows that hide any."""
        asked = hidden.any(1, keepdim=True).expand_as(hidden).long().reshape(-1)
        masked = hidden.long().reshape(-1)
        self._scene.work.append(
            Work(self._layer, "attention_tokens", "model", self._scene.now, asked, 0 * asked, masked)
        )

    def _note(self, call: AttentionCall, kept: Tensor | None, report: AttentionReport) -> None:
        """Blocks computed and left out; the model's own function computes every block and masks."""
        seen = visible(call, self._finest)[:, None].expand(*call.query.shape[:2], -1, -1)
        not_kept = torch.zeros_like(seen) if kept is None else seen & ~kept
        left = seen & report.dropped[:, :, None, None] | not_kept & report.ours[:, None, None, None]
        skipped = left.flatten(1).sum(-1)
        self._scene.work.append(
            Work(
                self._layer,
                "attention_blocks",
                report.kernel,
                self._scene.now,
                seen.flatten(1).sum(-1) - skipped,
                skipped,
                (not_kept & ~left).flatten(1).sum(-1),
            )
        )

    def _measure(
        self,
        scoped: Planned[mask.AttentionMask],
        call: AttentionCall,
        kept: Tensor | None,
        allowed: Tensor | None,
    ) -> None:
        if not self._record:
            return
        names = [edit.pattern for edit, _ in scoped] + (
            ["tokens"] if allowed is not None and self._tokens else []
        )
        rows = (
            torch.linspace(0, call.queries - 1, min(call.queries, MEASURED), device=call.query.device)
            .round()
            .long()
        )
        for row in range(call.query.shape[0]):
            one = call.rows(torch.tensor([row], device=call.query.device))
            attention = attention_rank.attention_map(
                one.query, one.key, one.scale, one.mask, softcap=one.softcap, sinks=one.sinks
            )[0].float()[:, rows]
            self._report(one, attention, rows, row, "+".join(sorted(set(names))), kept, allowed)

    def _report(
        self, call: AttentionCall, attention: Tensor, rows: Tensor, row: int, names: str, kept: Tensor | None,
        allowed: Tensor | None,
    ) -> None:  # fmt: skip
        heads = attention.shape[0]
        stays = torch.ones_like(attention, dtype=torch.bool)
        if kept is not None:
            first = call.grid(self._finest)[0]
            query = (rows + call.first_query) // self._finest - first
            key = torch.arange(call.keys, device=rows.device) // self._finest
            stays = stays & kept[row][:, query][:, :, key]
        if allowed is not None:
            stays = stays & allowed[min(row, allowed.shape[0] - 1)][..., rows, :]
        real = self._real(row, torch.ones(call.queries, device=rows.device))[rows].bool()
        seen = attention > 0
        masked = attention * stays
        recall = masked.sum(-1)
        if call.sinks is not None:  # they stay, whatever is masked
            recall = recall + (1 - attention.sum(-1)).clamp(min=0)
        value = call.value[0].float().repeat_interleave(heads // call.value.shape[1], 0)
        dense = attention @ value
        sparse = masked @ value / recall.clamp(min=1e-30)[..., None]
        error = (sparse - dense)[:, real].flatten(1).norm(dim=-1) / dense[:, real].flatten(1).norm(
            dim=-1
        ).clamp(min=1e-30)
        whole = visible_tokens(call)[0][rows] if call.rule is not None else seen.any(0)
        density = (stays & whole)[:, real].flatten(1).sum(-1) / whole[real].sum().clamp(min=1)
        self._scene.reports.append(MaskReport(
            self._layer, row, names, self._finest, density.float().cpu(), recall[:, real].mean(-1).cpu(), error.cpu()
        ))  # fmt: skip


def _refined(blocks: Tensor, call: AttentionCall, block: int, finest: int) -> Tensor:
    """Blocks [..., rows, columns] as the finer blocks of the call."""
    if block == finest:
        return blocks
    first, rows, columns = call.grid(finest)
    query = (torch.arange(rows, device=blocks.device) + first) * finest // block - call.grid(block)[0]
    return blocks[..., query, :][..., torch.arange(columns, device=blocks.device) * finest // block]
