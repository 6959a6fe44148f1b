"""The expert layer: argument checks, schema, shape rule, gradient, and the call into the backend."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from routing_kernels import reference
from routing_kernels.cpu import moe as cpu
from routing_kernels.dispatch import resolve
from routing_kernels.errors import ArgumentError
from routing_kernels.library import define, differentiable, undispatched

ACTIVATIONS = tuple(reference.ACTIVATIONS)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class MoeExperts(NamedTuple):
    """What :func:`moe_experts` returns. T tokens, k slots, E experts, H hidden size; statistics are not differentiable.

    Without ``stats`` the last five have zero size; with it a dropped slot's entries are 0.
    """

    y: Tensor  # [T, H] of x's dtype: the weighted sum of each token's experts
    counts: Tensor  # [E] int64: slots each expert executed
    dropped: Tensor  # [] int64: slots that named no expert; counts.sum() + dropped == T * k
    slot_norm: Tensor  # [T, k] float32: L2 norm of the expert's output before its weight
    hidden_l1: Tensor  # [T, k] float32: L1 norm of the expert's neurons act(gate) * up
    hidden_l2: Tensor  # [T, k] float32: L2 norm of the same
    hidden_zero: Tensor  # [T, k] int32: neurons that are exactly 0
    hidden_below: Tensor  # [T, k] int32: neurons with |a| < threshold

    def rows(self) -> ExpertRows:
        """The same with its statistics side by side."""
        return ExpertRows(*self[:3], torch.stack(self[3:6]), torch.stack(self[6:]))


class ExpertRows(NamedTuple):
    """:class:`MoeExperts` with its statistics side by side, as :func:`expert_rows` returns it; both of zero size without
    ``stats``."""

    y: Tensor  # [T, H] of x's dtype
    counts: Tensor  # [E] int64
    dropped: Tensor  # [] int64
    norms: Tensor  # [3, T, k] float32: slot_norm, hidden_l1, hidden_l2
    tallies: Tensor  # [2, T, k] int32: hidden_zero, hidden_below


def moe_experts(
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    gate_up: Tensor,
    down: Tensor,
    act: str = "silu",
    stats: bool = False,
    threshold: float = 0.01,
    backend: str = "auto",
) -> MoeExperts:
    """The chosen experts of a mixture-of-experts layer, weighted and added, with what they did.

    For a token x with slots j: ``y = sum_j weights_j * W_down[e_j] (act(W_gate[e_j] x) * (W_up[e_j] x))``, the gated
    expert of Shazeer 2020 (arXiv 2002.05202) as Hugging Face's fused expert banks hold it.

    Parameters
    ----------
    x
        [T, H] float32, bfloat16, float16; float64 runs on the reference.
    ids
        [T, k] int64. An id below 0 or not below E is skipped: it costs nothing, adds nothing and is counted in
        ``dropped``. The same expert twice in a token is legal.
    weights
        [T, k] floating point: the combine weights, used as they are.
    gate_up
        [E, 2I, H] of x's dtype: rows 0..I are the gate, I..2I up. Any strides whose last is 1.
    down
        [E, H, I] of x's dtype. Any strides whose last is 1.
    act
        One of ``ACTIVATIONS``, by the names that Hugging Face configurations use.
    stats
        Whether to fill the statistics; ``y`` has the same bits either way.
    threshold
        ``hidden_below`` counts neurons whose magnitude is below it.
    backend
        "auto", "reference", "cpu" or "triton" (see :func:`routing_kernels.resolve`).

    Sums are float32 and rounded once, at the end. On one backend and instruction set the result is deterministic,
    and a token's row does not depend on the other tokens of the call or on the number of threads.

    Raises
    ------
    ArgumentError
        A shape, dtype, device, layout or activation that cannot be used.
    BackendError
        A backend or instruction set that was named and cannot be had.
    """
    y, counts, dropped, norms, tallies = expert_rows(
        x, ids, weights, gate_up, down, act, stats, threshold, backend
    )
    if not stats:
        return MoeExperts(y, counts, dropped, norms, norms, norms, tallies, tallies)
    return MoeExperts(y, counts, dropped, *norms.unbind(), *tallies.unbind())


def expert_rows(
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    gate_up: Tensor,
    down: Tensor,
    act: str = "silu",
    stats: bool = False,
    threshold: float = 0.01,
    backend: str = "auto",
) -> ExpertRows:
    """:func:`moe_experts` with its statistics side by side, for a caller who has many calls to make and to keep."""
    learns = x.requires_grad or weights.requires_grad or gate_up.requires_grad or down.requires_grad
    op = _op if learns and torch.is_grad_enabled() else _inference_op
    return ExpertRows(*op(x, ids, weights, gate_up, down, act, stats, threshold, backend))


def _check(x: Tensor, ids: Tensor, weights: Tensor, gate_up: Tensor, down: Tensor, act: str) -> None:
    if act not in ACTIVATIONS:
        raise ArgumentError(f"There is no activation {act!r} here.", f"Use one of {', '.join(ACTIVATIONS)}.")
    if x.dim() != 2 or ids.dim() != 2 or gate_up.dim() != 3 or down.dim() != 3:
        _refuse_shapes(x, ids, weights, gate_up, down)
    (tokens, hidden), (experts, rows, columns) = x.shape, gate_up.shape
    fits = ids.shape[0] == tokens and weights.shape == ids.shape and columns == hidden
    if not fits or rows % 2 or tuple(down.shape) != (experts, hidden, rows // 2):
        _refuse_shapes(x, ids, weights, gate_up, down)
    dtype = x.dtype
    if dtype not in DTYPES or gate_up.dtype != dtype or down.dtype != dtype:
        raise ArgumentError(
            f"x, gate_up and down are {dtype}, {gate_up.dtype} and {down.dtype}.",
            "Give all three one dtype: float32, bfloat16, float16 or float64.",
        )
    if ids.dtype != torch.int64 or not weights.dtype.is_floating_point:
        raise ArgumentError(
            f"ids are {ids.dtype} and weights are {weights.dtype}.",
            "Give ids as int64 and weights as floating point.",
        )
    device = x.device
    if ids.device != device or weights.device != device or gate_up.device != device or down.device != device:
        raise ArgumentError("The arguments are on different devices.", f"Move all of them to {device}.")
    if gate_up.stride(2) != 1 or down.stride(2) != 1:
        raise ArgumentError(
            "The last dimension of gate_up or down is not contiguous.",
            "Call .contiguous() on them once, when the model is loaded.",
        )


def _refuse_shapes(*arguments: Tensor) -> None:
    names = ("x", "ids", "weights", "gate_up", "down")
    given = ", ".join(f"{name} {list(a.shape)}" for name, a in zip(names, arguments, strict=True))
    raise ArgumentError(
        f"The shapes do not fit together: {given}.",
        "Give x [T, H], ids and weights [T, k], gate_up [E, 2I, H] and down [E, H, I].",
    )


def _forward(
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    gate_up: Tensor,
    down: Tensor,
    act: str,
    stats: bool,
    threshold: float,
    backend: str,
) -> tuple[Tensor, ...]:
    _check(x, ids, weights, gate_up, down, act)
    name, isa = resolve(backend, x.device, x.dtype)
    if name == "cpu":
        return cpu.moe_experts(x, ids, weights, gate_up, down, act, stats, threshold, isa)
    if name == "triton":
        from routing_kernels.triton import moe as triton

        return triton.moe_experts(x, ids, weights, gate_up, down, act, stats, threshold)
    return reference.moe_experts(x, ids, weights, gate_up, down, act, stats, threshold)


def _forward_shapes(
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    gate_up: Tensor,
    down: Tensor,
    act: str,
    stats: bool,
    threshold: float,
    backend: str,
) -> tuple[Tensor, ...]:
    _check(x, ids, weights, gate_up, down, act)
    norms = x.new_empty((3, *ids.shape) if stats else (0,), dtype=torch.float32)
    tallies = x.new_empty((2, *ids.shape) if stats else (0,), dtype=torch.int32)
    return x.new_empty(x.shape), ids.new_empty(gate_up.shape[0]), ids.new_empty(()), norms, tallies


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, ids, weights, gate_up, down, ctx.act, *_ = inputs
    ctx.save_for_backward(x, ids, weights, gate_up, down)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    x, ids, weights, gate_up, down = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    needs = [wanted[0], wanted[2], wanted[3], wanted[4]]
    if grad is None or not any(needs):
        return (None,) * 9
    found = _backward_op(grad, x, ids, weights, gate_up, down, ctx.act, needs)
    grads = [g if need else None for g, need in zip(found, needs, strict=True)]
    return grads[0], None, *grads[1:], None, None, None, None


def _refuse_second_derivative(ctx: Any, *_: Tensor | None) -> None:
    raise ArgumentError(
        "The expert layer has no second derivative.",
        "Differentiate it once, or run the model's own experts where a second derivative is needed.",
    )


def _backward_shapes(
    grad: Tensor,
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    gate_up: Tensor,
    down: Tensor,
    act: str,
    needs: list[bool],
) -> tuple[Tensor, ...]:
    inputs = (x, weights, gate_up, down)
    return tuple(
        torch.empty_like(t) if need else t.new_empty(0) for t, need in zip(inputs, needs, strict=True)
    )


# norms [3, T, k] are slot_norm, hidden_l1 and hidden_l2; tallies [2, T, k] are hidden_zero and hidden_below: two
# tensors cost less to make than five.
_INPUTS = "Tensor x, Tensor ids, Tensor weights, Tensor gate_up, Tensor down, str act"
_FORWARD = (
    f"({_INPUTS}, bool stats, float threshold, str backend) -> "
    "(Tensor y, Tensor counts, Tensor dropped, Tensor norms, Tensor tallies)"
)
_BACKWARD = f"(Tensor grad, {_INPUTS}, bool[] needs) -> (Tensor, Tensor, Tensor, Tensor)"

_op = define("moe_experts", _FORWARD, _forward, _forward_shapes)
differentiable("moe_experts", _differentiate, _save_for_backward)
# The same without a gradient: where none is wanted, a call saves autograd's own step in Python, which counts in
# a small layer on one token.
_inference_op = undispatched(define("moe_experts_inference", _FORWARD, _forward, _forward_shapes), _forward)
_backward_op = define("moe_experts_backward", _BACKWARD, reference.moe_experts_backward, _backward_shapes)
differentiable("moe_experts_backward", _refuse_second_derivative)
