"""Cases of the kernels beside the expert layer: each a dictionary of variants that do the same work, the first of which is
the baseline. ``kernels.py`` times them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import routing_kernels
import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.signals import contribution

Action = Callable[[], object]


class Case(NamedTuple):
    """Timed ``rounds`` times. The baseline is the first variant, or the one that ``over`` names for a variant."""

    setting: str
    variants: dict[str, Action]
    over: dict[str, str]
    rounds: int


def residual_stats(dtype: torch.dtype) -> Iterator[Case]:
    for tokens, hidden in ((64, 192), (512, 192), (512, 2048)):
        made = [torch.randn(3, tokens, hidden).to(dtype).unbind() for _ in range(6)]

        def separate(made: list[tuple[Tensor, ...]] = made) -> None:
            pre, attn, mlp = random.choice(made)
            mid = pre + attn
            contribution.block(pre, attn, mid, mlp, mid + mlp)

        def fused(made: list[tuple[Tensor, ...]] = made) -> None:
            routing_kernels.residual_stats(*random.choice(made), backend="cpu")

        yield Case(f"{tokens} x {hidden}", {"separate torch operations": separate, "cpu": fused}, {}, 31)


def sparse_mlp(dtype: torch.dtype) -> Iterator[Case]:
    hidden, width = 2048, 8192
    gate, up = (torch.randn(width, hidden).mul_(hidden**-0.5).to(dtype) for _ in range(2))
    down = torch.randn(hidden, width).mul_(width**-0.5).to(dtype)
    gate_t, up_t, down_t = (w.T.contiguous() for w in (gate, up, down))
    x = torch.randn(1, hidden).to(dtype)
    activated = F.silu(F.linear(x, gate)).float()
    neurons = activated * F.linear(x, up).float()

    def layer(mode: str, share: float, stats: bool = False) -> Action:
        weights = (gate_t, up_t) if mode == "teal" else (gate, up)
        ranked = activated if mode == "cats" else neurons
        edge = ranked.abs().quantile(share).item() if share else 0.0
        inputs = x.float().abs().quantile(share).item() if share else 0.0
        active = neurons.abs() > edge if mode == "neuron" else None
        threshold = 0.0 if mode == "neuron" else edge
        return lambda: routing_kernels.sparse_mlp(
            x, *weights, down_t, mode, threshold, inputs, active, stats=stats, backend="cpu"
        )

    for mode in ("teal", "cats", "neuron"):
        variants: dict[str, Action] = {
            "F.linear": lambda: F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)
        }
        over = {}
        for share in (0.0, 0.5, 0.7, 0.9):
            variants[f"cpu {share:.0%} off"] = layer(mode, share)
        variants["cpu 50% off with statistics"] = layer(mode, 0.5, stats=True)
        over["cpu 50% off with statistics"] = "cpu 50% off"
        yield Case(f"{mode}, 1 token, {hidden} x {width}", variants, over, 9)


def rows(dtype: torch.dtype) -> Iterator[Case]:
    tokens, hidden = 512, 2048
    x, ids, weights = (
        torch.randn(tokens, hidden).to(dtype),
        torch.randperm(tokens)[: tokens // 2],
        torch.rand(256),
    )
    part = x[ids]

    def with_torch() -> None:
        x[ids].float().norm(dim=1)
        x.index_add(0, ids, part * weights[:, None].to(dtype))

    def ours() -> None:
        routing_kernels.gather_rows(x, ids, stats=True, backend="cpu")
        routing_kernels.scatter_add_rows(x, part, ids, weights, backend="cpu")

    yield Case(
        f"half of {tokens} x {hidden}, there and back", {"torch indexing": with_torch, "cpu": ours}, {}, 31
    )


def block_attention(dtype: torch.dtype) -> Iterator[Case]:
    heads, tokens, size, block = 8, 2048, 64, 64
    q, k, v = (torch.randn(1, heads, tokens, size).to(dtype) for _ in range(3))
    blocks = tokens // block
    causal = torch.ones(blocks, blocks, dtype=torch.bool).tril()
    extra = torch.randn(tokens, 16)
    for share in (1.0, 0.5, 1 / 3, 0.2):
        wanted = round(share * causal.sum().item()) - blocks  # beside the diagonal, which is always kept
        below = causal.tril(-1).nonzero()
        kept = torch.eye(blocks, dtype=torch.bool).repeat(heads, 1, 1)
        for head in range(heads):
            kept[head][tuple(below[torch.randperm(len(below))[:wanted]].T)] = True
        mask = kept.repeat_interleave(block, 1).repeat_interleave(block, 2)
        mask &= torch.ones(tokens, tokens, dtype=torch.bool).tril()
        arguments = (q, k, v, *routing_kernels.block_rows(kept), block)

        def attend(arguments: tuple[Tensor | int, ...] = arguments, **options: object) -> Action:
            return lambda: routing_kernels.block_attention(*arguments, backend="cpu", **options)

        variants = {
            "SDPA causal": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True),
            "SDPA same mask": lambda mask=mask: F.scaled_dot_product_attention(q, k, v, attn_mask=mask),
            "cpu": attend(),
            "cpu with statistics": attend(stats=True),
            "cpu with 16 extra columns": attend(extra=extra),
        }
        over = {"cpu with statistics": "cpu", "cpu with 16 extra columns": "cpu"}
        yield Case(f"{share:.0%} of causal blocks, {heads} x {tokens} x {size}", variants, over, 7)


def masked_matmul(dtype: torch.dtype) -> Iterator[Case]:
    rows, columns = 8192, 2048
    weight, x = torch.randn(rows, columns).to(dtype), torch.randn(1, columns).to(dtype)
    masks = {
        "all": torch.ones(rows, columns, dtype=torch.bool),
        "50%": torch.rand(rows, columns) < 0.5,
        "2:4": routing_kernels.n_of_m(weight),
        "30%": torch.rand(rows, columns) < 0.3,
        "10%": torch.rand(rows, columns) < 0.1,
    }
    variants: dict[str, Action] = {"F.linear": lambda: F.linear(x, weight)}
    for name, mask in masks.items():
        packed = routing_kernels.pack_masked(weight, mask)
        variants[f"cpu {name} kept"] = lambda packed=packed: routing_kernels.masked_matmul(x, packed, "cpu")
    yield Case(f"1 token, {rows} x {columns}", variants, {}, 15)


OPS = {op.__name__: op for op in (residual_stats, sparse_mlp, rows, block_attention, masked_matmul)}
