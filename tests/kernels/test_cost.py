"""What is skipped costs nothing: the counters say what ran, and everything else may be NaN without being noticed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_isas import EXPERT_ISAS, using
from routing_kernels import (
    block_attention,
    block_rows,
    gather_rows,
    masked_matmul,
    moe_experts,
    pack_masked,
    scatter_add_rows,
    sparse_mlp,
)
from torch import Tensor

RANDOM = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=RANDOM)


def experts(poison: float) -> tuple[Tensor, int, int]:
    """(output, executed, asked) with every weight outside the counted work replaced by ``poison``."""
    gate_up, down, x = normal(6, 32, 24), normal(6, 24, 16), normal(7, 24)
    ids = torch.tensor([[0, 2], [2, -1], [5, 0], [9, 9], [2, 5], [0, -3], [5, 2]])
    for idle in (1, 3, 4):
        gate_up[idle] = down[idle] = poison
    weights = torch.where((ids >= 0) & (ids < 6), 0.5, poison)
    x[3] = x[3] if math.isfinite(poison) else poison  # all its slots are dropped
    out = moe_experts(x, ids, weights, gate_up, down, backend="cpu")
    assert out.counts.tolist() == [3, 0, 4, 0, 0, 3] and int(out.dropped) == 4
    return out.y, int(out.counts.sum()), ids.numel()


def neurons(poison: float) -> tuple[Tensor, int, int]:
    gate, up, down_t = normal(40, 24), normal(40, 24), normal(40, 20)
    active = torch.arange(40) % 3 == 0
    gate[~active] = up[~active] = down_t[~active] = poison
    out = sparse_mlp(normal(5, 24), gate, up, down_t, "neuron", active=active, backend="cpu")
    return out.y, int(out.active_count.sum()), 5 * 40


def inputs(poison: float) -> tuple[Tensor, int, int]:
    x = normal(1, 24)
    x[0, ::2] = 0.0
    gate, up = normal(24, 40), normal(24, 40)
    gate[::2] = up[::2] = poison
    out = sparse_mlp(x, gate, up, normal(40, 20), "teal", backend="cpu")
    return out.y, int(out.input_count.sum()), 24


def blocks(poison: float) -> tuple[Tensor, int, int]:
    q, k, v = normal(1, 2, 64, 8), normal(1, 2, 64, 8), normal(1, 2, 64, 8)
    kept = torch.ones(2, 4, 4, dtype=torch.bool)
    kept[:, :, 1] = False
    k[:, :, 16:32] = v[:, :, 16:32] = poison
    ptr, col = block_rows(kept)
    out = block_attention(q, k, v, ptr, col, 16, backend="cpu")
    return out.o, int(out.executed), 2 * 10


def tokens(poison: float) -> tuple[Tensor, int, int]:
    x, sent = normal(12, 24), torch.tensor([1, 4, 11])
    untouched = torch.ones(12, dtype=torch.bool)
    untouched[sent] = False
    x[untouched] = poison
    taken = gather_rows(x, sent, backend="cpu")
    back = scatter_add_rows(torch.zeros(12, 24), taken.y, sent, backend="cpu")
    return back.y, len(sent) - int(taken.dropped), 12


def entries(poison: float) -> tuple[Tensor, int, int]:
    weight, mask = normal(9, 50), torch.rand(9, 50, generator=RANDOM) < 0.3
    x = normal(2, 50)
    unused = ~mask.any(0)
    x[:, unused] = poison
    packed = pack_masked(weight.masked_fill(~mask, poison), mask)
    return masked_matmul(x, packed, "cpu"), int(packed.row_nnz.sum()), weight.numel()


@pytest.mark.parametrize("isa", EXPERT_ISAS)
@pytest.mark.parametrize(
    "work", [experts, neurons, inputs, blocks, tokens, entries], ids=lambda f: f.__name__
)
def test_only_what_is_counted_is_touched(work: Callable[[float], Any], isa: str) -> None:
    with using(isa):
        RANDOM.manual_seed(1)
        clean, executed, asked = work(3.0)
        RANDOM.manual_seed(1)
        poisoned, again, _ = work(math.nan)
    assert torch.equal(clean, poisoned) and clean.isfinite().all()
    assert executed == again and 0 < executed < asked
