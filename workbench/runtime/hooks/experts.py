"""Hooks at the expert bank: experts that are silenced where they were chosen."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from workbench.anatomy import Block, expert_inputs
from workbench.interventions import mask
from workbench.interventions.ragged import NOTHING
from workbench.runtime.artefacts import opened
from workbench.runtime.attach import bank_of
from workbench.runtime.calibrate import SAMPLES, tensor
from workbench.runtime.depth.decide import uniform
from workbench.runtime.hooks.routing import with_choice
from workbench.runtime.hooks.scene import Planned, Scene
from workbench.runtime.hooks.units import units_of


def hook_experts(scene: Scene, block: Block, edits: Planned[mask.Experts], undo: ExitStack) -> None:
    """Take masked experts out of the choices, after every re-route, and add what stands in their place."""
    assert block.moe is not None  # the plan was checked against the anatomy
    moe, layer = block.moe, block.layer
    bank = bank_of(moe.experts)
    chosen = {id(edit): units_of(edit, block) for edit, _ in edits}
    added: list[Tensor] = []

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        added.clear()
        hidden, ids, weights = expert_inputs(args, kwargs)
        flat = hidden.reshape(-1, hidden.shape[-1])
        gone = torch.zeros_like(ids, dtype=torch.bool)
        for edit, where in scene.scoped(edits, layer):
            mine = torch.isin(ids, chosen[id(edit)].to(ids.device)) & where.reshape(-1, 1) & ~gone
            gone = gone | mine
            if edit.replacement != "zero":
                value = _instead(edit, layer, ids, flat, scene.now.positions.reshape(-1))
                added.append((value * (weights * mine).unsqueeze(-1).to(value.dtype)).sum(1).to(flat.dtype))
        if not bool(gone.any()):
            return None
        capture = scene.captures[layer]
        executed = ids.masked_fill(gone, NOTHING)
        if capture.ids is not None:
            capture.ids = capture.ids.masked_fill(gone, NOTHING)
            changed = gone.any(-1)
            capture.edited = changed if capture.edited is None else capture.edited | changed
        passed = executed
        if bank is None:  # the model's own kernels know no unused slot, so it gets a valid id and no weight
            capture.unused = gone if capture.unused is None else capture.unused | gone
            passed = executed.masked_fill(gone, 0)
        return with_choice(args, kwargs, ids, weights, passed, weights.masked_fill(gone, 0.0))

    def after(_: nn.Module, __: Any, output: Tensor) -> Tensor | None:
        if not added:
            return None
        return output + sum(added).reshape(output.shape)  # type: ignore[union-attr]

    undo.callback(moe.experts.register_forward_pre_hook(before, with_kwargs=True).remove)
    undo.callback(moe.experts.register_forward_hook(after).remove)


def _instead(edit: mask.Experts, layer: int, ids: Tensor, hidden: Tensor, positions: Tensor) -> Tensor:
    """What stands for each choice [T, k, H]: its own input, the expert's mean output, or one of its sampled outputs."""
    if edit.replacement == "identity":
        return hidden.unsqueeze(1).expand(*ids.shape, -1)
    assert edit.source is not None
    known = opened(edit.source, "calibration")
    experts = int(ids.max()) + 1
    what = "mean" if edit.replacement == "mean" else "samples"
    table = torch.stack([tensor(known, f"{layer}.expert.{e}.out.{what}") for e in range(experts)]).to(hidden)
    at = ids.clamp(min=0)
    if what == "mean":
        return table[at]
    drawn = (uniform(edit.seed, layer, positions) * SAMPLES).long().clamp(max=SAMPLES - 1)
    return table[at, drawn.unsqueeze(-1)]
