"""Hooks of one session: at each site read the signal, apply the plan, keep what was executed.

A session is open while a run goes on and leaves nothing behind: it removes exactly the handles it made and gives skipped
blocks their own forward back, so the user's hooks stay where they were. What is done at which site stands in
:mod:`workbench.runtime.hooks`; here is which of it a run needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from workbench.anatomy import Anatomy, Block
from workbench.errors import EditRefused
from workbench.interventions import Plan, mask, reroute, skip
from workbench.interventions.edit import Edit
from workbench.runtime.attach import Attachment
from workbench.runtime.capture import Capture
from workbench.runtime.hooks.attention import hook_attention_rank, hook_heads
from workbench.runtime.hooks.depth import hook_skipped_block
from workbench.runtime.hooks.lens import hook_lens
from workbench.runtime.hooks.neurons import hook_activation
from workbench.runtime.hooks.routing import hook_routing
from workbench.runtime.hooks.scene import Lookup, Planned, Scene
from workbench.runtime.hooks.stream import hook_contribution
from workbench.runtime.passes import Pass
from workbench.runtime.record import Record


class Session:
    """The hooks of one run or batch of runs.

    Parameters
    ----------
    plans
        One plan per row of the batch; skipped blocks must agree, because a block either runs or does not.
    record
        What to keep, or ``None`` for nothing.
    lookup
        Where replayed routes come from.
    labels
        The labels of each row's run.
    token_text
        The text of a token id.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        attachment: Attachment,
        plans: Sequence[Plan],
        record: Record | None,
        lookup: Lookup,
        tuple_blocks: frozenset[int],
        labels: Sequence[Mapping[str, Any]],
        token_text: Callable[[int], str],
    ) -> None:
        self._anatomy = anatomy
        self._scene = Scene(anatomy, attachment, record, lookup, tuple_blocks, labels, token_text)
        self._edits = _by_layer(anatomy, plans)
        self._asked = {
            n for layer, edits in self._edits.items() for e, _ in edits for n in e.signal_layers(layer)
        }
        self._undo = ExitStack()

    def __enter__(self) -> Session:
        with ExitStack() as undo:
            for block in self._anatomy.blocks:
                self._hook_block(block, undo)
            if self._scene.record is not None and self._scene.record.needs_parts:
                hook_lens(self._scene, undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()
        self._scene.begin(None)

    @property
    def captures(self) -> dict[int, Capture]:
        """What the hooks saw in the running pass, by layer."""
        return self._scene.captures

    def watch_routing(self, layer: int) -> None:
        """Keep the routing of ``layer`` in the captures even if nothing is recorded there."""
        block = self._anatomy.layer(layer)
        if not any(isinstance(edit, skip.Block | reroute.Reroute) for edit, _ in self._edits[layer]):
            hook_routing(self._scene, block, [], None, self._undo)

    def begin(self, now: Pass) -> None:
        """Start a forward pass; what the last one captured is let go."""
        self._scene.begin(now)

    def _hook_block(self, block: Block, undo: ExitStack) -> None:
        scene = self._scene
        edits = self._edits[block.layer]
        record = scene.recorded(block.layer)
        if any(isinstance(edit, skip.Block) for edit, _ in edits):
            hook_skipped_block(scene, block, undo)
            return
        reroutes = [(edit, rows) for edit, rows in edits if isinstance(edit, reroute.Reroute)]
        wanted = record is not None and (record.routing or record.wants_scores or record.sparsity)
        wanted = wanted or (record is not None and (record.logit_effect or record.census))
        wanted = wanted or block.layer in self._asked
        if block.moe is not None and block.moe.observable and (reroutes or wanted):
            hook_routing(scene, block, reroutes, record, undo)
        heads = [(edit, rows) for edit, rows in edits if isinstance(edit, mask.Heads)]
        if heads:
            hook_heads(scene, block, heads, undo)
        parts = scene.record is not None and scene.record.needs_parts  # of every block, recorded or not
        if parts or (record and record.contribution):
            measure = record is not None and record.contribution
            hook_contribution(scene, block, undo, measure=measure, keep_parts=parts)
        if record and (record.sparsity or record.census):
            hook_activation(scene, block, record, undo)
        if record and record.wants_attention:
            hook_attention_rank(scene, block, record, undo)


def _by_layer(anatomy: Anatomy, plans: Sequence[Plan]) -> dict[int, Planned[Edit]]:
    """The enabled edits of every layer, in plan order, each with the rows of the batch that have it."""
    rows_of: dict[str, list[int]] = {}
    plan_of: dict[str, Plan] = {}
    for row, plan in enumerate(plans):
        text = plan.to_json()
        rows_of.setdefault(text, []).append(row)
        plan_of[text] = plan
    if len({skipped_layers(plan, anatomy) for plan in plans}) > 1:
        raise EditRefused(
            "The rows of a batch skip different blocks, but a block runs for the whole batch or not at all.",
            "Run plans with different skips as separate batches.",
        )
    device = next(anatomy.model.parameters()).device
    found: dict[int, Planned[Edit]] = {block.layer: [] for block in anatomy.blocks}
    for text, plan in plan_of.items():
        rows = torch.zeros(len(plans), dtype=torch.bool, device=device)
        rows[rows_of[text]] = True
        for edit in plan.active:
            for layer in edit.layers_in(anatomy):
                found[layer].append((edit, rows))
    return found


def skipped_layers(plan: Plan, anatomy: Anatomy) -> frozenset[int]:
    """The layers whose block ``plan`` leaves out."""
    return frozenset(
        n for edit in plan.active if isinstance(edit, skip.Block) for n in edit.layers_in(anatomy)
    )
