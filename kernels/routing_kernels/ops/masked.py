"""Products with masked weights: packing, argument checks, schema, shape rule, gradient, and the call into the backend."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from routing_kernels import reference
from routing_kernels.cpu import masked as cpu
from routing_kernels.dispatch import resolve
from routing_kernels.errors import ArgumentError
from routing_kernels.library import define, differentiable, undispatched
from routing_kernels.ops.moe import DTYPES
from routing_kernels.reference.masked import kept_entries


class MaskedWeight(NamedTuple):
    """A weight [N, K] of which only some entries are kept, as :func:`pack_masked` packs it."""

    values: (
        Tensor  # [kept + 16] of the weight's dtype: the kept entries row by row, then zeros that may be read
    )
    bits: Tensor  # [N, 2 ceil(K / 16)] uint8: bit k of a row, lowest first, is set where column k is kept
    start: Tensor  # [N + 1] int64: where each row's values begin
    columns: int  # K

    @property
    def row_nnz(self) -> Tensor:
        """[N] int64: kept entries of each row."""
        return self.start.diff()

    def dense(self) -> Tensor:
        """The weight [N, K] again, zeros where nothing is kept."""
        kept = kept_entries(self.bits, self.columns)
        return self.values.new_zeros(kept.shape).masked_scatter(kept, self.values)


def n_of_m(weight: Tensor, n: int = 2, m: int = 4) -> Tensor:
    """Mask [N, K] (bool) that keeps the ``n`` largest magnitudes of every ``m`` neighbours in a row.

    Raises
    ------
    ArgumentError
        K is no multiple of ``m``, or ``n`` is not in 0..m.
    """
    if weight.dim() != 2 or m < 1 or weight.shape[1] % m or not 0 <= n <= m:
        raise ArgumentError(
            f"A weight of shape {list(weight.shape)} has no {n} of every {m}.",
            "Give a weight [N, K] where K is a multiple of m, and n in 0..m.",
        )
    groups = weight.detach().abs().unflatten(1, (-1, m))
    return torch.zeros_like(groups, dtype=torch.bool).scatter(-1, groups.topk(n).indices, True).flatten(1)


def pack_masked(weight: Tensor, mask: Tensor) -> MaskedWeight:
    """Packs ``weight`` [N, K] where ``mask`` [N, K] (bool) keeps it. Done once; the values are differentiable.

    Raises
    ------
    ArgumentError
        The shapes or dtypes cannot be used.
    """
    if (
        weight.dim() != 2
        or mask.shape != weight.shape
        or mask.dtype != torch.bool
        or weight.dtype not in DTYPES
    ):
        raise ArgumentError(
            f"weight is {weight.dtype} {list(weight.shape)} and mask is {mask.dtype} {list(mask.shape)}.",
            "Give a floating-point weight [N, K] and booleans of the same shape.",
        )
    eights = F.pad(mask, (0, -mask.shape[1] % 16)).unflatten(1, (-1, 8))
    bits = (eights.to(torch.uint8) << torch.arange(8, dtype=torch.uint8, device=mask.device)).sum(-1)
    start = F.pad(mask.sum(1).cumsum(0), (1, 0))
    return MaskedWeight(F.pad(weight[mask], (0, cpu.SPARE)), bits.to(torch.uint8), start, weight.shape[1])


def masked_matmul(x: Tensor, weight: MaskedWeight, backend: str = "auto") -> Tensor:
    """``x W^T`` [T, N] of x's dtype for a packed weight, reading the kept entries alone.

    Parameters
    ----------
    x
        [T, K] float32, bfloat16, float16; float64 runs on the reference.
    weight
        From :func:`pack_masked`, of x's dtype. N of every M is one mask among others (:func:`n_of_m`).
    backend
        "auto", "reference", "cpu" or "triton" (see :func:`routing_kernels.resolve`).

    Sums are float32 and rounded once, at the end. A column that a row does not keep is not seen, NaN or not. On one
    backend and instruction set the result is deterministic, and a token's row does not depend on the other tokens of
    the call or on the number of threads. Gradients reach ``x`` and the packed values.

    Raises
    ------
    ArgumentError
        A shape, dtype or device that cannot be used.
    BackendError
        A backend or instruction set that was named and cannot be had.
    """
    if x.dim() != 2 or x.shape[1] != weight.columns:
        raise ArgumentError(
            f"x has shape {list(x.shape)} and the weight has {weight.columns} columns.", "Give x as [T, K]."
        )
    learns = torch.is_grad_enabled() and (x.requires_grad or weight.values.requires_grad)
    return (_op if learns else _plain_op)(x, weight.values, weight.bits, weight.start, backend)


def _check(x: Tensor, values: Tensor, bits: Tensor, start: Tensor) -> None:
    if x.dtype not in DTYPES or values.dtype != x.dtype:
        raise ArgumentError(
            f"x is {x.dtype} and the weight is {values.dtype}.",
            "Give both one dtype: float32, bfloat16, float16 or float64.",
        )
    if any(t.device != x.device for t in (values, bits, start)):
        raise ArgumentError("x and the weight are on different devices.", f"Move all of it to {x.device}.")


def _forward(x: Tensor, values: Tensor, bits: Tensor, start: Tensor, backend: str) -> Tensor:
    _check(x, values, bits, start)
    name, isa = resolve(backend, x.device, x.dtype)
    if name == "cpu":
        return cpu.masked_matmul(x, values, bits, start, isa)
    if name == "triton":
        from routing_kernels.triton import masked as triton

        return triton.masked_matmul(x, values, bits, start)
    return reference.masked_matmul(x, values, bits, start)


def _forward_shapes(x: Tensor, values: Tensor, bits: Tensor, start: Tensor, backend: str) -> Tensor:
    _check(x, values, bits, start)
    return x.new_empty((x.shape[0], bits.shape[0]))


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, values, bits = ctx.saved_tensors
    want_x, want_values, *_ = ctx.needs_input_grad
    kept = kept_entries(bits, x.shape[1])
    grad_x = grad_values = None
    if want_x:
        grad_x = grad @ values.new_zeros(kept.shape).masked_scatter(kept, values)
    if want_values:  # spread into the values' own length, which the compiler knows
        order = kept.flatten().cumsum(0) - 1
        spread = torch.where(kept.flatten(), order, len(values) - 1)
        dense = torch.where(kept, grad.T @ x, 0).flatten()
        grad_values = values.new_zeros(values.shape).index_add(0, spread, dense)
    return grad_x, grad_values, None, None, None


_op = define(
    "masked_matmul",
    "(Tensor x, Tensor values, Tensor bits, Tensor start, str backend) -> Tensor",
    _forward,
    _forward_shapes,
)
_plain_op = undispatched(_op, _forward)
differentiable("masked_matmul", _differentiate, _save_for_backward)
