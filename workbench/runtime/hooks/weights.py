"""Hooks at the projections: entries of weights that count as zero. The weights themselves stay as they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import routing_kernels
import torch
from torch import Tensor, nn

from workbench.anatomy import Block, expert_inputs
from workbench.errors import EditRefused
from workbench.interventions import mask
from workbench.runtime.attach import bank_of
from workbench.runtime.attach.experts import unfit_bank
from workbench.runtime.calibrate import projections
from workbench.runtime.hooks.scene import Planned, Scene, Work
from workbench.runtime.replace import replace_forward
from workbench.runtime.weight_masks import kept_entries


def hook_weights(scene: Scene, block: Block, edits: Planned[mask.WeightMask], undo: ExitStack) -> None:
    """Run the projections of ``block`` on the kept entries of their weights alone, row by row of the batch."""
    found = projections(block)
    if not found and block.moe is None:
        raise EditRefused(
            f"Layer {block.layer} has no projection that a weight mask covers: {type(block.module).__name__} calls them "
            "otherwise or keeps their weights transposed.",
            "Mask neurons or heads there.",
        )
    for edit, _ in edits:
        missing = [part for part in edit.parts if part not in found and part != "experts"]
        if missing:
            raise EditRefused(
                f"Layer {block.layer} has no projection called {missing[0]}.",
                f"It has {', '.join(found) or 'none'}.",
            )
    for part, linear in found.items():
        mine = [(edit, rows) for edit, rows in edits if not edit.parts or part in edit.parts]
        if mine:
            _hook_linear(scene, block, part, linear, mine, undo)
    mine = [(edit, rows) for edit, rows in edits if not edit.parts or "experts" in edit.parts]
    if mine and block.moe is not None:
        reason = unfit_bank(block.moe.experts)
        if reason:
            raise EditRefused(
                f"The experts of layer {block.layer} cannot be masked: {reason}.", "Name other parts."
            )
        _hook_experts(scene, block, mine, undo)


def _groups(edits: Planned[mask.WeightMask]) -> list[tuple[Tensor, list[mask.WeightMask]]]:
    """Rows of the batch [B] with the same edits, and those edits."""
    held = torch.stack([rows for _, rows in edits])
    groups: dict[tuple[bool, ...], list[int]] = {}
    for row, column in enumerate(held.T.tolist()):
        groups.setdefault(tuple(column), []).append(row)
    found = []
    for column, rows in groups.items():
        where = torch.zeros(held.shape[1], dtype=torch.bool, device=held.device)
        where[rows] = True
        found.append((where, [edit for (edit, _), holds in zip(edits, column, strict=True) if holds]))
    return found


def _hook_linear(
    scene: Scene, block: Block, part: str, linear: nn.Linear, edits: Planned[mask.WeightMask],
    undo: ExitStack,
) -> None:  # fmt: skip
    weight, layer = linear.weight.detach(), block.layer
    reads = f"{layer}.input.{part}"
    packed: list[tuple[Tensor, routing_kernels.MaskedWeight | None]] = []
    for rows, held in _groups(edits):
        kept = torch.ones(weight.shape, dtype=torch.bool)
        for edit in held:
            kept &= kept_entries(edit, linear, weight, layer, part, reads)
        whole = bool(kept.all())
        packed.append((rows, None if whole else routing_kernels.pack_masked(weight, kept.to(weight.device))))
    own = linear.forward

    def product(x: Tensor, masked: routing_kernels.MaskedWeight | None) -> Tensor:
        if masked is None:
            return own(x)
        flat = x.reshape(-1, x.shape[-1])
        y = routing_kernels.masked_matmul(flat, masked, backend=scene.attachment.ops).reshape(
            *x.shape[:-1], -1
        )
        return y if linear.bias is None else y + linear.bias

    def forward(x: Tensor) -> Tensor:
        of_token = scene.now.of_rows(torch.arange(len(packed[0][0]), device=x.device)).reshape(-1)
        if len(packed) == 1:
            _note(scene, layer, of_token, packed, weight.numel())
            return product(x, packed[0][1])
        flat = x.reshape(-1, x.shape[-1])
        out = flat.new_empty(len(flat), weight.shape[0])
        for rows, masked in packed:
            at = rows[of_token]
            if bool(at.any()):
                out[at] = product(flat[at].unsqueeze(0), masked)[0]
        _note(scene, layer, of_token, packed, weight.numel())
        return out.reshape(*x.shape[:-1], -1)

    undo.callback(replace_forward(linear, forward))


def _note(
    scene: Scene, layer: int, of_token: Tensor,
    packed: list[tuple[Tensor, routing_kernels.MaskedWeight | None]], size: int,
) -> None:  # fmt: skip
    """Entries multiplied and left out, by token."""
    done = torch.zeros(len(of_token), dtype=torch.int64, device=of_token.device)
    for rows, masked in packed:
        done[rows[of_token]] = size if masked is None else int(masked.start[-1])
    scene.work.append(Work(layer, "masked_matmul", scene.attachment.ops, scene.now, done, size - done))


def _hook_experts(scene: Scene, block: Block, edits: Planned[mask.WeightMask], undo: ExitStack) -> None:
    assert block.moe is not None
    module: Any = block.moe.experts
    masked = [(rows, _masked_bank(held, module, block.layer)) for rows, held in _groups(edits)]
    if any(bank is not None for _, bank in masked):
        forward = _bank_forward(scene, block.layer, module, module.forward, masked)
        undo.callback(replace_forward(module, forward))


class _MaskedBank(NamedTuple):
    """Both layers of a bank with the kept entries alone, and how many those are of each expert [E]."""

    gate_up: routing_kernels.MaskedExpertLinear
    down: routing_kernels.MaskedExpertLinear
    kept: Tensor


def _masked_bank(held: list[mask.WeightMask], module: Any, layer: int) -> _MaskedBank | None:
    """The bank under the edits ``held``; ``None`` where everything is kept."""
    if not held:
        return None
    packed: list[routing_kernels.MaskedExpertLinear] = []
    size = 0
    for name, reads in (("gate_up_proj", "input"), ("down_proj", "neurons")):
        weight = getattr(module, name).detach()
        size += weight.numel()
        experts = []
        for e in range(len(weight)):
            kept = torch.ones(weight[e].shape, dtype=torch.bool)
            for edit in held:
                kept &= kept_entries(
                    edit, module, weight[e], layer, f"experts.{e}.{name}", f"{layer}.expert.{e}.{reads}"
                )
            experts.append(routing_kernels.pack_masked(weight[e], kept.to(weight.device)))
        packed.append(routing_kernels.MaskedExpertLinear(tuple(experts)))
    sums = [torch.stack([one.start[-1] for one in part.experts]) for part in packed]
    kept_of = sums[0] + sums[1]
    return None if int(kept_of.sum()) == size else _MaskedBank(packed[0], packed[1], kept_of)


def _bank_forward(
    scene: Scene,
    layer: int,
    module: Any,
    own: Callable[..., Tensor],
    masked: list[tuple[Tensor, _MaskedBank | None]],
) -> Callable[..., Tensor]:
    def note(ids: Tensor, of_token: Tensor) -> None:
        """Entries multiplied and left out, by token."""
        done, asked = torch.zeros_like(of_token), torch.zeros_like(of_token)
        size = module.gate_up_proj[0].numel() + module.down_proj[0].numel()
        for rows, bank in masked:
            if bank is not None:
                used = (ids >= 0) & (ids < len(bank.kept)) & rows[of_token].unsqueeze(-1)
                asked += used.sum(-1) * size
                done += (bank.kept[ids.clamp(0, len(bank.kept) - 1)] * used).sum(-1)
        scene.work.append(Work(layer, "masked_matmul", scene.attachment.ops, scene.now, done, asked - done))

    def run(hidden: Tensor, ids: Tensor, weights: Tensor, bank: _MaskedBank) -> Tensor:
        own_bank = bank_of(module)
        stats = own_bank is not None and own_bank.sink is not None and len(masked) == 1
        started = time.perf_counter()
        out = routing_kernels.composed_experts(
            hidden, ids, weights, bank.gate_up, bank.down, module._apply_gate, stats=stats,
            threshold=0.01 if own_bank is None else own_bank.threshold, backend=scene.attachment.ops,
        )  # fmt: skip
        if stats and own_bank is not None and own_bank.sink is not None:
            own_bank.sink(out.rows(), ids, weights, time.perf_counter() - started)
        return out.y

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        hidden, ids, weights = expert_inputs(args, kwargs)
        flat = hidden.reshape(-1, hidden.shape[-1])
        of_token = scene.now.of_rows(torch.arange(len(masked[0][0]), device=flat.device)).reshape(-1)
        note(ids, of_token)
        out = torch.empty_like(flat)
        for rows, bank in masked:
            at = rows[of_token]
            if bool(at.all()) and len(masked) == 1 and bank is not None:
                return run(flat, ids, weights, bank).reshape(hidden.shape)
            if bool(at.any()):
                part = (flat[at], ids[at], weights[at])
                out[at] = quiet(module, partial(own, *part)) if bank is None else run(*part, bank)
        return out.reshape(hidden.shape)

    return forward


def quiet(module: Any, run: Callable[[], Tensor]) -> Tensor:
    """``run`` without the statistics of the bank ``module``."""
    bank = bank_of(module)
    if bank is None or bank.sink is None:
        return run()
    sink, bank.sink = bank.sink, None
    try:
        return run()
    finally:
        bank.sink = sink
