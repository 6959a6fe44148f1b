"""Log-probabilities of tokens: argument checks, schema, shape rule, gradient, and the call into the backend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from routing_kernels import reference
from routing_kernels.cpu import logprob as cpu
from routing_kernels.dispatch import resolve
from routing_kernels.errors import ArgumentError, BackendError
from routing_kernels.library import define, differentiable, undispatched

DTYPES = (torch.float32, torch.float64)


def token_logprob(logits: Tensor, tokens: Tensor, backend: str = "auto") -> Tensor:
    """log softmax(logits[t])[tokens[t]] for each t, in nats, without the softmax of a whole vocabulary being formed.

    Parameters
    ----------
    logits
        [T, V] float32; float64 runs on the reference.
    tokens
        [T] int64, each from 0 to V - 1.
    backend
        "auto", "reference" or "cpu" (see :func:`routing_kernels.resolve`); there is no kernel for GPUs.

    Returns
    -------
    Tensor
        [T] of the dtype of the logits: -inf where the token's logit is -inf, NaN where the row holds a NaN or nothing but
        -inf.

    On one backend and instruction set the result is deterministic, and a token's value does not depend on the other tokens
    or on the number of threads. It is differentiable with respect to the logits.

    Raises
    ------
    ArgumentError
        A shape, dtype, device or token that cannot be used.
    BackendError
        A backend or instruction set that was named and cannot be had.
    """
    op = _op if torch.is_grad_enabled() and logits.requires_grad else _plain
    found: Tensor = op(logits, tokens, backend)
    return found


def _check(logits: Tensor, tokens: Tensor) -> None:
    if logits.dim() != 2 or tuple(tokens.shape) != tuple(logits.shape[:1]) or logits.shape[1] == 0:
        raise ArgumentError(
            f"The shapes do not fit together: logits {list(logits.shape)}, tokens {list(tokens.shape)}.",
            "Give [T, V] with V at least 1, and [T].",
        )
    if logits.dtype not in DTYPES or tokens.dtype != torch.int64:
        raise ArgumentError(
            f"The logits are {logits.dtype} and the tokens {tokens.dtype}.",
            "Give logits as float32 or float64 and tokens as int64.",
        )
    if logits.device != tokens.device:
        raise ArgumentError("The arguments are on different devices.", f"Move both to {logits.device}.")


def _forward(logits: Tensor, tokens: Tensor, backend: str) -> Tensor:
    _check(logits, tokens)
    if backend == "auto" and logits.device.type != "cpu":
        backend = "reference"
    name, isa = resolve(backend, logits.device, logits.dtype)
    if name == "cpu":
        return cpu.token_logprob(logits, tokens, isa)
    if name == "triton":
        raise BackendError(
            "There is no triton kernel for token_logprob.", "Choose auto, cpu or reference for it."
        )
    if tokens.numel() and not (int(tokens.min()) >= 0 and int(tokens.max()) < logits.shape[1]):
        raise ArgumentError(
            f"A token is not among the {logits.shape[1]} of the logits.", "Number them from 0."
        )
    return reference.token_logprob(logits, tokens)


def _forward_shapes(logits: Tensor, tokens: Tensor, backend: str) -> Tensor:
    _check(logits, tokens)
    return logits.new_empty(tokens.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return reference.token_logprob_backward(grad, *ctx.saved_tensors), None, None


_op = define(
    "token_logprob", "(Tensor logits, Tensor tokens, str backend) -> Tensor", _forward, _forward_shapes
)
_plain = undispatched(_op, _forward)
differentiable("token_logprob", _differentiate, _save)
