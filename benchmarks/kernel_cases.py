"""What ``kernels.py`` times: for each op and setting, variants that do the same work, and the ratios a reader is told.

The goals beside them are those that the kernels were built for; where one is not reached, the figure says so.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import routing_kernels
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import OlmoeConfig
from transformers.models.olmoe.modeling_olmoe import OlmoeExperts

from workbench.signals import contribution

Action = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """Time of ``slow`` over time of ``fast``, held against ``goal`` such as ``">= 2.2"``."""

    what: str
    slow: str
    fast: str
    goal: str | None = None


@dataclass(frozen=True)
class Case:
    """Variants timed in one run. ``reads`` is the bytes of weights that one call of ``read_by`` reads."""

    op: str
    setting: str
    dtype: torch.dtype
    variants: dict[str, Action]
    ratios: list[Ratio]
    rounds: int
    read_by: str = ""
    reads: float = 0.0
    error: float = 0.0
    extra: dict[str, object] = field(default_factory=dict)


# hidden size, experts, experts per token, neurons of an expert, copies of the weights
BANKS = {"demo": (192, 16, 4, 128, 6), "olmoe": (2048, 64, 8, 1024, 1)}
_EXPERT_GOALS = {
    ("demo", 1, torch.float32): (">= 4", None), ("demo", 1, torch.bfloat16): (">= 7", None),
    ("olmoe", 1, torch.float32): (">= 1.1", None), ("olmoe", 1, torch.bfloat16): (">= 2.2", ">= 1.9"),
    ("olmoe", 64, torch.float32): (">= 1.2", None), ("olmoe", 64, torch.bfloat16): (">= 2", None),
}  # fmt: skip


def moe_experts(dtype: torch.dtype) -> Iterator[Case]:
    """transformers' implementations and ours, with other experts and another copy of the weights at every call."""
    for setting, (hidden, experts, top_k, width, copies) in BANKS.items():
        made = [expert_bank(hidden, experts, top_k, width, dtype) for _ in range(copies)]
        for tokens in (1, 64):

            def chosen(
                tokens: int = tokens, hidden: int = hidden, experts: int = experts, top_k: int = top_k
            ):
                picked = torch.rand(tokens, experts).topk(top_k, sorted=False)
                weights = (picked.values / picked.values.sum(-1, keepdim=True)).to(dtype)
                return torch.randn(tokens, hidden).to(dtype), picked.indices, weights

            # Drawn beforehand: what is timed is the layer.
            inputs = [chosen() for _ in range(40)]

            def theirs(implementation: str, made=made, inputs=inputs) -> Action:
                def call() -> Tensor:
                    bank = random.choice(made)
                    bank.config._experts_implementation = implementation
                    return bank(*random.choice(inputs))

                return call

            def ours(stats: bool, made=made, inputs=inputs) -> Action:
                def call() -> Tensor:
                    bank = random.choice(made)
                    return routing_kernels.moe_experts(
                        *random.choice(inputs),
                        bank.gate_up_proj,
                        bank.down_proj,
                        "silu",
                        stats=stats,
                        backend="cpu",
                    ).y

                return call

            over_eager, over_grouped = _EXPERT_GOALS.get((setting, tokens, dtype), (None, None))
            used = sum(one[1].unique().numel() for one in inputs) / len(inputs)
            bank, case = made[0], inputs[0]
            bank.config._experts_implementation = "eager"
            native = bank(*case).double()
            mine = routing_kernels.moe_experts(
                *case, bank.gate_up_proj, bank.down_proj, "silu", backend="cpu"
            ).y
            yield Case(
                "moe_experts", f"{setting}, {tokens} tokens", dtype,
                {"eager": theirs("eager"), "grouped_mm": theirs("grouped_mm"), "ours": ours(False),
                 "ours with statistics": ours(True)},
                [Ratio("experts over Hugging Face eager", "eager", "ours", over_eager),
                 Ratio("experts over grouped_mm", "grouped_mm", "ours", over_grouped),
                 Ratio("experts: cost of statistics", "ours with statistics", "ours", "<= 1.03")],
                401 if setting == "demo" else 15, "ours", used * 3 * hidden * width * dtype.itemsize,
                float((mine.double() - native).norm() / native.norm()),
            )  # fmt: skip


