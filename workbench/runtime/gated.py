"""Gated MLPs, dense or one expert of a bank, run on the kernel that leaves small activations out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import routing_kernels
import torch
from torch import Tensor

from workbench.anatomy import Block
from workbench.errors import EditRefused
from workbench.runtime.attach.activations import kernel_activation
from workbench.runtime.attach.experts import unfit_bank
from workbench.runtime.attach.mlp import unfit_mlp


@dataclass
class Gated:
    """``down act(gate x) * (up x)``: gate and up [F, H], down [D, F]; ``expert`` is its number, -1 for a dense MLP."""

    gate: Tensor
    up: Tensor
    down: Tensor
    act: str
    function: Callable[[Tensor], Tensor]
    expert: int
    backend: str
    _turned: dict[str, Tensor] = field(default_factory=dict)

    def hidden(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The gate ``act(gate x)`` and the neurons ``act(gate x) * (up x)`` [T, F] of ``x`` [T, H]."""
        gate = self.function(x @ self.gate.T)
        return gate, gate * (x @ self.up.T)

    @property
    def input_weight(self) -> Tensor:
        """[H] float32: norm of the weights that read each input."""
        return (self.gate.float().square().sum(0) + self.up.float().square().sum(0)).sqrt()

    @property
    def neuron_weight(self) -> Tensor:
        """[F] float32: norm of the weights that read each neuron."""
        return self.down.float().norm(dim=0)

    def magnitude(self, x: Tensor, threshold: float, input_threshold: float) -> routing_kernels.SparseMlp:
        """Without the inputs and neurons whose absolute value is at most the threshold."""
        return routing_kernels.sparse_mlp(
            x, self._of("gate_t", lambda: self.gate.T), self._of("up_t", lambda: self.up.T),
            self._of("down_t", lambda: self.down.T), "teal", threshold, input_threshold, None, self.act,
            backend=self.backend,
        )  # fmt: skip

    def weight_informed(
        self, x: Tensor, threshold: float, input_threshold: float
    ) -> routing_kernels.SparseMlp:
        """The same for absolute value times norm of the weights: the norms go into inputs and neurons."""
        inputs, neurons = self.input_weight, self.neuron_weight
        safe_in, safe_out = (w.masked_fill(w == 0, 1.0) for w in (inputs, neurons))
        return routing_kernels.sparse_mlp(
            (x.float() * inputs).to(x.dtype),
            self._of("gate_w", lambda: (self.gate.float() / safe_in).T),
            self._of("up_w", lambda: (self.up.float() / safe_in * neurons[:, None]).T),
            self._of("down_w", lambda: (self.down.float() / safe_out).T),
            "teal", threshold, input_threshold, None, self.act, backend=self.backend,
        )  # fmt: skip

    def by_gate(self, x: Tensor, threshold: float) -> routing_kernels.SparseMlp:
        """Without the neurons whose gate is at most ``threshold``."""
        return routing_kernels.sparse_mlp(
            x, self.gate.contiguous(), self.up.contiguous(), self._of("down_t", lambda: self.down.T), "cats", threshold,
            0.0, None, self.act, backend=self.backend,
        )  # fmt: skip

    def only(self, x: Tensor, active: Tensor) -> routing_kernels.SparseMlp:
        """With the neurons ``active``, bool [F] or [T, F], alone."""
        return routing_kernels.sparse_mlp(
            x, self.gate.contiguous(), self.up.contiguous(), self._of("down_t", lambda: self.down.T), "neuron", 0.0, 0.0,
            active, self.act, backend=self.backend,
        )  # fmt: skip

    def rank_aware(
        self, x: Tensor, threshold: float, input_threshold: float, rank: int
    ) -> routing_kernels.SparseMlp:
        """Large inputs and neurons in full, the others through the first ``rank`` singular directions of the weights."""
        kept = x.abs() > input_threshold
        gate = self.function(self._split(x, kept, "gate", rank))
        neurons = gate * self._split(x, kept, "up", rank)
        active = neurons.abs() > threshold
        y = self._split(neurons, active, "down", rank)
        counts = (active.sum(-1).int(), kept.sum(-1).int())
        return routing_kernels.SparseMlp(y, *counts, x.new_empty(0))

    def _split(self, x: Tensor, kept: Tensor, part: str, rank: int) -> Tensor:
        weight: Tensor = getattr(self, part)
        rank = min(rank, *weight.shape)
        left, right = self._directions(part, weight, rank)
        rest = x.masked_fill(kept, 0.0)
        return x.masked_fill(~kept, 0.0) @ weight.T + (rest @ right.T) @ left.T

    def _directions(self, part: str, weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        left, right = f"{part}_left{rank}", f"{part}_right{rank}"
        if left not in self._turned:
            u, s, v = torch.linalg.svd(weight.float(), full_matrices=False)
            self._turned[left] = (u[:, :rank] * s[:rank]).to(weight.dtype)
            self._turned[right] = v[:rank].to(weight.dtype)
        return self._turned[left], self._turned[right]

    def _of(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        if name not in self._turned:
            self._turned[name] = make().to(self.gate.dtype).contiguous()
        return self._turned[name]


def gated_of(block: Block, backend: str) -> list[Gated]:
    """The gated MLPs of ``block``: one, or one for each expert. Raises :class:`EditRefused` where the kernel covers none."""
    reason = unfit(block)
    if reason:
        raise EditRefused(
            f"The neurons of layer {block.layer} cannot be left out: {reason}.", "Choose other layers."
        )
    if block.moe is None:
        assert block.mlp is not None
        module: Any = block.mlp.module
        act = kernel_activation(module.act_fn)
        gate, up = module.gate_proj.weight.detach(), module.up_proj.weight.detach()
        return [Gated(gate, up, module.down_proj.weight.detach(), str(act), module.act_fn, -1, backend)]
    bank: Any = block.moe.experts
    act, width = kernel_activation(bank.act_fn), bank.down_proj.shape[2]
    both, down = bank.gate_up_proj.detach(), bank.down_proj.detach()
    return [
        Gated(both[e, :width], both[e, width:], down[e], str(act), bank.act_fn, e, backend)
        for e in range(len(both))
    ]


def unfit(block: Block) -> str:
    """Why the kernel does not cover the MLP of ``block``; empty where it does."""
    if block.moe is not None:
        return unfit_bank(block.moe.experts)
    return "it has no MLP" if block.mlp is None else unfit_mlp(block.mlp.module)
