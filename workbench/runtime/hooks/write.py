"""Hooks that write a tensor of the model: patches from other runs, directions, custom functions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from workbench.anatomy import Block, expert_inputs
from workbench.interventions.custom import Custom, Place
from workbench.interventions.direction import Direction
from workbench.interventions.mask import Channels
from workbench.interventions.patch import Patch
from workbench.interventions.site import SiteEdit
from workbench.runtime.artefacts import opened
from workbench.runtime.attach import bank_of, known_bank
from workbench.runtime.hooks.expert_neurons import hook_expert_neurons
from workbench.runtime.hooks.scene import Planned, Scene
from workbench.runtime.hooks.units import fill, units_of
from workbench.runtime.sae import Sae, check_features

Write = Callable[[Tensor], Tensor]
"""The value of a site as the model holds it -> as it is to be."""


def hook_site(scene: Scene, block: Block, edit: SiteEdit, rows: Tensor, undo: ExitStack) -> None:
    """Let ``edit`` write its site of ``block``, for the rows [B] of the batch that have it."""
    planned: Planned[SiteEdit] = [(edit, rows)]
    edited = _writer(scene, block, edit)

    def write(value: Tensor, tail: tuple[int, ...] = (), multiplier: float = 1.0) -> Tensor:
        for _, where in scene.scoped(planned, block.layer):
            # A value comes as [B, S, ...] or with the tokens in one axis, [T, ...].
            own = value.shape[2:] if value.shape[:2] == where.shape else value.shape[1:]
            shaped = value.reshape(*where.shape, *(tail or own))
            new = edited(shaped * multiplier if multiplier != 1.0 else shaped)
            new = (new / multiplier if multiplier != 1.0 else new).to(value.dtype)
            mask = where.reshape(*where.shape, *[1] * (shaped.ndim - 2))
            value = torch.where(mask, new, shaped).reshape(value.shape)
        return value

    if edit.site == "resid_pre":
        undo.callback(_before(block.module, write))
    elif edit.site == "resid_post":
        undo.callback(_after(block.module, write))
    elif edit.site in ("attn_out", "mlp_out"):
        outlet = block.attn_outlet if edit.site == "attn_out" else block.mlp_outlet
        assert outlet is not None  # the anatomy refuses these sites where no outlet was proved
        undo.callback(_after(outlet.module, lambda value: write(value, multiplier=outlet.multiplier)))
    elif edit.site == "attn_head_out":
        assert block.attention is not None
        tail = (block.attention.num_heads, -1)
        undo.callback(_before(block.attention.out_proj, lambda value: write(value, tail)))
    elif edit.site == "mlp_act" and block.moe is not None:
        undo.callback(hook_expert_neurons(scene, block, planned, write))
    elif edit.site == "mlp_act":
        assert block.mlp is not None and block.mlp.down_proj is not None
        undo.callback(_before(block.mlp.down_proj, write))
    else:
        assert edit.site == "expert_out" and block.moe is not None
        undo.callback(_combine(scene, block, planned, write))


def expert_outputs(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The output [T, k, H] of each chosen expert before its weight, each slot run alone by the bank's own function."""
    hidden, ids, weights = expert_inputs(args, kwargs)
    bank = bank_of(module)
    sink = None if bank is None else bank.sink
    if bank is not None:
        bank.sink = None  # these passes are not what the model executes
    # LongCat-Flash's own loop loses the axis of choices where there is one: a second of no weight keeps it.
    width = 1 if known_bank(module) else 2
    one = torch.ones_like(weights[:, :1])
    try:
        slots = []
        for slot in range(ids.shape[-1]):
            chosen = ids[:, slot : slot + 1].expand(-1, width)
            alone = {id(ids): chosen, id(weights): torch.cat([one, *[0 * one] * (width - 1)], dim=-1)}
            out = module.forward(
                *(alone.get(id(value), value) for value in args),
                **{name: alone.get(id(value), value) for name, value in kwargs.items()},
            )
            slots.append(out.reshape(len(ids), -1))
    finally:
        if bank is not None:
            bank.sink = sink
    return torch.stack(slots, dim=1)


def _writer(scene: Scene, block: Block, edit: SiteEdit) -> Write:
    """What ``edit`` makes of a value [B, S, ...] of its site at all tokens of the running pass."""
    if isinstance(edit, Channels):
        return _channels(scene, block, edit)
    if isinstance(edit, Direction):
        return _direction(scene, block.layer, edit)
    if isinstance(edit, Custom):
        custom = edit
        return lambda value: custom.apply(
            value, Place(custom.site, block.layer, scene.now.positions, scene.now.tokens)
        )
    assert isinstance(edit, Patch)
    patch = edit
    return lambda value: _patched(scene, block.layer, patch, value)


def _channels(scene: Scene, block: Block, edit: Channels) -> Write:
    units, name = units_of(edit, block), f"{block.layer}.channels.{edit.site}"

    def write(value: Tensor) -> Tensor:
        at = units.to(value.device)
        return value.index_copy(-1, at, fill(edit, name, at, scene.now.positions, value[..., at]))

    return write


def _direction(scene: Scene, layer: int, edit: Direction) -> Write:
    if edit.sae is None or edit.features is None:
        return lambda value: edit.apply(value, layer, scene.now.positions)
    features, sae = edit.features, Sae.of(opened(edit.sae, "sae"))
    check_features(sae, features, scene.anatomy.hidden_size)
    return lambda value: sae.written(value, features, edit.op, edit.value)


def _patched(scene: Scene, layer: int, edit: Patch, value: Tensor) -> Tensor:
    source = scene.values(edit, layer).to(value.device, value.dtype)
    if source.shape[1:] != value.shape[2:]:
        source = source.reshape(len(source), *value.shape[2:])
    positions = scene.now.positions.clone()
    for here, there in edit.token_map.items():
        positions[scene.now.positions == here] = there
    known = positions < len(source)
    taken = source[positions.clamp(max=len(source) - 1)]
    return torch.where(known.reshape(*known.shape, *[1] * (value.ndim - 2)), taken, value)


def _before(module: nn.Module, write: Write) -> Callable[[], None]:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (write(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": write(kwargs["hidden_states"])}

    return module.register_forward_pre_hook(hook, with_kwargs=True).remove


def _after(module: nn.Module, write: Write) -> Callable[[], None]:
    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        return (write(output[0]), *output[1:]) if isinstance(output, tuple) else write(output)

    return module.register_forward_hook(hook).remove


def _combine(
    scene: Scene, block: Block, planned: Planned[SiteEdit], write: Callable[..., Tensor]
) -> Callable[[], None]:
    """Weigh and add the written outputs of the experts anew, for the tokens that are written."""
    assert block.moe is not None

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        scoped = scene.scoped(planned, block.layer)
        if not scoped:
            return output
        weights = expert_inputs(args, kwargs)[2]
        native = expert_outputs(module, args, kwargs)
        written = write(native, tuple(native.shape[1:]))
        added = (weights.unsqueeze(-1).to(native.dtype) * (written - native)).sum(1)
        changed = (written != native).flatten(1).any(-1, keepdim=True)
        flat = output.reshape(len(weights), -1)
        return torch.where(changed, flat + added.to(flat.dtype), flat).reshape(output.shape)

    return block.moe.experts.register_forward_hook(hook, with_kwargs=True).remove