def expert_bank(hidden: int, experts: int, top_k: int, width: int, dtype: torch.dtype) -> OlmoeExperts:
    """transformers' own experts with random weights."""
    config = OlmoeConfig(
        hidden_size=hidden, intermediate_size=width, num_experts=experts, num_experts_per_tok=top_k
    )
    with torch.device("meta"):
        bank = OlmoeExperts(config).to(dtype)
    bank = bank.to_empty(device="cpu").requires_grad_(False)
    for parameter, inputs in ((bank.gate_up_proj, hidden), (bank.down_proj, width)):
        edge = (3 / inputs) ** 0.5  # keeps the variance of what it multiplies
        parameter.uniform_(-edge, edge)
    return bank


_MLP_GOALS = {
    "teal": {0.5: ">= 1.9", 0.7: ">= 3.1", 0.9: ">= 8"}, "cats": {}, "neuron": {},
}  # fmt: skip


def sparse_mlp(dtype: torch.dtype) -> Iterator[Case]:
    """A dense MLP of F.linear, and ours with a share of the inputs and neurons off."""
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
        ratios = []
        # Where torch's own product is slow, over F.linear would flatter the method: ours with nothing off is the measure.
        slow = "F.linear" if dtype == torch.float32 else "ours 0% off"
        for share in (0.0, 0.5, 0.7, 0.9):
            name = f"ours {share:.0%} off"
            variants[name] = layer(mode, share)
            goal = _MLP_GOALS[mode].get(share)
            ratios.append(Ratio(f"{mode} MLP, {share:.0%} off, over {slow}", slow, name, goal))
        variants["ours 50% off with statistics"] = layer(mode, 0.5, stats=True)
        ratios.append(
            Ratio(
                f"{mode} MLP: cost of statistics", "ours 50% off with statistics", "ours 50% off", "<= 1.03"
            )
        )
        yield Case("sparse_mlp", f"{mode}, 1 token, {hidden} x {width}", dtype, variants, ratios, 31)


def block_attention(dtype: torch.dtype, flex: bool = True) -> Iterator[Case]:
    """SDPA, causal and with the same mask, FlexAttention unless told otherwise, and ours at four shares of kept blocks."""
    heads, tokens, size, block = 8, 2048, 64, 64
    q, k, v = (torch.randn(1, heads, tokens, size).to(dtype) for _ in range(3))
    blocks = tokens // block
    causal = torch.ones(blocks, blocks, dtype=torch.bool).tril()
    extra = torch.randn(tokens, 16)
    goals = {1.0: None, 0.5: ">= 1.6", 1 / 3: ">= 2.7", 0.2: ">= 4"}
    for share, goal in goals.items():
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

        variants: dict[str, Action] = {
            "SDPA causal": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True),
            "SDPA same mask": lambda mask=mask: F.scaled_dot_product_attention(q, k, v, attn_mask=mask),
            "ours": attend(),
            "ours with statistics": attend(stats=True),
            "ours with 16 extra columns": attend(extra=extra),
        }
        named = f"{share:.0%} of the causal blocks"
        ratios = [
            Ratio(f"attention, {named}, over SDPA causal", "SDPA causal", "ours", goal),
            Ratio(f"attention, {named}, over SDPA with the mask", "SDPA same mask", "ours", ">= 3"),
            Ratio(f"attention, {named}: 16 extra columns", "ours with 16 extra columns", "ours", "<= 1.5"),
        ]
        if share < 1 or routing_kernels.resolve("cpu")[1] in ("avx512", "amx"):
            # With every block kept and shorter vectors, torch's own attention gives the output and ours the statistics.
            ratios.append(
                Ratio(f"attention, {named}: cost of statistics", "ours with statistics", "ours", "<= 1.08")
            )
        if flex:
            variants["FlexAttention"] = _flex(q, k, v, kept, block)
            ratios.append(Ratio(f"attention, {named}, over FlexAttention", "FlexAttention", "ours"))
        yield Case("block_attention", f"{heads} x {tokens} x {size}", dtype, variants, ratios, 21)


