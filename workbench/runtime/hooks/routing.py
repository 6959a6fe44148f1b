"""Hooks at the router and the expert bank: the choice is read, edited and kept."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from routing_kernels import MoeExperts
from torch import Tensor, nn

from workbench.anatomy import Block, expert_inputs, router_logits
from workbench.interventions import reroute
from workbench.interventions.routing import NOTHING, Native, route
from workbench.runtime.attach import bank_of
from workbench.runtime.capture import ExpertStats
from workbench.runtime.hooks.scene import Planned, Scene
from workbench.runtime.record import Record


def hook_routing(
    scene: Scene, block: Block, edits: Planned[reroute.Reroute], record: Record | None, undo: ExitStack
) -> None:
    """Read the routing of ``block``, apply ``edits`` to it, and keep the kernel's statistics if there is a ``record``."""
    moe = block.moe
    assert moe is not None
    layer = block.layer
    bank = bank_of(moe.experts)

    def read_logits(_: nn.Module, __: Any, output: Any) -> None:
        scene.capture(layer).logits = router_logits(output, moe.num_experts)

    def apply(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        capture = scene.capture(layer)
        ids, weights = expert_inputs(args, kwargs)[1:]
        capture.native_ids, capture.native_weights = ids, weights
        capture.ids, capture.weights = ids, weights
        scoped = [(edit, where.reshape(-1)) for edit, where in scene.scoped(edits, layer)]
        if scoped:
            # A re-route is refused where the router's logits and rule are not proved.
            assert capture.logits is not None and moe.rule is not None
            native = Native(capture.logits, ids, weights, scene.now.positions.reshape(-1), layer)
            routed = route(scoped, native, moe.rule, lambda edit: _routes(scene, edit, layer))
            capture.ids, capture.weights = routed.ids, routed.weights
            capture.selection, capture.edited = routed.selection, routed.edited
            # Our kernels leave an unused slot out; the model's own know none, so it gets a valid id and no weight.
            executed = routed.ids if bank is not None else routed.ids.masked_fill(routed.ids == NOTHING, 0)
            return with_choice(args, kwargs, ids, weights, executed, routed.weights)
        return None

    if moe.proved:
        undo.callback(moe.router.register_forward_hook(read_logits).remove)
    undo.callback(moe.experts.register_forward_pre_hook(apply, with_kwargs=True).remove)
    if record is not None and bank is not None:

        def keep_statistics(out: MoeExperts) -> None:
            scene.capture(layer).experts = ExpertStats(
                out.slot_norm, out.hidden_l1, out.hidden_l2, out.hidden_zero, out.hidden_below
            )

        bank.sink, bank.threshold = keep_statistics, record.threshold
        undo.callback(setattr, bank, "sink", None)


def _routes(scene: Scene, edit: reroute.Replay, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    source = scene.lookup(edit.run, layer)
    positions = scene.now.positions.reshape(-1)
    inside = positions < source.known.shape[0]
    at = positions.clamp(max=source.known.shape[0] - 1)
    return source.ids[at], source.weights[at], source.known[at] & inside


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
