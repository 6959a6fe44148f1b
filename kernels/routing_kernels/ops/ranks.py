"""Ranks of attention maps: argument checks, schema, shape rule, and the call into the backend."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from routing_kernels import reference
from routing_kernels.cpu import ranks as cpu
from routing_kernels.dispatch import resolve
from routing_kernels.errors import ArgumentError, BackendError
from routing_kernels.library import define

DTYPES = (torch.float32, torch.float64)


class MapRanks(NamedTuple):
    """What :func:`map_ranks` returns: one value a map, of the dtype of the maps and their leading axes.

    With singular values s1 >= s2 >= ... of the square map. A map of zeros has 0 everywhere; one that is not finite has
    rank 0 and NaN elsewhere.
    """

    rank: Tensor  # how many singular values exceed tolerance x s1
    stable_rank: Tensor  # sum s^2 / s1^2
    effective_rank: Tensor  # exp of the entropy of s / sum s
    entropy: Tensor  # mean over rows of the entropy of the row, divided by its sum, in nats


def map_ranks(
    maps: Tensor, tolerance: float = 0.01, columns: Tensor | None = None, backend: str = "auto"
) -> MapRanks:
    """Rank at a tolerance of attention maps, and three companions that need none.

    ``rank`` is ARank of gamma-MoD (Luo et al. 2024), ``effective_rank`` that of Roy and Vetterli 2007. The C backend finds
    singular values as roots of the eigenvalues of A A^T in float64: to 1e-7 s1 those of the decomposition that the reference
    makes.

    Parameters
    ----------
    maps
        [..., R, R] float32; float64 runs on the reference. With ``columns``, whole rows [..., R, S].
    tolerance
        At least 0 and below 1. Below 1e-6 name the reference.
    columns
        Which R of the S columns make the map square: [R] int64 for all maps, or [B, R] for those of each entry of the first
        axis. The entropy is that of the whole rows.
    backend
        "auto", "reference" or "cpu" (see :func:`routing_kernels.resolve`); there is no kernel for GPUs.

    On one backend and instruction set the result is deterministic, and a map's values do not depend on the other maps or
    on the number of threads. Nothing here is differentiable.

    Raises
    ------
    ArgumentError
        A shape, dtype, device or tolerance that cannot be used.
    BackendError
        A backend or instruction set that was named and cannot be had.
    """
    _check(maps, tolerance, columns)
    leading = maps.shape[:-2]
    flat = maps.detach().reshape(-1, *maps.shape[-2:])
    chosen = (
        flat.new_empty(0, flat.shape[1], dtype=torch.int64)
        if columns is None
        else columns.reshape(-1, flat.shape[1])
    )
    return MapRanks(*_op(flat, chosen, float(tolerance), backend).reshape(cpu.ROWS, *leading).unbind())


def _check(maps: Tensor, tolerance: float, columns: Tensor | None) -> None:
    if maps.dtype not in DTYPES:
        raise ArgumentError(f"The maps are {maps.dtype}.", "Give them as float32 or float64.")
    if not 0 <= tolerance < 1:
        raise ArgumentError(f"The tolerance is {tolerance}.", "Give one of at least 0 and less than 1.")
    square = maps.dim() >= 2 and (columns is not None or maps.shape[-1] == maps.shape[-2])
    if not square or maps.shape[-2] == 0:
        raise ArgumentError(
            f"An attention map of shape {list(maps.shape)} is not square.",
            "Give maps [..., R, R], or rows [..., R, S] with the columns that make them square.",
        )
    if columns is None:
        return
    fits = columns.shape[-1:] == maps.shape[-2:-1] and (
        columns.dim() == 1 or (columns.dim() == 2 and maps.dim() > 2 and len(columns) == len(maps))
    )
    if not fits or columns.dtype != torch.int64 or columns.device != maps.device:
        raise ArgumentError(
            f"Columns {list(columns.shape)} of {columns.dtype} do not fit maps {list(maps.shape)}.",
            "Give [R] or, one row for each entry of the first axis, [B, R] as int64 on the device of the maps.",
        )
    if columns.numel() and not (int(columns.min()) >= 0 and int(columns.max()) < maps.shape[-1]):
        raise ArgumentError(
            f"Columns reach from {int(columns.min())} to {int(columns.max())} of {maps.shape[-1]}.",
            "Number the columns from 0.",
        )


def _forward(maps: Tensor, columns: Tensor, tolerance: float, backend: str) -> Tensor:
    if backend == "auto" and maps.device.type != "cpu":
        backend = "reference"
    name, isa = resolve(backend, maps.device, maps.dtype)
    if name == "cpu":
        return cpu.map_ranks(maps, columns, tolerance, isa)
    if name == "triton":
        raise BackendError(
            "There is no triton kernel for map_ranks.", "Choose auto, cpu or reference for it."
        )
    return reference.map_ranks(maps, columns, tolerance)


def _forward_shapes(maps: Tensor, columns: Tensor, tolerance: float, backend: str) -> Tensor:
    return maps.new_empty((cpu.ROWS, maps.shape[0]))


_op = define(
    "map_ranks",
    "(Tensor maps, Tensor columns, float tolerance, str backend) -> Tensor",
    _forward,
    _forward_shapes,
)
