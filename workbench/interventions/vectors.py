"""The numbers of an edit in one layer and for the tokens of one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import EditRefused
from workbench.interventions.blob import Blob, shape_of
from workbench.interventions.edit import Edit

if TYPE_CHECKING:
    from torch import Tensor


def check_vector(edit: Edit, vector: tuple[float, ...] | Blob, size: int, what: str) -> None:
    """Refuse a ``vector`` whose last axis is not ``size`` long, or whose others are not the edit's layers and tokens."""
    shape = shape_of(vector)
    if shape[-1:] != (size,) or len(shape) > 3:
        raise EditRefused(
            f"{edit.kind} has {shape[-1] if shape else 0} numbers, but there are {size} {what}.",
            f"Give one number for each of the {what}.",
        )
    if len(shape) > 1 and (edit.layers == "all" or len(edit.layers) != shape[0]):
        raise EditRefused(
            f"{edit.kind} has numbers for {shape[0]} layers, but is scoped to layers {edit.layers}.",
            "Name as many layers as the array has rows.",
        )
    if len(shape) > 2 and (not isinstance(edit.tokens, tuple) or len(edit.tokens) != shape[1]):
        raise EditRefused(
            f"{edit.kind} has numbers for {shape[1]} tokens, but is scoped to tokens {edit.tokens}.",
            "Name as many token positions as the array has.",
        )


def pick(edit: Edit, vector: tuple[float, ...] | Blob, layer: int, positions: Tensor, like: Tensor) -> Tensor:
    """The numbers of ``vector`` for ``layer``: [size], or [T, size] where it has an axis of tokens; ``positions`` [T].

    Their dtype and device are those of ``like``. Tokens that the edit does not name get any row: its scope leaves them out.
    """
    import torch

    numbers = vector.numbers if isinstance(vector, Blob) else vector
    values = torch.as_tensor(numbers).to(like.device, like.dtype)
    if values.ndim > 1:
        assert edit.layers != "all"  # the edit was checked
        values = values[edit.layers.index(layer)]
    if values.ndim > 1:
        named = torch.tensor(edit.tokens, device=like.device)
        values = values[torch.searchsorted(named, positions).clamp(max=len(named) - 1)]
    return values