def _flex(q: Tensor, k: Tensor, v: Tensor, kept: Tensor, block: int) -> Action:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def seen(_: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & kept[head, query // block, key // block]

    mask = create_block_mask(seen, None, q.shape[1], q.shape[2], k.shape[2], device="cpu", BLOCK_SIZE=block)
    compiled = torch.compile(flex_attention)
    return lambda: compiled(q, k, v, block_mask=mask)


def masked_matmul(dtype: torch.dtype) -> Iterator[Case]:
    """A masked weight with one token: F.linear, ours with everything kept, and with less."""
    rows, columns = 8192, 2048
    weight, x = torch.randn(rows, columns).to(dtype), torch.randn(1, columns).to(dtype)
    masks = {
        "all": torch.ones(rows, columns, dtype=torch.bool), "50%": torch.rand(rows, columns) < 0.5,
        "2:4": routing_kernels.n_of_m(weight), "30%": torch.rand(rows, columns) < 0.3,
        "10%": torch.rand(rows, columns) < 0.1,
    }  # fmt: skip
    variants: dict[str, Action] = {"F.linear": lambda: F.linear(x, weight)}
    ratios = []
    for name, mask in masks.items():
        packed = routing_kernels.pack_masked(weight, mask)
        variants[f"{name} kept"] = lambda packed=packed: routing_kernels.masked_matmul(x, packed, "cpu")
        ratios.append(Ratio(f"masked weights, {name} kept, over F.linear", "F.linear", f"{name} kept"))
        if name != "all":
            goal = ">= 1.75" if name == "50%" else None
            ratios.append(
                Ratio(f"masked weights, {name} kept, over ours with all", "all kept", f"{name} kept", goal)
            )
    yield Case("masked_matmul", f"1 token, {rows} x {columns}", dtype, variants, ratios, 61)


def rows(dtype: torch.dtype) -> Iterator[Case]:
    """Half the tokens taken out with their norms, and added back with weights."""
    tokens, hidden = 512, 2048
    x, ids, weights = (
        torch.randn(tokens, hidden).to(dtype),
        torch.randperm(tokens)[: tokens // 2],
        torch.rand(tokens // 2),
    )
    part = x[ids]

    def with_torch() -> None:
        x[ids].float().norm(dim=1)
        x.index_add(0, ids, part * weights[:, None].to(dtype))

    def ours(stats: bool) -> Action:
        def call() -> None:
            routing_kernels.gather_rows(x, ids, stats=stats, backend="cpu")
            routing_kernels.scatter_add_rows(x, part, ids, weights, backend="cpu")

        return call

    variants: dict[str, Action] = {
        "torch indexing": with_torch, "ours": ours(True), "ours without norms": ours(False)
    }  # fmt: skip
    ratio = Ratio("gather with norms and scatter over torch indexing", "torch indexing", "ours", ">= 1")
    yield Case("rows", f"half of {tokens} x {hidden}", dtype, variants, [ratio], 101)


def residual_stats(dtype: torch.dtype) -> Iterator[Case]:
    """Norms, cosines and influence of a block by separate operations, and in one pass."""
    for tokens, hidden in ((64, 192), (512, 192), (512, 2048)):
        made = [torch.randn(3, tokens, hidden).to(dtype).unbind() for _ in range(6)]

        def separate(made: list[tuple[Tensor, ...]] = made) -> None:
            pre, attn, mlp = random.choice(made)
            mid = pre + attn
            contribution.block(pre, attn, mid, mlp, mid + mlp)

        def fused(made: list[tuple[Tensor, ...]] = made) -> None:
            routing_kernels.residual_stats(*random.choice(made), backend="cpu")

        variants: dict[str, Action] = {"separate operations": separate, "ours": fused}
        ratio = Ratio("residual statistics over separate operations", "separate operations", "ours")
        yield Case("residual_stats", f"{tokens} x {hidden}", dtype, variants, [ratio], 101)


OPS = {
    op.__name__: op for op in (moe_experts, sparse_mlp, block_attention, masked_matmul, rows, residual_stats)
}
