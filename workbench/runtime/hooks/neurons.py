"""Hooks at the neurons of an MLP: they are measured and counted, some are replaced, small activations are left out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from workbench.anatomy import Block, expert_inputs
from workbench.errors import EditRefused
from workbench.interventions import mask
from workbench.runtime.artefacts import opened
from workbench.runtime.attach import known_bank
from workbench.runtime.calibrate import quantile
from workbench.runtime.capture import Census, Chunks
from workbench.runtime.depth.decide import uniform
from workbench.runtime.gated import Gated, gated_of, unfit
from workbench.runtime.hooks.expert_neurons import Neurons
from workbench.runtime.hooks.mounts import Mounts
from workbench.runtime.hooks.scene import Planned, Scene, Work
from workbench.runtime.hooks.units import fill, units_of
from workbench.runtime.hooks.weights import quiet
from workbench.runtime.record import Record
from workbench.runtime.replace import replace_forward
from workbench.signals import neurons, sparsity

CHUNK = 8
"""Consecutive tokens whose neurons are taken together."""

Some: TypeAlias = mask.Neurons | mask.Activations


def hook_activation(scene: Scene, block: Block, record: Record, mounts: Mounts) -> None:
    """Measure the activation sparsity of ``block``; experts are measured by the kernel that runs them, but for a census."""
    if block.moe is not None:
        if record.census and known_bank(block.moe.experts):
            _hook_census(scene, block, record.threshold, mounts)
        return
    if block.mlp is None or block.mlp.down_proj is None:
        return

    def read(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        if args[0].shape[:-1].numel() != scene.now.positions.numel():
            return  # some tokens went through a kernel that has no activations to look at
        capture = scene.captures[block.layer]
        if record.sparsity:
            capture.activation = sparsity.activation(args[0], record.threshold)
            capture.width = args[0].shape[-1]
        if record.census:
            rows = args[0].reshape(*scene.now.positions.shape, -1)
            found = neurons.census(rows, record.threshold, scene.now.valid)
            capture.census = Census(*(part.unsqueeze(1) for part in found))
            used = neurons.chunk_union(rows, record.threshold, CHUNK, scene.now.valid)
            start = scene.now.positions[:, : used.union.shape[1] * CHUNK : CHUNK]
            capture.chunks = Chunks(start, used.union, used.expected)

    mounts.before(block.mlp.down_proj, read)


def hook_neurons(scene: Scene, block: Block, edits: Planned[Some], undo: ExitStack) -> None:
    """Replace neurons, and leave out those that an edit leaves out; the kernel skips them where it covers the layer."""
    assert block.mlp is not None  # the plan was checked against the anatomy
    left_out: Planned[Some] = []
    filled: Planned[mask.Neurons] = []
    for edit, rows in edits:
        if isinstance(edit, mask.Neurons) and (edit.replacement != "zero" or unfit(block)):
            filled.append((edit, rows))
        else:
            left_out.append((edit, rows))
    if left_out:
        skipping = _Skipping(scene, block, left_out)
        if block.moe is None:
            undo.callback(replace_forward(block.mlp.module, skipping.dense(block.mlp.module.forward)))
        else:
            undo.callback(replace_forward(block.moe.experts, skipping.experts(block.moe.experts.forward)))
    if filled:
        if block.mlp.down_proj is None:
            raise EditRefused(
                f"The neurons of layer {block.layer} cannot be replaced: they live in an expert bank, {unfit(block)}.",
                "Mask whole experts with mask.experts, or open a family whose bank the kernels cover.",
            )
        write = _replace_neurons(scene, block, filled)
        undo.callback(block.mlp.down_proj.register_forward_pre_hook(write).remove)


def _replace_neurons(scene: Scene, block: Block, edits: Planned[mask.Neurons]) -> Callable[..., Any]:
    chosen = {id(edit): units_of(edit, block) for edit, _ in edits}

    def apply(_: nn.Module, args: tuple[Tensor, ...]) -> Any:
        act = args[0]
        gone = torch.zeros(act.shape[:-1].numel(), act.shape[-1], dtype=torch.bool, device=act.device)
        for edit, where in scene.scoped(edits, block.layer):
            units = chosen[id(edit)].to(act.device)
            gone[:, units] |= where.reshape(-1, 1)
            value = fill(edit, f"{block.layer}.neurons", units, scene.now.positions, act)
            masked = where.reshape(act.shape[:-1])
            old = act[..., units]
            new = torch.where(masked.unsqueeze(-1), value.reshape(old.shape), old)
            act = act.index_copy(-1, units, new)
        masked = gone.sum(-1)
        asked = (masked > 0) * act.shape[-1]
        scene.work.append(
            Work(block.layer, "sparse_mlp", "model", scene.now, asked, torch.zeros_like(asked), masked)
        )
        return (act, *args[1:])

    return apply


class _Skipping:
    """Runs the gated MLPs of a layer without what its edits leave out."""

    def __init__(self, scene: Scene, block: Block, edits: Planned[Some]) -> None:
        self._scene, self._block, self._edits = scene, block, edits
        self._gated = gated_of(block, scene.attachment.ops)
        self._units = {
            (id(edit), gated.expert): units_of(edit, block, gated.expert)
            for edit, _ in edits
            if isinstance(edit, mask.Neurons)
            for gated in self._gated
            if edit.expert in (None, gated.expert)
        }

    def dense(self, own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(hidden: Tensor) -> Any:
            groups = self._groups()
            if not groups:
                return own(hidden)
            flat = hidden.reshape(-1, hidden.shape[-1])
            out = torch.empty_like(flat)
            rest = torch.ones(len(flat), dtype=torch.bool, device=flat.device)
            for where, edits in groups:
                rest = rest & ~where
                out[where] = self._run(self._gated[0], edits, flat[where], where)
            if bool(rest.any()):
                out[rest] = own(flat[rest].unsqueeze(0)).reshape(-1, flat.shape[-1])
            return out.reshape(hidden.shape)

        return forward

    def experts(self, own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Tensor:
            hidden, ids, weights = expert_inputs(args, kwargs)
            groups = self._groups()
            if not groups:
                return own(*args, **kwargs)
            flat = hidden.reshape(-1, hidden.shape[-1])
            out = torch.zeros_like(flat)
            rest = torch.ones(len(flat), dtype=torch.bool, device=flat.device)
            for where, edits in groups:
                rest = rest & ~where
                for gated in self._gated:
                    at, slot = ((ids == gated.expert) & where.unsqueeze(-1)).nonzero(as_tuple=True)
                    if len(at):
                        y = self._run(gated, edits, flat[at], where, at)
                        out.index_add_(0, at, (y * weights[at, slot].unsqueeze(-1)).to(out.dtype))
            if bool(rest.any()):
                part = (flat[rest], ids[rest], weights[rest])
                out[rest] = quiet(self._block.moe.experts, lambda: own(*part))  # type: ignore[union-attr]
            return out.reshape(hidden.shape)

        return forward

    def _groups(self) -> list[tuple[Tensor, list[Some]]]:
        """The tokens [T] that edits hold for, grouped by which ones do."""
        groups: list[tuple[Tensor, list[Some]]] = []
        for edit, where in self._scene.scoped(self._edits, self._block.layer):
            if _nothing(edit):
                continue
            where = where.reshape(-1)
            split: list[tuple[Tensor, list[Some]]] = []
            for tokens, edits in groups:
                split += [(tokens & ~where, edits), (tokens & where, [*edits, edit])]
                where = where & ~tokens
            groups = [(tokens, edits) for tokens, edits in [*split, (where, [edit])] if bool(tokens.any())]
        return groups

    def _run(
        self, gated: Gated, edits: list[Some], x: Tensor, where: Tensor, at: Tensor | None = None
    ) -> Tensor:
        """``gated`` of the tokens ``x``: those of ``where``, or of them the tokens number ``at``. The last criterion holds;
        neurons that are masked by name are gone in any case."""
        positions = self._scene.now.positions.reshape(-1)
        positions = positions[where] if at is None else positions[at]
        gone = [self._units[id(e), gated.expert] for e in edits if (id(e), gated.expert) in self._units]
        criterion = next((e for e in reversed(edits) if isinstance(e, mask.Activations)), None)
        if gone:
            gated = _without(gated, torch.cat(gone).unique())
        width = gated.down.shape[1]
        if criterion is None:
            active = torch.ones(width, dtype=torch.bool, device=x.device)
            active[torch.cat(gone) if gone else []] = False
            found = gated.only(x, active)
        else:
            found = self._by(criterion, gated, x, positions)
        self._note(criterion, found.active_count, positions, where, at, width)
        return found.y

    def _by(self, edit: mask.Activations, gated: Gated, x: Tensor, positions: Tensor) -> Any:
        width = gated.down.shape[1]
        if edit.neurons is not None:
            active = torch.zeros(width, dtype=torch.bool, device=x.device)
            active[list(edit.neurons)] = True
            return gated.only(x, active)
        if edit.method == "random":
            units = torch.arange(width, device=x.device)
            drawn = uniform(
                edit.seed + 7919 * (gated.expert + 1), self._block.layer, positions[:, None] * width + units
            )
            return gated.only(x, drawn >= (edit.sparsity or 0.0))
        neuron, entering = self._thresholds(edit)
        if edit.method == "gate":
            return gated.by_gate(x, neuron)
        if edit.method == "weight-informed":
            return gated.weight_informed(x, neuron, entering)
        if edit.method == "rank-aware":
            assert edit.rank is not None
            return gated.rank_aware(x, neuron, entering, edit.rank)
        return gated.magnitude(x, neuron, entering)

    def _thresholds(self, edit: mask.Activations) -> tuple[float, float]:
        """The bounds on neurons and inputs."""
        if edit.sparsity is None:
            return edit.threshold or 0.0, edit.input_threshold or 0.0
        assert edit.source is not None
        known = opened(edit.source, "calibration")
        weighted = "weighted_" if edit.method == "weight-informed" else ""
        layer = self._block.layer
        if edit.method == "gate":
            return quantile(known, layer, "gate", edit.sparsity), 0.0
        return (
            quantile(known, layer, f"{weighted}neuron", edit.sparsity),
            quantile(known, layer, f"{weighted}input", edit.sparsity),
        )

    def _note(
        self, criterion: mask.Activations | None, active: Tensor, positions: Tensor, where: Tensor, at: Tensor | None,
        width: int,
    ) -> None:  # fmt: skip
        """How many neurons of how many were read; the rank-aware method computes all and masks."""
        index = where.nonzero().squeeze(-1) if at is None else at
        none = torch.zeros(len(where), dtype=torch.int64, device=active.device)
        asked = none.index_add(0, index, torch.full_like(active, width).long())
        stay = none.index_add(0, index, active.long())
        whole = criterion is not None and criterion.method == "rank-aware"
        executed = asked if whole else stay
        self._scene.work.append(Work(
            self._block.layer, "sparse_mlp", self._gated[0].backend, self._scene.now, executed, asked - executed,
            executed - stay,
        ))  # fmt: skip


def _nothing(edit: Some) -> bool:
    """Whether an edit leaves nothing out at any token, so that the model's own products stand."""
    if isinstance(edit, mask.Neurons):
        return edit.ratio == 0
    return edit.sparsity == 0


def _without(gated: Gated, gone: Tensor) -> Gated:
    """``gated`` in which some neurons give zero."""
    up = gated.up.clone()
    up[gone.to(up.device)] = 0
    return Gated(gated.gate, up, gated.down, gated.act, gated.function, gated.expert, gated.backend)


def _hook_census(scene: Scene, block: Block, threshold: float, mounts: Mounts) -> None:
    moe = block.moe
    assert moe is not None
    bank = Neurons(block)

    def read(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden, ids, _weights = expert_inputs(args, kwargs)
        hidden = hidden.reshape(len(ids), -1)

        def activations(expert: int, tokens: Tensor) -> Tensor:
            return bank.of_expert(expert, hidden[tokens])

        batch = scene.now.positions.shape[0]
        rows = scene.now.positions.new_zeros(scene.now.positions.shape)
        rows += rows.new_tensor(range(batch)).unsqueeze(-1)
        keep = None if scene.now.valid is None else scene.now.valid.reshape(-1)
        found = neurons.expert_census(
            activations, ids, rows.reshape(-1), batch, moe.num_experts, bank.width, threshold, keep
        )
        scene.captures[block.layer].census = Census(*found)

    mounts.before(moe.experts, read, with_kwargs=True)
