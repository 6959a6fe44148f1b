"""The sparse gated MLP in plain torch, and its gradient, which every backend shares."""

from __future__ import annotations

import torch
from torch import Tensor

from routing_kernels.reference.moe import ACTIVATIONS, accumulator


def sparse_mlp(
    x: Tensor,
    gate: Tensor,
    up: Tensor,
    down_t: Tensor,
    active: Tensor | None,
    act: str,
    mode: str,
    threshold: float,
    input_threshold: float,
    stats: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs of the op ``routing_kernels::sparse_mlp``, one token at a time, reading the active rows alone.

    Arguments are those of the op and are taken as checked. Intermediate values are float32, or float64 where ``x``
    is, and are rounded to ``x.dtype`` once, at the end.
    """
    exact, activate = accumulator(x.dtype), ACTIVATIONS[act][0]
    y = x.new_zeros((x.shape[0], down_t.shape[1]), dtype=exact)
    counts = torch.zeros((2, x.shape[0]), dtype=torch.int32, device=x.device)
    energy = torch.full((x.shape[0], 2) if stats else (0,), torch.nan, device=x.device)
    for t, row in enumerate(x.to(exact)):
        ranked: Tensor | None
        inputs = _above(row, input_threshold) if mode == "teal" else torch.ones_like(row, dtype=torch.bool)
        if mode == "teal":
            g, u = (row[inputs] @ w[inputs].to(exact) for w in (gate, up))
            ranked = neurons = activate(g) * u
            chosen = _above(neurons, threshold)
            kept = neurons[chosen]
        else:
            if active is None:
                ranked = activate(gate.to(exact) @ row)
                chosen = _above(ranked, threshold)
            else:
                ranked, chosen = None, active[t]
            kept = activate(gate[chosen].to(exact) @ row) * (up[chosen].to(exact) @ row)
        y[t] = kept @ down_t[chosen].to(exact)
        counts[0, t], counts[1, t] = chosen.sum(), inputs.sum()
        if stats:
            energy[t, 0] = _share(row, inputs) if mode == "teal" else 1
            energy[t, 1] = torch.nan if ranked is None else _share(ranked, chosen)
    return y.to(x.dtype), counts, energy


def sparse_mlp_backward(
    grad: Tensor,
    x: Tensor,
    gate: Tensor,
    up: Tensor,
    down_t: Tensor,
    active: Tensor | None,
    act: str,
    mode: str,
    threshold: float,
    input_threshold: float,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``x``, ``gate``, ``up`` and ``down_t`` from the gradient of ``y``, with the active set held fixed.

    ``needs`` says which of the four are wanted; the others come back with zero size. What is not active has no
    gradient: a threshold's own derivative is zero wherever it has one. Sums are float32 (float64 where ``x`` is).
    """
    exact = accumulator(x.dtype)
    activate, derive = ACTIVATIONS[act]
    inputs, grad_y, w_down = x.to(exact), grad.to(exact), down_t.to(exact)
    w_gate, w_up = (w.to(exact) if mode == "teal" else w.to(exact).T for w in (gate, up))  # [H, F]
    read = _above(inputs, input_threshold) if mode == "teal" else torch.ones_like(inputs, dtype=torch.bool)
    kept_inputs = torch.where(read, inputs, 0)
    g, u = kept_inputs @ w_gate, kept_inputs @ w_up
    a = activate(g)
    chosen = active if active is not None else _above(a if mode == "cats" else a * u, threshold)
    grad_neurons = torch.where(chosen, grad_y @ w_down.T, 0)
    grad_gate, grad_up = derive(grad_neurons * u, g), grad_neurons * a

    def weight(grad_out: Tensor) -> Tensor:
        return kept_inputs.T @ grad_out if mode == "teal" else grad_out.T @ kept_inputs

    found = [
        torch.where(read, grad_gate @ w_gate.T + grad_up @ w_up.T, 0) if needs[0] else None,
        weight(grad_gate) if needs[1] else None,
        weight(grad_up) if needs[2] else None,
        torch.where(chosen, a * u, 0).T @ grad_y if needs[3] else None,
    ]
    made = [x.new_empty(0) if t is None else t.to(x.dtype).contiguous() for t in found]
    return made[0], made[1], made[2], made[3]


def _above(value: Tensor, threshold: float) -> Tensor:
    """Where a magnitude is above the threshold; a NaN, which cannot be compared, stays."""
    return ~(value.abs() <= torch.tensor(threshold, dtype=torch.float32))


def _share(value: Tensor, kept: Tensor) -> Tensor:
    squares = value.double().square()
    return squares[kept].sum() / squares.sum()
