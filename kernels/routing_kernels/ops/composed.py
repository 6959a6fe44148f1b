"""Experts of any make: two linear layers of ours with the caller's own function between them, and the same statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from routing_kernels.errors import ArgumentError
from routing_kernels.ops.expert_linear import expert_linear
from routing_kernels.ops.masked import MaskedWeight, masked_matmul
from routing_kernels.ops.moe import MoeExperts


class ExpertLinear(NamedTuple):
    """One linear layer of every expert, as :func:`routing_kernels.expert_linear` takes it."""

    weight: Tensor  # [E, N, K], or [E, K, N] where transposed
    bias: Tensor | None = None  # [E, N]
    transposed: bool = False


class MaskedExpertLinear(NamedTuple):
    """One linear layer of every expert of which only some entries are kept, as :func:`routing_kernels.pack_masked` packs
    them: a product reads the kept ones alone."""

    experts: tuple[MaskedWeight, ...]  # E of them, each [N, K]


Layer: TypeAlias = ExpertLinear | MaskedExpertLinear


def composed_experts(
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    first: Layer,
    second: Layer,
    activate: Callable[[Tensor], Tensor],
    finish: Callable[[Tensor], Tensor] | None = None,
    stats: bool = False,
    threshold: float = 0.01,
    backend: str = "auto",
) -> MoeExperts:
    """What :func:`routing_kernels.moe_experts` does, for experts that it does not cover.

    ``y = sum_j weights_j * finish(second(activate(first(x))))`` over the slots j of a token: with biases, weights held
    transposed or masked, gate and up interleaved or no gate at all, any activation, and a norm at the end. Between the
    parts values are rounded to x's dtype, as the model's own function does. A dropped slot costs no product and adds
    nothing.

    Parameters
    ----------
    x, ids, weights
        [T, H], [T, k] int64, [T, k] floating point, as for :func:`routing_kernels.moe_experts`.
    first, second
        The layer from H inputs to N, and from I neurons to H outputs.
    activate
        Rows [S, N] to neurons [S, I], row by row.
    finish
        Rows [S, H] to rows of the same shape, row by row, before their weight; None: nothing.
    stats, threshold, backend
        As for :func:`routing_kernels.moe_experts`; ``y`` has the same bits with statistics and without.

    Raises
    ------
    ArgumentError
        A shape, dtype, device or layout that cannot be used.
    BackendError
        A backend or instruction set that was named and cannot be had.
    """
    experts = _size(first)
    if _size(second) != experts or x.dim() != 2 or weights.shape != ids.shape:
        raise ArgumentError(
            f"x is {list(x.shape)}, ids {list(ids.shape)}, weights {list(weights.shape)}, and the layers have "
            f"{experts} and {_size(second)} experts.",
            "Give x [T, H], ids and weights [T, k], and two layers of the same experts.",
        )
    executed = (ids >= 0) & (ids < experts)
    left_out = ~executed[..., None]
    rows = _linear(x, ids, first, backend)
    neurons = activate(rows.flatten(0, 1)).to(x.dtype).unflatten(0, ids.shape).masked_fill(left_out, 0)
    outputs = _linear(neurons, ids, second, backend)
    if finish is not None:
        outputs = finish(outputs.flatten(0, 1)).unflatten(0, ids.shape).masked_fill(left_out, 0)
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    outputs, scale = outputs.to(exact), torch.where(executed, weights.to(exact), 0)
    y = outputs.new_zeros((len(x), outputs.shape[2]))
    for slot in range(ids.shape[1]):  # in slot order, so that a token's sum does not depend on the call
        y = y + scale[:, slot, None] * outputs[:, slot]
    named = torch.where(executed, ids, experts).flatten()
    counts = ids.new_zeros(experts + 1).scatter_add_(0, named, torch.ones_like(named))
    tallies = counts[:experts].clone(), counts[experts].clone()
    if not stats:
        norm, count = x.new_empty(0, dtype=torch.float32), ids.new_empty(0, dtype=torch.int32)
        return MoeExperts(y.to(x.dtype), *tallies, norm, norm, norm, count, count)
    size = neurons.detach().to(exact).abs()
    norms = (outputs.detach().norm(dim=-1), size.sum(-1), size.norm(dim=-1))
    numbers = ((found & executed[..., None]).sum(-1).int() for found in (size == 0, size < threshold))
    return MoeExperts(y.to(x.dtype), *tallies, *(n.float() for n in norms), *numbers)


def _size(layer: Layer) -> int:
    return len(layer.experts) if isinstance(layer, MaskedExpertLinear) else layer.weight.shape[0]


def _linear(x: Tensor, ids: Tensor, layer: Layer, backend: str) -> Tensor:
    """``layer`` of x, [T, K] or a row for each slot [T, k, K]: [T, k, N], zeros for a dropped slot."""
    if isinstance(layer, ExpertLinear):
        return expert_linear(x, ids, *layer, backend=backend)
    x = x if x.dim() == 3 else x[:, None].expand(-1, ids.shape[1], -1)
    rows = x.new_zeros((*ids.shape, len(layer.experts[0].start) - 1))
    for expert in torch.unique(ids).tolist():
        if 0 <= expert < len(layer.experts):
            at = (ids == expert).nonzero(as_tuple=True)
            rows = rows.index_put(at, masked_matmul(x[at], layer.experts[expert], backend))
    return rows
