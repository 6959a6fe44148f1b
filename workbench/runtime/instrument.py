"""Hooks of one session: at each site read the signal, apply the plan, keep what was executed.

A session is open while a run goes on and leaves nothing behind: it removes exactly the handles it made and gives skipped
blocks their own forward back, so the user's hooks stay where they were. What is done at which site stands in
:mod:`workbench.runtime.hooks`; here is which of it a run needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from workbench.anatomy import Anatomy, Block
from workbench.errors import EditRefused
from workbench.interventions import Plan, mask, reroute
from workbench.interventions.edit import Edit
from workbench.interventions.site import SiteEdit
from workbench.runtime.arena import Arena
from workbench.runtime.attach import Attachment, AttentionSink
from workbench.runtime.capture import Capture
from workbench.runtime.history import History
from workbench.runtime.hooks.attention import hook_attention, keep_attention, sample_attention
from workbench.runtime.hooks.attention_mask import hook_attention_mask
from workbench.runtime.hooks.depth import hook_depth, plan_depth
from workbench.runtime.hooks.experts import hook_experts
from workbench.runtime.hooks.heads import drop_heads, hook_heads
from workbench.runtime.hooks.lens import hook_lens
from workbench.runtime.hooks.mounts import Mounts
from workbench.runtime.hooks.neurons import hook_activation, hook_neurons
from workbench.runtime.hooks.routing import hook_routing, hook_unused
from workbench.runtime.hooks.scene import Lookup, Part, Planned, Scene, Values
from workbench.runtime.hooks.stream import hook_contribution
from workbench.runtime.hooks.weights import hook_weights
from workbench.runtime.hooks.write import hook_site
from workbench.runtime.passes import Pass
from workbench.runtime.record import Record

E = TypeVar("E", bound=Edit)


class Session:
    """The hooks of one run or batch of runs.

    Parameters
    ----------
    plans
        One plan per row of the batch; paths and aliases must agree, because a place runs one block for all rows.
    record
        What to keep, or ``None`` for nothing.
    arena
        Room for copies.
    lookup
        Where replayed routes come from.
    values
        Where patched values come from.
    arity
        How many things each block, attention and MLP returns in a tuple, 0 for a bare tensor.
    labels
        The labels of each row's run.
    token_text
        The text of a token id.
    manage_depth
        Whether depth is looked after although no plan edits it, because tokens in the cache skipped some layer.
    history
        What earlier passes of these runs left, where another session made them.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        attachment: Attachment,
        plans: Sequence[Plan],
        record: Record | None,
        arena: Arena,
        lookup: Lookup,
        values: Values,
        arity: Mapping[nn.Module, int],
        labels: Sequence[Mapping[str, Any]],
        token_text: Callable[[int], str],
        manage_depth: bool = False,
        history: History | None = None,
    ) -> None:
        self._anatomy = anatomy
        self._continues = history is not None
        self.history = history if history is not None else History()
        self.open = False
        self._scene = Scene(
            anatomy, attachment, record, arena, lookup, values, arity, labels, token_text, self.history
        )
        self._edits = _by_layer(anatomy, plans)
        self._asked = {
            n for layer, edits in self._edits.items() for e, _ in edits for n in e.asked_layers(layer)
        }
        self._depth = plan_depth(self._scene, self._edits, plans, manage_depth)
        self._mounts: Mounts | None = None
        self._more = Mounts()

    def __enter__(self) -> Session:
        if self._mounts is not None:  # opened before
            if not self._continues:
                self.history = self._scene.history = History()
            if self._mounts.repeatable:
                self._mounts.again()
                self.open = True
                return self
        mounts = Mounts()
        try:
            for block in self._anatomy.blocks:  # other products, which depth asks for some tokens alone
                self._replace_products(block, mounts)
            if self._depth is not None:  # before what listens, which must see what depth makes of a sublayer
                hook_depth(self._scene, *self._depth, mounts)
            for block in self._anatomy.blocks:
                self._hook_block(block, mounts)
            if self._scene.record is not None and self._scene.record.needs_parts:
                hook_lens(self._scene, mounts)
        except BaseException:
            mounts.close()
            raise
        self._mounts, self.open = mounts, True
        return self

    def __exit__(self, *_: object) -> None:
        self._more.close()
        self._more = Mounts()
        if self._mounts is not None:
            self._mounts.close()
        self._scene.begin(None)
        self.open = False

    @property
    def captures(self) -> dict[int, Capture]:
        """What the hooks saw in the running pass, by layer, of layers that ran for all its tokens."""
        return self._scene.captures

    def taken(self) -> Iterator[Part]:
        """What there is to record of the running pass: the whole of it, then what ran for some of its tokens alone."""
        scene = self._scene
        # What a device still computes is not known to the clock of the host.
        timed = scene.now.positions.device.type == "cpu"
        seconds = time.perf_counter() - scene.started if timed else None
        yield Part(scene.now, scene.captures, scene.events, scene.work, scene.reports, seconds)
        for part, captures in scene.parts:
            yield Part(part, captures)

    def watch_routing(self, layer: int) -> None:
        """Keep the routing of ``layer`` in the captures even if nothing is recorded there."""
        block = self._anatomy.layer(layer)
        if not any(_acts_on_router(edit) for edit, _ in self._edits[layer]):
            hook_routing(self._scene, block, [], None, self._more)

    def begin(self, now: Pass) -> None:
        """Start a forward pass; what the last one captured is let go."""
        self._scene.begin(now)

    def _replace_products(self, block: Block, mounts: Mounts) -> None:
        """Put in place what computes projections and neurons otherwise."""
        edits = self._edits[block.layer]
        weights = _of(edits, mask.WeightMask)
        neurons: Planned[Any] = [(e, r) for e, r in edits if isinstance(e, mask.Neurons | mask.Activations)]
        if weights and neurons:
            raise EditRefused(
                f"{weights[0][0].kind} and {neurons[0][0].kind} cannot hold together in layer {block.layer}: each computes "
                "its MLP in its own way.",
                "Give them different layers.",
            )
        if weights:
            hook_weights(self._scene, block, weights, mounts)
        if neurons:
            hook_neurons(self._scene, block, neurons, mounts)

    def _hook_block(self, block: Block, mounts: Mounts) -> None:
        scene = self._scene
        edits = self._edits[block.layer]
        record = scene.recorded(block.layer)
        reroutes = [(edit, rows) for edit, rows in edits if _acts_on_router(edit)]
        wanted = record is not None and (record.routing or record.wants_scores or record.sparsity)
        wanted = wanted or (record is not None and (record.logit_effect or record.census))
        wanted = wanted or block.layer in self._asked
        if block.moe is not None and block.moe.observable and (reroutes or wanted):
            hook_routing(scene, block, reroutes, record, mounts, edited=bool(edits))
        if silenced := _of(edits, mask.Experts):
            hook_experts(scene, block, silenced, mounts)
        if silenced or reroutes:
            hook_unused(scene, block, mounts)
        if _of(edits, mask.Heads):
            drop_heads(scene, block, edits, mounts)
        # One hook an edit, so that edits of one site act in the order of the plan.
        for edit, rows in edits:
            if isinstance(edit, mask.Heads):
                hook_heads(scene, block, [(edit, rows)], mounts)
            elif isinstance(edit, SiteEdit) and not _acts_on_router(edit):
                hook_site(scene, block, edit, rows, mounts)
        if masks := [(e, rows) for e, rows in edits if isinstance(e, mask.AttentionMask | mask.TokenMask)]:
            hook_attention_mask(scene, block, masks, record is not None, mounts)
        parts = scene.record is not None and scene.record.needs_parts  # of every block, recorded or not
        if parts or (record and record.contribution):
            measure = record is not None and record.contribution
            hook_contribution(scene, block, mounts, measure=measure, keep_parts=parts)
        if record and (record.sparsity or record.census):
            hook_activation(scene, block, record, mounts)
        for sink in self._attention_sinks(block, reroutes, record):
            hook_attention(block, sink, mounts)

    def _attention_sinks(
        self, block: Block, reroutes: Planned[Edit], record: Record | None
    ) -> list[AttentionSink]:
        """Who wants to see the attention of ``block``."""
        visible = block.attention is not None and self._scene.attachment.sees_attention
        sinks: list[AttentionSink] = []
        if any(isinstance(edit, reroute.Smooth) and edit.by == "attention" for edit, _ in reroutes):
            if not visible:
                raise EditRefused(
                    f"The attention of layer {block.layer} cannot be seen, so it cannot weigh the scores of tokens.",
                    "Smooth by a window or a matrix.",
                )
            sinks.append(keep_attention(self._scene, block.layer))
        if visible and record and record.wants_attention:
            sinks.append(sample_attention(self._scene, block.layer, record))
        return sinks

    def listen(self, layer: int, sink: AttentionSink) -> None:
        """Let ``sink`` see the attention of ``layer`` too, until the session ends."""
        hook_attention(self._anatomy.layer(layer), sink, self._more)


def _acts_on_router(edit: Edit) -> bool:
    return isinstance(edit, reroute.Reroute) or edit.site in ("router_logits", "expert_scores")


def _of(edits: Planned[Edit], kind: type[E]) -> Planned[E]:
    return [(edit, rows) for edit, rows in edits if isinstance(edit, kind)]


def _by_layer(anatomy: Anatomy, plans: Sequence[Plan]) -> dict[int, Planned[Edit]]:
    """The enabled edits of every layer, in plan order, each with the rows of the batch that have it."""
    found: dict[int, Planned[Edit]] = {block.layer: [] for block in anatomy.blocks}
    if not any(plan.active for plan in plans):
        return found
    rows_of: dict[str, list[int]] = {}
    plan_of: dict[str, Plan] = {}
    for row, plan in enumerate(plans):
        text = plan.model_dump_json()
        rows_of.setdefault(text, []).append(row)
        plan_of[text] = plan
    device = next(anatomy.model.parameters()).device
    for text, plan in plan_of.items():
        rows = torch.zeros(len(plans), dtype=torch.bool, device=device)
        rows[rows_of[text]] = True
        for edit in plan.active:
            for layer in edit.layers_in(anatomy):
                found[layer].append((edit, rows))
    return found
