"""The linear layer of chosen experts in plain torch, and its gradient, which every backend shares."""

from __future__ import annotations

import torch
from torch import Tensor

from routing_kernels.reference.moe import accumulator, slots_by_expert


def expert_linear(x: Tensor, ids: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
    """Output of the op ``routing_kernels::expert_linear``, expert by expert; the arguments are taken as checked."""
    exact = accumulator(x.dtype)
    y = x.new_zeros((*ids.shape, weight.shape[2 if transposed else 1]), dtype=exact)
    for expert, token, slot in slots_by_expert(ids, weight.shape[0]):
        inputs = x[token] if x.dim() == 2 else x[token, slot]
        matrix = weight[expert] if transposed else weight[expert].T
        out = inputs.to(exact) @ matrix.to(exact)
        y = y.index_put((token, slot), out if bias is None else out + bias[expert].to(exact))
    return y.to(x.dtype)


def expert_linear_backward(
    grad: Tensor, x: Tensor, ids: Tensor, weight: Tensor, transposed: bool, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``x``, ``weight`` and ``bias`` from the gradient of ``y`` [T, k, N]; what ``needs`` does not want comes
    back with zero size. Sums are in slot order."""
    exact = accumulator(x.dtype)
    want_x, want_weight, want_bias = needs
    (experts, *_), outputs = weight.shape, grad.shape[2]
    grad_slots = x.new_zeros((*ids.shape, x.shape[-1]), dtype=exact) if want_x else None
    grad_weight = torch.zeros_like(weight) if want_weight else weight.new_empty(0)
    grad_bias = weight.new_zeros((experts, outputs)) if want_bias else weight.new_empty(0)
    for expert, token, slot in slots_by_expert(ids, experts):
        inputs = (x[token] if x.dim() == 2 else x[token, slot]).to(exact)
        matrix = (weight[expert] if transposed else weight[expert].T).to(exact)
        grad_y = grad[token, slot].to(exact)
        if grad_slots is not None:
            grad_slots[token, slot] = grad_y @ matrix.T
        if want_weight:
            found = inputs.T @ grad_y
            grad_weight[expert] = (found if transposed else found.T).to(weight.dtype)
        if want_bias:
            grad_bias[expert] = grad_y.sum(0).to(weight.dtype)
    if grad_slots is None:
        return x.new_empty(0), grad_weight, grad_bias
    grad_x = grad_slots.sum(dim=1) if x.dim() == 2 else grad_slots
    return grad_x.to(x.dtype), grad_weight, grad_bias
