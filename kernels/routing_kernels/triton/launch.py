"""What every kernel of this package shares: whether it can run, how wide its tiles are, and the activations."""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
"""Whether triton was imported under its interpreter, which runs kernels on CPU tensors, slowly, for tests."""


PRECISION = "ieee" if torch.version.hip else "tf32x3"
"""How float32 tiles are multiplied: three products of TensorFloat-32 halves, about as exact as float32 and on the tensor
cores. Plain float32 products hold whole tiles in registers, which do not fit."""


def power(n: int, least: int = 16) -> int:
    """The next power of two, and at least ``least``: tiles of ``tl.dot`` have 16 rows and columns or more."""
    return max(least, triton.next_power_of_2(n))


def counted(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each row of a mask [T, n]: the columns that are set, ascending, then the others [T, n]; how many are set [T]."""
    return torch.argsort(~mask, dim=1, stable=True).to(torch.int32), mask.sum(1, dtype=torch.int32)


@triton.jit
def activate(g, ACT: tl.constexpr):
    """silu, gelu, gelu_pytorch_tanh or relu of float32; a NaN stays one."""
    if ACT == "silu":
        out = g / (1.0 + tl.exp(-g))
    elif ACT == "gelu":
        out = 0.5 * g * (1.0 + tl.erf(g * 0.7071067811865476))
    elif ACT == "gelu_pytorch_tanh":
        z = 0.7978845608028654 * (g + 0.044715 * g * g * g)
        out = g / (1.0 + tl.exp(-2.0 * z))
    else:
        out = tl.where(g < 0.0, 0.0, g)
    return out
