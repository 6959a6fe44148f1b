"""A linear layer of each slot's expert: argument checks, schema, shape rule, gradient, and the call into the backend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from routing_kernels import reference
from routing_kernels.cpu import expert_linear as cpu
from routing_kernels.dispatch import resolve
from routing_kernels.errors import ArgumentError
from routing_kernels.library import define, differentiable, undispatched
from routing_kernels.ops.moe import DTYPES


def expert_linear(
    x: Tensor,
    ids: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    transposed: bool = False,
    backend: str = "auto",
) -> Tensor:
    """``y[t, j] = W[e] x + b[e]`` with the expert e = ``ids[t, j]`` of each slot: [T, k, N] of x's dtype.

    Parameters
    ----------
    x
        [T, K], a row for all slots of a token, or [T, k, K], a row for each; float32, bfloat16, float16; float64 runs on
        the reference.
    ids
        [T, k] int64. An id below 0 or not below E costs nothing and its row is 0.
    weight
        [E, N, K] of x's dtype; [E, K, N] where ``transposed``. Any strides whose last is 1.
    bias
        [E, N] of x's dtype, or None.
    backend
        "auto", "reference", "cpu" or "triton" (see :func:`routing_kernels.resolve`).

    Sums are float32 and rounded once, at the end. On one backend and instruction set the result is deterministic, and a
    slot's row does not depend on the other slots of the call or on the number of threads.

    Raises
    ------
    ArgumentError
        A shape, dtype, device or layout that cannot be used.
    BackendError
        A backend or instruction set that was named and cannot be had.
    """
    learns = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))
    return (_op if learns else _plain_op)(x, ids, weight, bias, transposed, backend)


def _check(x: Tensor, ids: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> None:
    shapes = x.dim() in (2, 3) and ids.dim() == 2 and weight.dim() == 3
    fits = shapes and x.shape[:-1] == (ids.shape if x.dim() == 3 else ids.shape[:1])
    if fits:
        depth, outputs = weight.shape[1:] if transposed else reversed(weight.shape[1:])
        fits = depth == x.shape[-1] and (bias is None or tuple(bias.shape) == (weight.shape[0], outputs))
    if not fits:
        given = f"x {list(x.shape)}, ids {list(ids.shape)}, weight {list(weight.shape)}"
        raise ArgumentError(
            f"The shapes do not fit together: {given}, bias {None if bias is None else list(bias.shape)}.",
            "Give x [T, K] or [T, k, K], ids [T, k], weight [E, N, K] (transposed: [E, K, N]) and bias [E, N].",
        )
    known = [t for t in (x, weight, bias) if t is not None]
    if x.dtype not in DTYPES or any(t.dtype != x.dtype for t in known) or ids.dtype != torch.int64:
        raise ArgumentError(
            f"x, weight and bias are {', '.join(str(t.dtype) for t in known)} and ids are {ids.dtype}.",
            "Give the first three one dtype, float32, bfloat16, float16 or float64, and ids as int64.",
        )
    if any(t.device != x.device for t in (*known, ids)):
        raise ArgumentError("The arguments are on different devices.", f"Move all of them to {x.device}.")
    if weight.stride(2) != 1 and weight.shape[2] > 1:
        raise ArgumentError(
            "The last dimension of weight is not contiguous.",
            "Call .contiguous() on it once, when the model is loaded, or say that it is transposed.",
        )


def _forward(
    x: Tensor, ids: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool, backend: str
) -> Tensor:
    _check(x, ids, weight, bias, transposed)
    name, isa = resolve(backend, x.device, x.dtype)
    if name == "cpu":
        return cpu.expert_linear(x, ids, weight, bias, transposed, isa)
    if name == "triton":
        from routing_kernels.triton import expert_linear as triton

        return triton.expert_linear(x, ids, weight, bias, transposed)
    return reference.expert_linear(x, ids, weight, bias, transposed)


def _forward_shapes(
    x: Tensor, ids: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool, backend: str
) -> Tensor:
    _check(x, ids, weight, bias, transposed)
    return x.new_empty((*ids.shape, weight.shape[2 if transposed else 1]))


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ids, weight, _, ctx.transposed, _ = inputs
    ctx.save_for_backward(x, ids, weight)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    needs = [ctx.needs_input_grad[0], *ctx.needs_input_grad[2:4]]
    x, ids, weight = ctx.saved_tensors
    found = _backward_op(grad, x, ids, weight, ctx.transposed, needs)
    grads = [g if need else None for g, need in zip(found, needs, strict=True)]
    return grads[0], None, *grads[1:], None, None


def _backward_shapes(
    grad: Tensor, x: Tensor, ids: Tensor, weight: Tensor, transposed: bool, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    bias = (weight.shape[0], grad.shape[2])
    return (
        x.new_empty(x.shape if needs[0] else 0),
        torch.empty_like(weight) if needs[1] else weight.new_empty(0),
        weight.new_empty(bias if needs[2] else 0),
    )


def _refuse_second_derivative(ctx: Any, *_: Tensor | None) -> None:
    raise ArgumentError(
        "The linear layer of experts has no second derivative.",
        "Differentiate it once, or run the model's own experts where a second derivative is needed.",
    )


_op = define(
    "expert_linear",
    "(Tensor x, Tensor ids, Tensor weight, Tensor? bias, bool transposed, str backend) -> Tensor",
    _forward,
    _forward_shapes,
)
_plain_op = undispatched(_op, _forward)
differentiable("expert_linear", _differentiate, _save_for_backward)
_backward_op = define(
    "expert_linear_backward",
    "(Tensor grad, Tensor x, Tensor ids, Tensor weight, bool transposed, bool[] needs) -> (Tensor, Tensor, Tensor)",
    reference.expert_linear_backward,
    _backward_shapes,
)
differentiable("expert_linear_backward", _refuse_second_derivative)
