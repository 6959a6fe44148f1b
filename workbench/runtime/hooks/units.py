"""Which units a mask silences, and what stands in their place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workbench.anatomy import Block
from workbench.interventions.mask import Channels, Experts, Heads, UnitMask
from workbench.runtime.artefacts import opened
from workbench.runtime.calibrate import SAMPLES, tensor
from workbench.runtime.depth.decide import uniform


def units_of(edit: UnitMask, block: Block, expert: int = -1) -> Tensor:
    """The units [n] int64 that ``edit`` masks in ``block`` (of one ``expert``, where there are several)."""
    if edit.named is not None:
        return torch.tensor(edit.named)
    importance = _importance(edit, block, expert)
    count = round((edit.ratio or 0.0) * len(importance))
    return importance.argsort(stable=True)[:count].sort().values


def _importance(edit: UnitMask, block: Block, expert: int) -> Tensor:
    """What goes first has the lowest number."""
    size = edit.units_of(block)
    if edit.criterion == "random":
        return uniform(edit.seed, block.layer * 4096 + expert + 1, torch.arange(size))
    if edit.criterion == "activation":
        assert edit.source is not None
        known = opened(edit.source, "calibration")
        if isinstance(edit, Channels):
            return tensor(known, f"{block.layer}.channels.{edit.site}.absolute")
        if isinstance(edit, Heads):
            return tensor(known, f"{block.layer}.heads.absolute").flatten(1).mean(-1)
        if isinstance(edit, Experts):
            return torch.stack(
                [
                    tensor(known, f"{block.layer}.expert.{e}.out.absolute")
                    * tensor(known, f"{block.layer}.expert.{e}.out.count")
                    for e in range(size)
                ]
            )
        name = "neurons" if expert < 0 else f"expert.{expert}.neurons"
        return tensor(known, f"{block.layer}.{name}.absolute")
    return _norms(edit, block, expert).float().cpu()


def _down(experts: Any) -> Tensor:
    """The down projections of an expert bank."""
    weights: Tensor = experts.down_proj.detach()
    return weights


def _written_by(block: Block, site: str) -> list[Tensor]:
    """The weights [H, ...] that write the channels of ``site``."""
    found: list[Tensor] = []
    if block.attention is not None and site != "mlp_out":
        out_proj: Any = block.attention.out_proj
        found.append(out_proj.weight.detach())
    if block.moe is not None and site != "attn_out":
        found.append(_down(block.moe.experts).transpose(0, 1).flatten(1))
    elif block.mlp is not None and block.mlp.down_proj is not None and site != "attn_out":
        down: Any = block.mlp.down_proj
        found.append(down.weight.detach())
    return found


def _norms(edit: UnitMask, block: Block, expert: int) -> Tensor:
    """Norm of the weights that read each unit; of a channel those that write it."""
    if isinstance(edit, Channels):
        return torch.cat(_written_by(block, edit.site), dim=1).norm(dim=1)
    if isinstance(edit, Heads):
        assert block.attention is not None
        out_proj: Any = block.attention.out_proj
        weight: Tensor = out_proj.weight.detach()
        return weight.reshape(weight.shape[0], block.attention.num_heads, -1).norm(dim=(0, 2))
    if isinstance(edit, Experts):
        assert block.moe is not None
        return _down(block.moe.experts).flatten(1).norm(dim=-1)
    if block.moe is not None:
        return _down(block.moe.experts)[expert].norm(dim=0)
    assert block.mlp is not None and block.mlp.down_proj is not None
    down: Any = block.mlp.down_proj
    weight = down.weight.detach()
    return weight.norm(dim=0)


def fill(edit: UnitMask, name: str, units: Tensor, positions: Tensor, like: Tensor) -> Tensor:
    """What stands in the place of ``units`` at every position: [*positions.shape, n, ...] of ``like``'s dtype.

    ``name`` is that of the units' tensors in the calibration.
    """
    shape = positions.shape
    if edit.replacement == "zero":
        return like.new_zeros(*shape, len(units), *like.shape[positions.dim() + 1 :])
    assert edit.source is not None
    known = opened(edit.source, "calibration")
    if edit.replacement == "mean":
        value = tensor(known, f"{name}.mean").to(like)[units]
        return value.expand(*shape, *value.shape)
    samples = tensor(known, f"{name}.samples").to(like)
    drawn = (uniform(edit.seed, 0, positions) * SAMPLES).long().clamp(max=SAMPLES - 1)
    return samples[drawn][..., units, :] if samples.dim() == 3 else samples[drawn][..., units]
