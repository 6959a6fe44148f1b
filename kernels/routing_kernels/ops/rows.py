"""Gather and scatter of rows: argument checks, schemas, shape rules, gradients, and the call into the backend."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from routing_kernels import reference
from routing_kernels.cpu import rows as cpu
from routing_kernels.dispatch import resolve
from routing_kernels.errors import ArgumentError
from routing_kernels.library import define, differentiable, undispatched
from routing_kernels.ops.moe import DTYPES


class Rows(NamedTuple):
    """What :func:`gather_rows` and :func:`scatter_add_rows` return; nothing but ``y`` is differentiable."""

    y: Tensor  # [C, D] for a gather, [T, D] for a scatter
    dropped: Tensor  # [] int64: ids that name no row
    row_norm: Tensor  # [C] float32: L2 norm of each row as it was taken or added; 0 where dropped; without stats: size 0


def gather_rows(x: Tensor, ids: Tensor, stats: bool = False, backend: str = "auto") -> Rows:
    """``y[i] = x[ids[i]]``: the tokens that a router sends through a block (Mixture-of-Depths, Raposo et al. 2024,
    arXiv 2404.02258).

    Parameters
    ----------
    x
        [T, D] float32, bfloat16, float16; float64 runs on the reference.
    ids
        [C] int64. An id below 0 or not below T gives a row of zeros and is counted in ``dropped``.
    stats
        Whether to fill ``row_norm``; ``y`` has the same bits either way.
    backend
        "auto", "reference", "cpu" or "triton" (see :func:`routing_kernels.resolve`).

    Raises
    ------
    ArgumentError
        A shape, dtype or device that cannot be used.
    BackendError
        A backend or instruction set that was named and cannot be had.
    """
    op = _gather_op if torch.is_grad_enabled() and x.requires_grad else _gather_plain
    return Rows(*op(x, ids, stats, backend))


def scatter_add_rows(
    base: Tensor,
    rows: Tensor,
    ids: Tensor,
    weights: Tensor | None = None,
    stats: bool = False,
    backend: str = "auto",
) -> Rows:
    """``y = base``, and then ``y[ids[i]] += weights[i] * rows[i]`` for i = 0, 1, ...: what a block did to the tokens that
    went through it, added back.

    Parameters
    ----------
    base
        [T, D] float32, bfloat16, float16; float64 runs on the reference. It is not changed.
    rows
        [C, D] of base's dtype.
    ids
        [C] int64. An id below 0 or not below T adds nothing and is counted in ``dropped``. Repetitions add up.
    weights
        [C] floating point; None: ones.
    stats
        Whether to fill ``row_norm``, of ``weights[i] * rows[i]``; ``y`` has the same bits either way.
    backend
        "auto", "reference", "cpu" or "triton" (see :func:`routing_kernels.resolve`).

    Sums are float32, in the order of the ids, and rounded once: the result is deterministic, whatever the number of
    threads.

    Raises
    ------
    ArgumentError
        A shape, dtype or device that cannot be used.
    BackendError
        A backend or instruction set that was named and cannot be had.
    """
    learns = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (base, rows, weights))
    op = _scatter_op if learns else _scatter_plain
    return Rows(*op(base, rows, ids, weights, stats, backend))


def _check(x: Tensor, ids: Tensor, rows: Tensor | None = None, weights: Tensor | None = None) -> None:
    fits = x.dim() == 2 and ids.dim() == 1
    if rows is not None:
        fits = fits and tuple(rows.shape) == (len(ids), x.shape[1])
    if weights is not None:
        fits = fits and weights.shape == ids.shape
    tensors = [t for t in (x, rows, ids, weights) if t is not None]
    if not fits:
        given = ", ".join(str(list(t.shape)) for t in tensors)
        raise ArgumentError(
            f"The shapes do not fit together: {given}.",
            "Give [T, D] with ids [C]; to scatter, also rows [C, D] and weights [C].",
        )
    if x.dtype not in DTYPES or (rows is not None and rows.dtype != x.dtype):
        raise ArgumentError(
            f"The rows are {', '.join(str(t.dtype) for t in (x, rows) if t is not None)}.",
            "Give one dtype: float32, bfloat16, float16 or float64.",
        )
    if ids.dtype != torch.int64 or (weights is not None and not weights.dtype.is_floating_point):
        raise ArgumentError(
            f"ids are {ids.dtype}" + ("." if weights is None else f" and weights are {weights.dtype}."),
            "Give ids as int64 and weights as floating point.",
        )
    if any(t.device != x.device for t in tensors):
        raise ArgumentError("The arguments are on different devices.", f"Move all of them to {x.device}.")


def _gather(x: Tensor, ids: Tensor, stats: bool, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    _check(x, ids)
    name, isa = resolve(backend, x.device, x.dtype)
    if name == "cpu":
        return cpu.gather_rows(x, ids, stats, isa)
    if name == "triton":
        from routing_kernels.triton import rows as triton

        return triton.gather_rows(x, ids, stats)
    return reference.gather_rows(x, ids, stats)


def _gather_shapes(x: Tensor, ids: Tensor, stats: bool, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    _check(x, ids)
    norms = x.new_empty(ids.shape if stats else (0,), dtype=torch.float32)
    return x.new_empty((ids.shape[0], x.shape[1])), ids.new_empty(()), norms


def _save_gather(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, ids, _, ctx.backend = inputs
    ctx.height = x.shape[0]
    ctx.save_for_backward(ids)
    ctx.mark_non_differentiable(*output[1:])


def _differentiate_gather(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    (ids,) = ctx.saved_tensors
    nothing = grad.new_zeros((ctx.height, grad.shape[1]))
    return scatter_add_rows(nothing, grad, ids, backend=ctx.backend).y, None, None, None


def _scatter(
    base: Tensor, rows: Tensor, ids: Tensor, weights: Tensor | None, stats: bool, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    _check(base, ids, rows, weights)
    name, isa = resolve(backend, base.device, base.dtype)
    if name == "cpu":
        return cpu.scatter_add_rows(base, rows, ids, weights, stats, isa)
    if name == "triton":
        from routing_kernels.triton import rows as triton

        return triton.scatter_add_rows(base, rows, ids, weights, stats)
    return reference.scatter_add_rows(base, rows, ids, weights, stats)


def _scatter_shapes(
    base: Tensor, rows: Tensor, ids: Tensor, weights: Tensor | None, stats: bool, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    _check(base, ids, rows, weights)
    norms = base.new_empty(ids.shape if stats else (0,), dtype=torch.float32)
    return base.new_empty(base.shape), ids.new_empty(()), norms


def _save_scatter(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, rows, ids, weights, _, ctx.backend = inputs
    ctx.save_for_backward(rows, ids, weights)
    ctx.mark_non_differentiable(*output[1:])


def _differentiate_scatter(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    rows, ids, weights = ctx.saved_tensors
    taken = gather_rows(grad, ids, backend=ctx.backend).y
    grad_rows, grad_weights = taken, None
    if weights is not None:
        # A dropped row's weight may be anything, NaN too.
        named = (ids >= 0) & (ids < grad.shape[0])
        grad_rows = torch.where(named[:, None], taken * weights[:, None].to(taken.dtype), 0)
        grad_weights = torch.where(named, (taken * rows).sum(-1), 0).to(weights.dtype)
    return grad, grad_rows, None, grad_weights, None, None


_gather_op = define(
    "gather_rows",
    "(Tensor x, Tensor ids, bool stats, str backend) -> (Tensor y, Tensor dropped, Tensor row_norm)",
    _gather,
    _gather_shapes,
)
_gather_plain = undispatched(_gather_op, _gather)
differentiable("gather_rows", _differentiate_gather, _save_gather)
_scatter_op = define(
    "scatter_add_rows",
    "(Tensor base, Tensor rows, Tensor ids, Tensor? weights, bool stats, str backend) -> "
    "(Tensor y, Tensor dropped, Tensor row_norm)",
    _scatter,
    _scatter_shapes,
)
_scatter_plain = undispatched(_scatter_op, _scatter)
differentiable("scatter_add_rows", _differentiate_scatter, _save_scatter)
