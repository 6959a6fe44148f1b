"""Choices of ragged width: tokens may use more or fewer experts than their neighbours, so unused slots hold an id of -1."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

NOTHING = -1
"""The id of a slot that executes no expert; its weight is 0."""


def align(one: Tensor, other: Tensor, fill: int) -> tuple[Tensor, Tensor]:
    """Both tensors [T, .] at the larger of their widths, filled on the right."""
    from torch.nn.functional import pad

    width = max(one.shape[-1], other.shape[-1])
    first, second = (
        t if t.shape[-1] == width else pad(t, (0, width - t.shape[-1]), value=fill) for t in (one, other)
    )
    return first, second


def same_set(one: Tensor, other: Tensor) -> Tensor:
    """Rows [T] in which two choices name the same experts."""
    one, other = align(one, other, NOTHING)
    return (one.sort(dim=-1).values == other.sort(dim=-1).values).all(dim=-1)


def differs(now: Tensor, before: Tensor) -> Tensor:
    """Rows [T] in which two tensors differ in any element (NaN equals NaN: an untouched NaN is not a change)."""
    return ((now != before) & ~((now != now) & (before != before))).any(dim=-1)
