"""The expert layer in plain torch, and its gradient, which every backend shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten

# Activation and its derivative (gradient, input) -> gradient, by the names that Hugging Face configurations use.
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "silu": (F.silu, lambda grad, x: aten.silu_backward(grad, x)),
    "gelu": (F.gelu, lambda grad, x: aten.gelu_backward(grad, x)),
    "gelu_pytorch_tanh": (
        lambda x: F.gelu(x, approximate="tanh"),
        lambda grad, x: aten.gelu_backward(grad, x, approximate="tanh"),
    ),
    "relu": (F.relu, lambda grad, x: aten.threshold_backward(grad, x, 0)),
}


def accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def slots_by_expert(ids: Tensor, experts: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(expert, its tokens, their slots) for every expert that is chosen; ids outside 0..experts-1 never appear."""
    for expert in torch.unique(ids).tolist():
        if 0 <= expert < experts:
            token, slot = torch.where(ids == expert)
            yield expert, token, slot


def moe_experts(
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    gate_up: Tensor,
    down: Tensor,
    act: str,
    stats: bool,
    threshold: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Outputs of the op ``routing_kernels::moe_experts``, computed expert by expert.

    Arguments are those of the op and are taken as checked. Intermediate values are float32, or float64 where
    ``x`` is, and are rounded to ``x.dtype`` once, at the end.
    """
    (tokens, top_k), experts, hidden = ids.shape, gate_up.shape[0], x.shape[1]
    width, exact = down.shape[2], accumulator(x.dtype)
    activate = ACTIVATIONS[act][0]
    neurons = x.new_zeros((tokens, top_k, width), dtype=exact)
    outputs = x.new_zeros((tokens, top_k, hidden), dtype=exact)
    for expert, token, slot in slots_by_expert(ids, experts):
        gate, up = F.linear(x[token].to(exact), gate_up[expert].to(exact)).chunk(2, dim=-1)
        a = activate(gate) * up
        neurons = neurons.index_put((token, slot), a)
        outputs = outputs.index_put((token, slot), F.linear(a, down[expert].to(exact)))

    executed = (ids >= 0) & (ids < experts)
    scale = torch.where(executed, weights.to(exact), 0)  # a dropped slot's weight may be anything, NaN too
    y = x.new_zeros((tokens, hidden), dtype=exact)
    for j in range(top_k):
        y = y + scale[:, j, None] * outputs[:, j]
    counts = torch.bincount(ids[executed], minlength=experts)
    dropped = (~executed).sum()
    if not stats:
        return (
            y.to(x.dtype),
            counts,
            dropped,
            x.new_empty(0, dtype=torch.float32),
            ids.new_empty(0, dtype=torch.int32),
        )
    absolute = neurons.abs()
    norms = torch.stack([outputs.norm(dim=-1), absolute.sum(dim=-1), neurons.norm(dim=-1)])
    tallies = torch.stack([absolute == 0, absolute < threshold]) & executed[..., None]
    return y.to(x.dtype), counts, dropped, norms.float(), tallies.sum(dim=-1).int()


def moe_experts_backward(
    grad: Tensor,
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    gate_up: Tensor,
    down: Tensor,
    act: str,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``x``, ``weights``, ``gate_up`` and ``down`` from the gradient of ``y``, recomputing what ran.

    ``needs`` says which of the four are wanted; the others come back with zero size. With u = W_up x,
    g = W_gate x, a = act(g) * u, o = W_down a and y = sum of w o over the slots: dw = <dy, o>, do = w dy,
    dW_down = do a^T, da = W_down^T do, du = da * act(g), dg = da * u * act'(g). Dropped slots have no gradient.
    The sums are float32 (float64 where ``x`` is) and in slot order, so the result is deterministic.
    """
    exact = accumulator(x.dtype)
    activate, derive = ACTIVATIONS[act]
    want_x, want_weights, want_gate_up, want_down = needs
    grad_slots = x.new_zeros((*ids.shape, x.shape[1]), dtype=exact) if want_x else None
    grad_weights = torch.zeros_like(weights) if want_weights else weights.new_empty(0)
    grad_gate_up = torch.zeros_like(gate_up) if want_gate_up else gate_up.new_empty(0)
    grad_down = torch.zeros_like(down) if want_down else down.new_empty(0)
    for expert, token, slot in slots_by_expert(ids, gate_up.shape[0]):
        w_in, w_out = gate_up[expert].to(exact), down[expert].to(exact)
        inputs, grad_y = x[token].to(exact), grad[token].to(exact)
        gate, up = F.linear(inputs, w_in).chunk(2, dim=-1)
        active = activate(gate)
        neurons = active * up
        if want_weights:
            grad_weights[token, slot] = (grad_y * F.linear(neurons, w_out)).sum(dim=-1).to(weights.dtype)
        grad_output = grad_y * weights[token, slot, None].to(exact)
        if want_down:
            grad_down[expert] = (grad_output.T @ neurons).to(down.dtype)
        if not (want_x or want_gate_up):
            continue
        grad_neurons = grad_output @ w_out
        grad_in = torch.cat([derive(grad_neurons * up, gate), grad_neurons * active], dim=-1)
        if want_gate_up:
            grad_gate_up[expert] = (grad_in.T @ inputs).to(gate_up.dtype)
        if grad_slots is not None:
            grad_slots[token, slot] = grad_in @ w_in
    grad_x = x.new_empty(0) if grad_slots is None else grad_slots.sum(dim=1).to(x.dtype)
    return grad_x, grad_weights, grad_gate_up, grad_down
