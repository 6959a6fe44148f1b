"""The expert bank as one autograd function, for training on a CPU.

The tokens are sorted by expert once; every expert then is three matrix products written straight into slices of shared
buffers, and the backward pass is written out by hand, so that the number of small operations stays low.
The result is the sum that OLMoE's own experts give; only the order of the additions differs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

NAME = "sorted_cpu"


class SortedExperts(torch.autograd.Function):
    """Sum over slots of ``weight * down(silu(gate(x)) * up(x))``.

    Inputs: ``hidden`` [T, H] float, ``index`` [T, k] int64, ``weight`` [T, k] float, ``gate_up`` [E, 2I, H],
    ``down`` [E, H, I]. Output [T, H]. Gradients flow to hidden, weight, gate_up and down.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        index: torch.Tensor,
        weight: torch.Tensor,
        gate_up: torch.Tensor,
        down: torch.Tensor,
    ) -> torch.Tensor:
        tokens, k = index.shape
        order = torch.argsort(index.reshape(-1), stable=True)
        ends = torch.bincount(index.reshape(-1), minlength=gate_up.shape[0]).cumsum(0).tolist()
        source = order // k
        x = hidden.index_select(0, source)
        u = x.new_empty(x.shape[0], gate_up.shape[1])
        for expert, (start, end) in enumerate(spans(ends)):
            torch.mm(x[start:end], gate_up[expert].t(), out=u[start:end])
        a = activation(u)
        y = x.new_empty(x.shape)
        for expert, (start, end) in enumerate(spans(ends)):
            torch.mm(a[start:end], down[expert].t(), out=y[start:end])
        place = torch.empty_like(order)
        place[order] = torch.arange(order.numel())
        ctx.ends = ends
        ctx.save_for_backward(x, u, a, y, source, place, weight, gate_up, down)
        slots = y.index_select(0, place).view(tokens, k, -1)
        return torch.einsum("tkh,tk->th", slots, weight)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = grads
        x, u, a, y, source, place, weight, gate_up, down = ctx.saved_tensors
        tokens, k = weight.shape
        g = grad.index_select(0, source)
        grad_weight = (g * y).sum(-1).index_select(0, place).view(tokens, k)
        order = torch.empty_like(place)
        order[place] = torch.arange(place.numel())
        g = g * weight.reshape(-1).index_select(0, order).unsqueeze(-1)
        grad_a = torch.empty_like(a)
        grad_down = torch.zeros_like(down)
        for expert, (start, end) in enumerate(spans(ctx.ends)):
            torch.mm(g[start:end], down[expert], out=grad_a[start:end])
            torch.mm(g[start:end].t(), a[start:end], out=grad_down[expert])
        grad_u = activation_gradient(u, grad_a)
        grad_x = torch.empty_like(x)
        grad_gate_up = torch.zeros_like(gate_up)
        for expert, (start, end) in enumerate(spans(ctx.ends)):
            torch.mm(grad_u[start:end], gate_up[expert], out=grad_x[start:end])
            torch.mm(grad_u[start:end].t(), x[start:end], out=grad_gate_up[expert])
        grad_hidden = grad_x.index_select(0, place).view(tokens, k, -1).sum(1)
        return grad_hidden, None, grad_weight, grad_gate_up, grad_down


def activation(u: torch.Tensor) -> torch.Tensor:
    """``silu(gate) * up`` for gate and up side by side [N, 2I]."""
    gate, up = u.chunk(2, dim=-1)
    return F.silu(gate) * up


def activation_gradient(u: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """Gradient of `activation` with respect to ``u``."""
    gate, up = u.chunk(2, dim=-1)
    s = torch.sigmoid(gate)
    silu = gate * s
    return torch.cat([grad * up * (s + silu * (1 - s)), grad * silu], dim=-1)


def spans(ends: list[int]) -> list[tuple[int, int]]:
    """Start and end row of every expert from the running totals."""
    return list(zip([0, *ends[:-1]], ends, strict=True))


def experts_forward(
    self: torch.nn.Module, hidden: torch.Tensor, index: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """The bank's forward under transformers' registry of expert implementations."""
    return SortedExperts.apply(hidden, index, weight.to(hidden.dtype), self.gate_up_proj, self.down_proj)


def register() -> str:
    """Makes the implementation known to transformers and returns its name."""
    ALL_EXPERTS_FUNCTIONS.register(NAME, experts_forward)
    return NAME
