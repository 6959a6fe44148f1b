"""Statistics of the residual stream: argument checks, schema, shape rule, and the call into the backend."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from routing_kernels import reference
from routing_kernels.cpu import residual as cpu
from routing_kernels.dispatch import resolve
from routing_kernels.errors import ArgumentError
from routing_kernels.library import define, undispatched

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class ResidualStats(NamedTuple):
    """What :func:`residual_stats` returns: float32, one value per token, of the shape of ``pre`` without its last axis.

    With mid = pre + attn, change = attn + mlp and post = pre + change. A ratio to a zero vector and a cosine with one
    are NaN.
    """

    pre: Tensor  # L2 norm of the stream that enters
    attn: Tensor  # L2 norm of what attention adds
    mid: Tensor  # L2 norm of the stream between the two
    mlp: Tensor  # L2 norm of what the MLP adds
    change: Tensor  # L2 norm of what the block adds
    attn_norm: Tensor  # ||attn|| / ||pre||
    attn_cos: Tensor  # cos(attn, pre)
    mlp_norm: Tensor  # ||mlp|| / ||mid||
    mlp_cos: Tensor  # cos(mlp, mid)
    block_norm: Tensor  # ||change|| / ||pre||
    influence: Tensor  # 1 - cos(pre, post)


def residual_stats(pre: Tensor, attn: Tensor, mlp: Tensor, backend: str = "auto") -> ResidualStats:
    """How much the two parts of a block add to the residual stream, in which direction, and how far the block turns it.

    ``influence`` is the block influence of ShortGPT (Men et al. 2024, arXiv 2403.03853) before its mean over tokens.
    One pass over the three tensors; no intermediate of their size is made.

    Parameters
    ----------
    pre
        [..., H] float32, bfloat16, float16; float64 runs on the reference. The stream that enters the block.
    attn, mlp
        Of the shape and dtype of ``pre``: what attention and the MLP add to the stream, as added. The stream between
        and after them is their sum, unrounded.
    backend
        "auto", "reference", "cpu" or "triton" (see :func:`routing_kernels.resolve`).

    Sums are float64. On one backend and instruction set the result is deterministic, and a token's values do not
    depend on the other tokens or on the number of threads. Nothing here is differentiable.

    Raises
    ------
    ArgumentError
        A shape, dtype or device that cannot be used.
    BackendError
        A backend or instruction set that was named and cannot be had.
    """
    return ResidualStats(*residual_rows(pre, attn, mlp, backend).reshape(cpu.ROWS, *pre.shape[:-1]).unbind())


def residual_rows(pre: Tensor, attn: Tensor, mlp: Tensor, backend: str = "auto") -> Tensor:
    """:func:`residual_stats` as one tensor [11, T] float32: the fields of :class:`ResidualStats` as rows, T the tokens of
    all leading axes. For a caller who has many calls to make and to keep."""
    _check(pre, attn, mlp)
    if torch.is_grad_enabled():
        pre, attn, mlp = pre.detach(), attn.detach(), mlp.detach()
    found: Tensor = _op(pre, attn, mlp, backend)
    return found


def _check(pre: Tensor, attn: Tensor, mlp: Tensor) -> None:
    if pre.dim() < 1 or not pre.shape == attn.shape == mlp.shape or pre.shape[-1] == 0:
        raise ArgumentError(
            f"The shapes do not fit together: pre {list(pre.shape)}, attn {list(attn.shape)}, mlp {list(mlp.shape)}.",
            "Give all three one shape [..., H] with H at least 1.",
        )
    if pre.dtype not in DTYPES or not pre.dtype == attn.dtype == mlp.dtype:
        raise ArgumentError(
            f"pre, attn and mlp are {pre.dtype}, {attn.dtype} and {mlp.dtype}.",
            "Give all three one dtype: float32, bfloat16, float16 or float64.",
        )
    if not pre.device == attn.device == mlp.device:
        raise ArgumentError("The arguments are on different devices.", f"Move all of them to {pre.device}.")


def _forward(pre: Tensor, attn: Tensor, mlp: Tensor, backend: str) -> Tensor:
    name, isa = resolve(backend, pre.device, pre.dtype)
    if name == "cpu":
        return cpu.residual_stats(pre, attn, mlp, isa)
    if name == "triton":
        from routing_kernels.triton import residual as triton

        return triton.residual_stats(pre, attn, mlp)
    return reference.residual_stats(pre, attn, mlp)


def _forward_shapes(pre: Tensor, attn: Tensor, mlp: Tensor, backend: str) -> Tensor:
    return pre.new_empty((cpu.ROWS, pre.shape[:-1].numel()), dtype=torch.float32)


_op = undispatched(
    define(
        "residual_stats",
        "(Tensor pre, Tensor attn, Tensor mlp, str backend) -> Tensor",
        _forward,
        _forward_shapes,
    ),
    _forward,
)
