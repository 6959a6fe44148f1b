"""What a call costs where the fast path does not apply: cases of ``kernels.py``.

``auto`` gives a call to the reference where the C library cannot be had, and the workbench gives experts that the fused op
does not cover (biases, banks held transposed, other activations) to ``composed_experts``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import routing_kernels
import torch
import torch.nn.functional as F
from routing_kernels import ExpertLinear
from torch import Tensor

from benchmarks.kernel_cases import BANKS, Action, Case, Ratio, expert_bank


def fallbacks(dtype: torch.dtype) -> Iterator[Case]:
    """Each op in the reference and in C, then experts that are composed of two products and those that are one op."""
    for op, (setting, call) in _calls(dtype).items():
        variants = {
            "reference": lambda call=call: call("reference"), "ours": lambda call=call: call("cpu")
        }  # fmt: skip
        ratio = Ratio(f"fallback: {op} by the reference, time over C", "reference", "ours")
        yield Case("fallbacks", f"{op}, {setting}", dtype, variants, [ratio], 21)
    yield from _composed(dtype)


def _calls(dtype: torch.dtype) -> dict[str, tuple[str, Callable[[str], object]]]:
    """Of each op: the setting, and a call on a backend."""
    own = routing_kernels
    tokens = 64
    hidden, experts, top_k, width, _ = BANKS["demo"]
    bank = expert_bank(hidden, experts, top_k, width, dtype)
    gate_up, down = bank.gate_up_proj, bank.down_proj
    x, ids = torch.randn(tokens, hidden).to(dtype), torch.rand(tokens, experts).topk(top_k).indices
    weights = torch.rand(tokens, top_k).to(dtype)
    one, wide, tall = torch.randn(1, 2048).to(dtype), 2048, 8192
    gate, up, down_t = (
        torch.randn(*size).mul_(0.02).to(dtype) for size in ((wide, tall), (wide, tall), (tall, wide))
    )
    edge = one.float().abs().median().item()
    heads, length, size, block = 8, 1024, 64, 64
    q, k, v = (torch.randn(1, heads, length, size).to(dtype) for _ in range(3))
    blocks = length // block
    kept = (torch.rand(heads, blocks, blocks) < 0.3).tril() | torch.eye(blocks, dtype=torch.bool)
    rows = own.block_rows(kept)
    packed = own.pack_masked(down_t, torch.rand(down_t.shape) < 0.5)
    many, half = torch.randn(512, wide).to(dtype), torch.randperm(512)[:256]
    part, shares = many[half], torch.rand(256)
    maps = torch.randn(8, 128, 128).softmax(-1)
    logits, words = torch.randn(128, 32_000), torch.randint(32_000, (128,))
    calls: dict[str, tuple[str, Callable[[str], object]]] = {
        "moe_experts": (f"demo, {tokens} tokens",
            lambda b: own.moe_experts(x, ids, weights, gate_up, down, backend=b)),
        "expert_linear": (f"demo, {tokens} tokens", lambda b: own.expert_linear(x, ids, gate_up, backend=b)),
        "sparse_mlp": (f"teal, half off, 1 token, {wide} x {tall}",
            lambda b: own.sparse_mlp(one, gate, up, down_t, "teal", 0.0, edge, backend=b)),
        "block_attention": (f"a third of {heads} x {length} x {size}",
            lambda b: own.block_attention(q, k, v, *rows, block, backend=b)),
        "masked_matmul": (f"half of {tall} x {wide}, 1 token", lambda b: own.masked_matmul(one, packed, b)),
        "gather_rows and scatter_add_rows": (f"half of 512 x {wide}",
            lambda b: (own.gather_rows(many, half, stats=True, backend=b),
                       own.scatter_add_rows(many, part, half, shares, backend=b))),
        "residual_stats": (f"512 x {wide}", lambda b: own.residual_stats(many, many, many, backend=b)),
    }  # fmt: skip
    if dtype == torch.float32:  # maps and logits have no other
        calls["map_ranks"] = ("8 maps of 128 x 128", lambda b: own.map_ranks(maps, backend=b))
        calls["token_logprob"] = ("128 x 32000", lambda b: own.token_logprob(logits, words, b))
    return calls


def _gated(rows: Tensor) -> Tensor:
    gate, up = rows.chunk(2, dim=-1)
    return F.silu(gate) * up


def _composed(dtype: torch.dtype) -> Iterator[Case]:
    for setting, tokens in (("demo", 1), ("demo", 64), ("olmoe", 1)):
        hidden, experts, top_k, width, _ = BANKS[setting]
        bank = expert_bank(hidden, experts, top_k, width, dtype)
        gate_up, down = bank.gate_up_proj, bank.down_proj
        turned = gate_up.transpose(1, 2).contiguous(), down.transpose(1, 2).contiguous()
        inputs = []
        for _ in range(20):
            chosen = torch.rand(tokens, experts).topk(top_k)
            inputs.append((torch.randn(tokens, hidden).to(dtype), chosen.indices, chosen.values.to(dtype)))

        def grouped(bank=bank, inputs=inputs) -> Tensor:
            bank.config._experts_implementation = "grouped_mm"
            return bank(*random.choice(inputs))

        def fused(banks=(gate_up, down), inputs=inputs) -> object:
            return routing_kernels.moe_experts(*random.choice(inputs), *banks, backend="cpu")

        def composed(*layers: ExpertLinear, inputs=inputs) -> Action:
            return lambda: routing_kernels.composed_experts(
                *random.choice(inputs), *layers, _gated, backend="cpu"
            )

        yield Case(
            "fallbacks", f"experts, {setting}, {tokens} tokens", dtype,
            {"grouped_mm": grouped, "fused": fused,
             "composed": composed(ExpertLinear(gate_up), ExpertLinear(down)),
             "composed, transposed": composed(*(ExpertLinear(w, transposed=True) for w in turned))},
            [Ratio("fallback: composed experts, time over fused", "composed", "fused"),
             Ratio("fallback: composed experts, transposed banks, time over fused", "composed, transposed", "fused"),
             Ratio("composed experts over grouped_mm", "grouped_mm", "composed"),
             Ratio("composed experts, transposed banks, over grouped_mm", "grouped_mm", "composed, transposed")],
            101 if setting == "demo" else 11,
        )  # fmt: skip
