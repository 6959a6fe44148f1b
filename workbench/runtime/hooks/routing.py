"""Hooks at the router and the expert bank: the choice is read, edited and kept."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from routing_kernels import ExpertRows
from torch import Tensor, nn

from workbench.anatomy import Block, expert_inputs, router_logits
from workbench.interventions import reroute
from workbench.interventions.edit import Edit
from workbench.interventions.ragged import NOTHING
from workbench.interventions.routing import Native, route
from workbench.interventions.vectors import pick
from workbench.runtime.around import Around
from workbench.runtime.attach import bank_of
from workbench.runtime.capture import ExpertStats
from workbench.runtime.hooks.mounts import Mounts
from workbench.runtime.hooks.scene import Planned, Scene, Work
from workbench.runtime.record import Record


def hook_routing(
    scene: Scene, block: Block, edits: Planned[Edit], record: Record | None, mounts: Mounts, *, edited: bool = True
) -> None:  # fmt: skip
    """Read the routing of ``block``, apply ``edits`` to it, and keep the kernel's statistics if there is a ``record``.

    ``edited`` says that some edit holds in the layer. Where none does, what is executed is the model's own choice, and our
    kernel's call says it: that saves a hook.
    """
    moe = block.moe
    assert moe is not None
    layer = block.layer
    bank = bank_of(moe.experts)
    told = bank is not None and record is not None and not edited

    def read_logits(_: nn.Module, __: Any, output: Any) -> None:
        scene.captures[layer].logits = router_logits(output, moe.num_experts, moe.logits_place)

    added: list[tuple[reroute.Pseudo, Tensor]] = []

    def apply(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        capture = scene.captures[layer]
        ids, weights = expert_inputs(args, kwargs)[1:]
        capture.native_ids, capture.native_weights = ids, weights
        capture.ids, capture.weights = ids, weights
        scoped = [(edit, where.reshape(-1)) for edit, where in scene.scoped(edits, layer)]
        if scoped:
            # A re-route is refused where the router's logits and rule are not proved.
            assert capture.logits is not None and moe.rule is not None
            routed = route(
                scoped, _native(scene, layer, capture.logits, ids, weights), moe.rule, Around(scene, layer)
            )
            added[:] = routed.pseudo
            capture.ids, capture.weights = routed.ids, routed.weights
            capture.selection, capture.edited = routed.selection, routed.edited
            # Our kernels leave an unused slot out; the model's own know none, so it gets a valid id and no weight.
            executed = routed.ids
            if bank is None:
                capture.unused = routed.ids == NOTHING
                executed = routed.ids.masked_fill(capture.unused, 0)
            return with_choice(args, kwargs, ids, weights, executed, routed.weights)
        return None

    def add(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        hidden = expert_inputs(args, kwargs)[0]
        for edit, weight in added:
            output = output + _pseudo(edit, scene, layer, hidden, weight).reshape(output.shape).to(
                output.dtype
            )
        added.clear()
        return output

    if any(isinstance(edit, reroute.Pseudo) and edit.output != "zero" for edit, _ in edits):
        mounts.callback(moe.experts.register_forward_hook(add, with_kwargs=True).remove)
    if moe.proved:
        mounts.after(moe.router, read_logits)
    if not told:
        mounts.before(moe.experts, apply, with_kwargs=True)
    if record is not None and bank is not None:

        def keep(out: ExpertRows, ids: Tensor, weights: Tensor, seconds: float) -> None:
            capture = scene.captures[layer]
            if told:
                capture.native_ids, capture.native_weights = capture.ids, capture.weights = ids, weights
            capture.experts = ExpertStats(out.norms, out.tallies)
            capture.seconds = seconds

        def listen() -> None:
            bank.sink, bank.threshold = keep, record.threshold

        mounts.during(listen, partial(setattr, bank, "sink", None))


def hook_unused(scene: Scene, block: Block, undo: ExitStack) -> None:
    """Count the slots that edits left without an expert where the model's own kernels compute them all the same."""
    assert block.moe is not None
    if bank_of(block.moe.experts) is not None:
        return  # ours drop them, and count what they ran

    def note(*_: Any) -> None:
        unused = scene.captures[block.layer].unused
        if unused is None or not bool(unused.any()):
            return
        masked = unused.sum(-1)
        slots = torch.full_like(masked, unused.shape[-1])
        scene.work.append(
            Work(block.layer, "moe_experts", "model", scene.now, slots, torch.zeros_like(slots), masked)
        )

    undo.callback(block.moe.experts.register_forward_pre_hook(note).remove)


def _native(scene: Scene, layer: int, logits: Tensor, ids: Tensor, weights: Tensor) -> Native:
    now = scene.now
    positions = now.positions
    steps = (positions - now.prompt_tokens.unsqueeze(-1) + 1).clamp(min=0)
    rows = torch.arange(len(positions), device=positions.device).unsqueeze(-1).expand_as(positions)
    valid = torch.ones_like(positions, dtype=torch.bool) if now.valid is None else now.valid
    positions, tokens, rows, steps, valid = (
        part.reshape(-1) for part in (positions, now.tokens, rows, steps, valid)
    )
    return Native(logits, ids, weights, positions, tokens, rows, steps, valid, layer)


def _pseudo(edit: reroute.Pseudo, scene: Scene, layer: int, hidden: Tensor, weight: Tensor) -> Tensor:
    """What pseudo-experts add [T, H] to the output of the bank, given its input and the ``weight`` [T] of each token."""
    hidden = hidden.reshape(len(weight), -1)
    if edit.output == "zero":
        return torch.zeros_like(hidden)
    if edit.output == "copy":
        return weight.unsqueeze(-1).to(hidden.dtype) * hidden
    assert edit.vector is not None
    constant = pick(edit, edit.vector, layer, scene.now.positions.reshape(-1), hidden)
    return weight.unsqueeze(-1).to(hidden.dtype) * constant


def with_choice(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    ids: Tensor,
    weights: Tensor,
    new_ids: Tensor,
    new_weights: Tensor,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of an expert bank with another choice: ids and weights are known by identity."""

    def swap(value: Any) -> Any:
        return new_ids if value is ids else new_weights if value is weights else value

    return tuple(swap(value) for value in args), {name: swap(value) for name, value in kwargs.items()}
