"""The neurons of an expert bank as a site: read for every choice, and written there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from workbench.anatomy import Block, expert_inputs
from workbench.errors import EditRefused
from workbench.interventions.patch import Patch
from workbench.interventions.site import SiteEdit
from workbench.runtime.attach import known_bank
from workbench.runtime.hooks.scene import Planned, Scene


class Neurons:
    """The neurons of the experts of one bank, by what transformers' registry of banks knows of its weights."""

    def __init__(self, block: Block) -> None:
        """Raises :class:`EditRefused` with the reason where the bank is none that the registry describes."""
        assert block.moe is not None
        self._bank: Any = block.moe.experts
        if not known_bank(self._bank):
            raise _unreachable(block, f"{type(self._bank).__name__} is not in transformers' experts registry")

    @property
    def width(self) -> int:
        """Neurons of an expert."""
        return int(self._bank.down_proj.shape[1 if self._bank.is_transposed else 2])

    def of(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """What enters the down projection of each chosen expert [T, k, F], from ``hidden`` [T, H] and ``ids`` [T, k]; zeros
        for a slot without an expert, or with one that has no weights."""
        found = hidden.new_zeros(*ids.shape, self.width)
        for expert, token, slot in self._chosen(ids):
            found[token, slot] = self.of_expert(expert, hidden[token]).to(found.dtype)
        return found

    def of_expert(self, expert: int, hidden: Tensor) -> Tensor:
        """What enters the down projection of one expert [n, F], from ``hidden`` [n, H]."""
        bank = self._bank
        into = (bank.gate_up_proj if bank.has_gate else bank.up_proj)[expert]
        made = hidden @ (into if bank.is_transposed else into.T)
        if bank.has_bias:
            made = made + (bank.gate_up_proj_bias if bank.has_gate else bank.up_proj_bias)[expert]
        made = bank._apply_gate(made) if bank.has_gate else bank.act_fn(made)
        assert isinstance(made, Tensor)
        return made

    def through(self, change: Tensor, ids: Tensor) -> Tensor:
        """What a ``change`` [T, k, F] of the neurons adds to the tokens [T, H] through the down projections."""
        bank = self._bank
        added = change.new_zeros(len(ids), bank.down_proj.shape[2 if bank.is_transposed else 1])
        for expert, token, slot in self._chosen(ids.masked_fill((change == 0).all(-1), -1)):
            down = bank.down_proj[expert].to(change.dtype)
            added.index_add_(0, token, change[token, slot] @ (down if bank.is_transposed else down.T))
        return added

    def _chosen(self, ids: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Each chosen expert that has weights, with the tokens and slots that chose it."""
        for expert in torch.unique(ids).tolist():
            if 0 <= expert < len(self._bank.down_proj):
                yield expert, *(ids == expert).nonzero(as_tuple=True)


def _unreachable(block: Block, reason: str) -> EditRefused:
    return EditRefused(
        f"The neurons of layer {block.layer} live in a bank of experts that cannot be reached: {reason}.",
        "Use expert_out or mlp_out there, or choose another layer.",
    )


def hook_expert_neurons(
    scene: Scene, block: Block, planned: Planned[SiteEdit], write: Callable[..., Tensor]
) -> Callable[[], None]:
    """Let the edits write the neurons of the chosen experts: what the down projection makes of the change is weighed and
    added to the bank's output. Returns what ends it."""
    assert block.moe is not None
    neurons = Neurons(block)
    if getattr(block.moe.experts, "has_post_expert_norm", False):
        name = type(block.moe.experts).__name__
        raise _unreachable(
            block, f"{name} normalises what each expert returns, so that no neuron adds to it by itself"
        )

    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        if not scene.scoped(planned, block.layer):
            return output
        hidden, ids, weights = expert_inputs(args, kwargs)
        native = neurons.of(hidden.reshape(len(ids), -1), ids)
        written = write(native, tuple(native.shape[1:]))
        for edit, _rows in planned:
            if isinstance(edit, Patch):
                written = torch.where(_shared(scene, block.layer, edit, ids), written, native)
        change = weights.unsqueeze(-1).to(native.dtype) * (written - native)
        added = neurons.through(change, ids)
        changed = (written != native).flatten(1).any(-1, keepdim=True)
        flat = output.reshape(len(ids), -1)
        return torch.where(changed, flat + added.to(flat.dtype), flat).reshape(output.shape)

    return block.moe.experts.register_forward_hook(hook, with_kwargs=True).remove


def _shared(scene: Scene, layer: int, edit: Patch, ids: Tensor) -> Tensor:
    """Slots [T, k, 1] whose expert the other run chose in the same slot: neurons of different experts cannot stand for each
    other."""
    source = scene.lookup(edit.run, edit.source_layer(layer))
    positions = scene.now.positions.reshape(-1).clone()
    for here, there in edit.token_map.items():
        positions[scene.now.positions.reshape(-1) == here] = there
    theirs = source.ids[positions.clamp(max=len(source.ids) - 1)]
    width = min(theirs.shape[-1], ids.shape[-1])
    same = torch.zeros_like(ids, dtype=torch.bool)
    same[:, :width] = (theirs[:, :width] == ids[:, :width]) & (positions < len(source.ids)).unsqueeze(-1)
    return same.unsqueeze(-1)
