"""Hooks of one session: at each site read the signal, apply the plan, keep what was executed.

A session is open while a run goes on and leaves nothing behind: it removes exactly the handles it made and gives skipped
blocks their own forward back, so the user's hooks stay where they were. What is done at which site stands in
:mod:`workbench.runtime.hooks`; here is which of it a run needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from torch import nn

from workbench.anatomy import Anatomy, Block
from workbench.errors import EditRefused
from workbench.interventions import Plan, mask, reroute
from workbench.interventions.edit import Edit
from workbench.runtime.artefacts import Artefacts
from workbench.runtime.attach import Attachment
from workbench.runtime.capture import Capture
from workbench.runtime.hooks.attention import hook_attention_rank, hook_heads
from workbench.runtime.hooks.attention_mask import hook_attention_mask
from workbench.runtime.hooks.depth import hook_depth, plan_depth
from workbench.runtime.hooks.experts import hook_experts
from workbench.runtime.hooks.lens import hook_lens
from workbench.runtime.hooks.neurons import hook_activation, hook_neurons
from workbench.runtime.hooks.routing import hook_routing
from workbench.runtime.hooks.scene import Lookup, Part, Planned, Scene
from workbench.runtime.hooks.stream import hook_contribution
from workbench.runtime.hooks.weights import hook_weights
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
    lookup
        Where replayed routes come from.
    arity
        How many things each block, attention and MLP returns in a tuple, 0 for a bare tensor.
    labels
        The labels of each row's run.
    token_text
        The text of a token id.
    artefacts
        The tensors that plans may name.
    manage_depth
        Whether depth is looked after although no plan edits it, because tokens in the cache skipped some layer.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        attachment: Attachment,
        plans: Sequence[Plan],
        record: Record | None,
        lookup: Lookup,
        arity: Mapping[nn.Module, int],
        labels: Sequence[Mapping[str, Any]],
        token_text: Callable[[int], str],
        artefacts: Artefacts,
        manage_depth: bool = False,
    ) -> None:
        self._anatomy = anatomy
        self._scene = Scene(anatomy, attachment, record, lookup, arity, labels, token_text)
        self._edits = _by_layer(anatomy, plans)
        self._asked = {
            n for layer, edits in self._edits.items() for e, _ in edits for n in e.signal_layers(layer)
        }
        self._artefacts = artefacts
        self._depth = plan_depth(self._scene, self._edits, plans, artefacts, manage_depth)
        self._undo = ExitStack()

    def __enter__(self) -> Session:
        with ExitStack() as undo:
            for block in self._anatomy.blocks:  # other products, which depth asks for some tokens alone
                self._replace_products(block, undo)
            if self._depth is not None:  # before what listens, which must see what depth makes of a sublayer
                hook_depth(self._scene, *self._depth, undo)
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
        """What the hooks saw in the running pass, by layer, of layers that ran for all its tokens."""
        return self._scene.captures

    def taken(self) -> Iterator[Part]:
        """What there is to record of the running pass: the whole of it, then what ran for some of its tokens alone."""
        scene = self._scene
        yield Part(scene.now, scene.captures, scene.events, scene.work, scene.reports)
        for part, captures in scene.parts:
            yield Part(part, captures)

    def watch_routing(self, layer: int) -> None:
        """Keep the routing of ``layer`` in the captures even if nothing is recorded there."""
        block = self._anatomy.layer(layer)
        if not any(isinstance(edit, reroute.Reroute) for edit, _ in self._edits[layer]):
            hook_routing(self._scene, block, [], None, self._undo)

    def begin(self, now: Pass) -> None:
        """Start a forward pass; what the last one captured is let go."""
        self._scene.begin(now)

    def _replace_products(self, block: Block, undo: ExitStack) -> None:
        """Put in place what computes projections and neurons otherwise."""
        edits = self._edits[block.layer]
        weights = _of(edits, mask.Weights)
        neurons: Planned[Any] = [(e, r) for e, r in edits if isinstance(e, mask.Neurons | mask.Activations)]
        if weights and neurons:
            raise EditRefused(
                f"{weights[0][0].kind} and {neurons[0][0].kind} cannot hold together in layer {block.layer}: each computes "
                "its MLP in its own way.",
                "Give them different layers.",
            )
        if weights:
            hook_weights(self._scene, block, weights, self._artefacts, undo)
        if neurons:
            hook_neurons(self._scene, block, neurons, self._artefacts, undo)

    def _hook_block(self, block: Block, undo: ExitStack) -> None:
        scene = self._scene
        edits = self._edits[block.layer]
        record = scene.recorded(block.layer)
        reroutes = [(edit, rows) for edit, rows in edits if isinstance(edit, reroute.Reroute)]
        wanted = record is not None and (record.routing or record.wants_scores or record.sparsity)
        wanted = wanted or (record is not None and (record.logit_effect or record.census))
        wanted = wanted or block.layer in self._asked
        if block.moe is not None and block.moe.observable and (reroutes or wanted):
            hook_routing(scene, block, reroutes, record, undo)
        if silenced := _of(edits, mask.Experts):
            hook_experts(scene, block, silenced, self._artefacts, undo)
        if heads := _of(edits, mask.Heads):
            hook_heads(scene, block, heads, self._artefacts, undo)
        if masks := [(e, rows) for e, rows in edits if isinstance(e, mask.AttentionMask | mask.Tokens)]:
            hook_attention_mask(scene, block, masks, record is not None, undo)
        parts = scene.record is not None and scene.record.needs_parts  # of every block, recorded or not
        if parts or (record and record.contribution):
            measure = record is not None and record.contribution
            hook_contribution(scene, block, undo, measure=measure, keep_parts=parts)
        if record and (record.sparsity or record.census):
            hook_activation(scene, block, record, undo)
        if record and record.wants_attention:
            hook_attention_rank(scene, block, record, undo)


def _of(edits: Planned[Edit], kind: type[E]) -> Planned[E]:
    return [(edit, rows) for edit, rows in edits if isinstance(edit, kind)]


def _by_layer(anatomy: Anatomy, plans: Sequence[Plan]) -> dict[int, Planned[Edit]]:
    """The enabled edits of every layer, in plan order, each with the rows of the batch that have it."""
    rows_of: dict[str, list[int]] = {}
    plan_of: dict[str, Plan] = {}
    for row, plan in enumerate(plans):
        text = plan.to_json()
        rows_of.setdefault(text, []).append(row)
        plan_of[text] = plan
    device = next(anatomy.model.parameters()).device
    found: dict[int, Planned[Edit]] = {block.layer: [] for block in anatomy.blocks}
    for text, plan in plan_of.items():
        rows = torch.zeros(len(plans), dtype=torch.bool, device=device)
        rows[rows_of[text]] = True
        for edit in plan.active:
            for layer in edit.layers_in(anatomy):
                found[layer].append((edit, rows))
    return found
