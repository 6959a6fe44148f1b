"""Wide gates on speed, at half of what the kernels are built for, so that a slow machine passes and a broken path does not.

Thread CPU time of variants in turn, on one thread; ``benchmarks/kernels.py`` gives the figures themselves.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
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
from routing_kernels.cpu import loader

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(loader.load().isas[0] == "portable", reason="the goals are those of AVX2 and AVX-512"),
]


def over(baseline: Callable[[], object], *others: Callable[[], object], rounds: int = 9) -> list[float]:
    """Median time of the baseline over that of each of the others."""
    actions = (baseline, *others)
    times: list[list[float]] = [[] for _ in actions]
    for round_ in range(rounds + 1):
        for action, column in zip(actions, times, strict=True):
            start = time.thread_time()
            action()
            if round_:
                column.append(time.thread_time() - start)
    first, *rest = (statistics.median(column) for column in times)
    return [first / one for one in rest]


def test_blocks_left_out_are_time_won() -> None:
    heads, tokens, block = 4, 2048, 64
    q, k, v = (torch.randn(1, heads, tokens, 64) for _ in range(3))
    causal = torch.ones(tokens // block, tokens // block, dtype=torch.bool).tril()
    actions = []
    for share in (0.5, 0.2):
        kept = (torch.rand(heads, *causal.shape) < share) & causal | torch.eye(len(causal), dtype=torch.bool)
        ptr, col = block_rows(kept)
        actions.append(lambda ptr=ptr, col=col: block_attention(q, k, v, ptr, col, block, backend="cpu"))
    half, fifth = over(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True), *actions, rounds=5)
    assert half >= 0.8 and fifth >= 2.0


def test_inactive_neurons_are_time_won() -> None:
    hidden, width = 1024, 4096
    gate, up = (torch.randn(width, hidden) * hidden**-0.5 for _ in range(2))
    down, x = torch.randn(hidden, width) * width**-0.5, torch.randn(1, hidden)
    gate_t, up_t, down_t = (w.T.contiguous() for w in (gate, up, down))
    neurons = F.silu(F.linear(x, gate)) * F.linear(x, up)
    actions = []
    for share in (0.5, 0.9):
        edges = neurons.abs().quantile(share).item(), x.abs().quantile(share).item()
        actions.append(lambda edges=edges: sparse_mlp(x, gate_t, up_t, down_t, "teal", *edges, backend="cpu"))
    half, most = over(
        lambda: F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down), *actions, rounds=15
    )
    assert half >= 0.95 and most >= 4.0


def test_masked_weights_are_time_won() -> None:
    weight, x = torch.randn(4096, 2048), torch.randn(1, 2048)
    everything, half = (pack_masked(weight, torch.rand(weight.shape) < share) for share in (2.0, 0.5))
    (won,) = over(
        lambda: masked_matmul(x, everything, "cpu"), lambda: masked_matmul(x, half, "cpu"), rounds=15
    )
    assert won >= 0.9


def test_one_token_through_the_experts_is_no_loop_in_python() -> None:
    from transformers import OlmoeConfig
    from transformers.models.olmoe.modeling_olmoe import OlmoeExperts

    config = OlmoeConfig(hidden_size=192, intermediate_size=128, num_experts=16, num_experts_per_tok=4)
    bank = OlmoeExperts(config).requires_grad_(False)
    for parameter in bank.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    bank.config._experts_implementation = "eager"
    x, ids, weights = torch.randn(1, 192), torch.tensor([[3, 7, 1, 12]]), torch.rand(1, 4)

    def ours(stats: bool) -> Callable[[], object]:
        return lambda: moe_experts(
            x, ids, weights, bank.gate_up_proj, bank.down_proj, stats=stats, backend="cpu"
        )

    with torch.no_grad():
        plain, with_statistics = over(lambda: bank(x, ids, weights), ours(False), ours(True), rounds=41)
    assert plain >= 2.0 and with_statistics >= plain / 1.2


def test_rows_there_and_back_are_no_slower_than_torch() -> None:
    x, ids, weights = torch.randn(512, 2048), torch.randperm(512)[:256], torch.rand(256)
    part = x[ids]

    def torchs() -> None:
        x[ids].norm(dim=1)
        x.index_add(0, ids, part * weights[:, None])

    def ours() -> None:
        gather_rows(x, ids, stats=True, backend="cpu")
        scatter_add_rows(x, part, ids, weights, backend="cpu")

    (won,) = over(torchs, ours, rounds=21)
    assert won >= 0.5
