"""Times the expert layer against transformers' own implementations, the other kernels against torch, and prints JSON.

    python benchmarks/kernels.py [--ops moe_experts sparse_mlp ...] [--settings demo olmoe] [--tokens 1 64]
                                 [--dtypes float32 bfloat16] [--rounds 15]

One thread, its own CPU time (a core taken by somebody else is not charged), the variants in random order inside each
round, fresh random experts and another copy of the weights each call so that nothing sits in a cache by accident,
medians with quartiles, and ratios of medians over transformers' eager experts in the same run. A read-bandwidth probe
runs in the same rounds: a layer that reads its weights once cannot be faster than it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch starts its threads
os.environ["OMP_WAIT_POLICY"] = "passive"
sys.path.pop(
    0
)  # this folder: transformers looks for a published package named kernels, and would find this file
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]

import routing_kernels
import torch
import transformers
from torch import Tensor
from transformers import OlmoeConfig
from transformers.models.olmoe.modeling_olmoe import OlmoeExperts

from benchmarks import kernel_ops

# hidden size, experts, experts per token, neurons of an expert, copies of the weights
SETTINGS = {"demo": (192, 16, 4, 128, 6), "olmoe": (2048, 64, 8, 1024, 1)}
PROBE_BYTES = 128 << 20
Variant = Callable[[OlmoeExperts, Tensor, Tensor, Tensor], Tensor]


def hugging_face(implementation: str) -> Variant:
    def call(experts: OlmoeExperts, x: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        experts.config._experts_implementation = implementation
        return experts(x, ids, weights)

    return call


def ours(stats: bool) -> Variant:
    def call(experts: OlmoeExperts, x: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        return routing_kernels.moe_experts(
            x, ids, weights, experts.gate_up_proj, experts.down_proj, "silu", stats=stats, backend="cpu"
        ).y

    return call


VARIANTS: dict[str, Variant] = {
    "eager": hugging_face("eager"),
    "grouped_mm": hugging_face("grouped_mm"),
    "cpu": ours(stats=False),
    "cpu with statistics": ours(stats=True),
}


def banks(setting: str, dtype: torch.dtype) -> list[OlmoeExperts]:
    hidden, experts, top_k, width, copies = SETTINGS[setting]
    config = OlmoeConfig(
        hidden_size=hidden, intermediate_size=width, num_experts=experts, num_experts_per_tok=top_k
    )
    made = []
    for _ in range(copies):
        with torch.device("meta"):
            bank = OlmoeExperts(config).to(dtype)
        bank = bank.to_empty(device="cpu").requires_grad_(False)
        for parameter, inputs in ((bank.gate_up_proj, hidden), (bank.down_proj, width)):
            parameter.uniform_(
                -((3 / inputs) ** 0.5), (3 / inputs) ** 0.5
            )  # keeps the variance of what it multiplies
        made.append(bank)
    return made


def choose(setting: str, tokens: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    hidden, experts, top_k, *_ = SETTINGS[setting]
    chosen = torch.rand(tokens, experts).topk(top_k, sorted=False)
    weights = (chosen.values / chosen.values.sum(-1, keepdim=True)).to(dtype)
    return torch.randn(tokens, hidden).to(dtype), chosen.indices, weights


def clock(action: Callable[[], object]) -> float:
    start = time.thread_time()
    action()
    return time.thread_time() - start


def spread(seconds: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(seconds, n=4)
    return {"median_ms": middle * 1e3, "low_ms": low * 1e3, "high_ms": high * 1e3}


@torch.no_grad()
def measure(
    setting: str, tokens: int, dtype: torch.dtype, made: list[OlmoeExperts], rounds: int
) -> dict[str, object]:
    hidden, _, _, width, _ = SETTINGS[setting]
    probe = torch.ones(PROBE_BYTES // 4)
    case = choose(setting, tokens, dtype)
    # The first calls warm up, and show that the variants compute the same thing.
    native, *_, own = (call(made[0], *case).double() for call in VARIANTS.values())
    times: dict[str, list[float]] = {name: [] for name in (*VARIANTS, "probe")}
    used = []
    for _ in range(rounds):
        for name in random.sample(list(times), len(times)):
            if name == "probe":
                times[name].append(clock(probe.sum))
                continue
            call, bank, case = VARIANTS[name], random.choice(made), choose(setting, tokens, dtype)
            times[name].append(clock(lambda call=call, bank=bank, case=case: call(bank, *case)))
            if name == "cpu":
                used.append(case[1].unique().numel())
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    bytes_read = statistics.mean(used) * 3 * hidden * width * dtype.itemsize
    return {
        "op": "moe_experts",
        "setting": setting,
        "tokens": tokens,
        "dtype": str(dtype).removeprefix("torch."),
        "rounds": rounds,
        "relative_difference_from_eager": ((own - native).norm() / native.norm()).item(),
        "times": {name: spread(seconds) for name, seconds in times.items() if name != "probe"},
        "speed_up_over_eager": {name: round(medians["eager"] / medians[name], 2) for name in VARIANTS},
        "speed_up_over_grouped_mm": round(medians["grouped_mm"] / medians["cpu"], 2),
        "cost_of_statistics": round(medians["cpu with statistics"] / medians["cpu"], 3),
        "weights_gb_per_s": round(bytes_read / medians["cpu"] / 1e9, 2),
        "probe_gb_per_s": round(PROBE_BYTES / medians["probe"] / 1e9, 2),
    }


@torch.no_grad()
def measure_op(op: str, dtype: torch.dtype, case: kernel_ops.Case, rounds: int | None) -> dict[str, object]:
    times: dict[str, list[float]] = {name: [] for name in case.variants}
    for action in case.variants.values():
        action()
    for _ in range(rounds or case.rounds):
        for name in random.sample(list(times), len(times)):
            times[name].append(clock(case.variants[name]))
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    baseline = next(iter(medians))
    return {
        "op": op,
        "setting": case.setting,
        "dtype": str(dtype).removeprefix("torch."),
        "rounds": rounds or case.rounds,
        "times": {name: spread(seconds) for name, seconds in times.items()},
        f"speed_up_over {baseline}": {
            name: round(medians[baseline] / m, 2) for name, m in medians.items() if name not in case.over
        },
        "time_over": {
            f"{name} / {other}": round(medians[name] / medians[other], 3) for name, other in case.over.items()
        },
    }


def machine() -> dict[str, object]:
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16")
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.split(":", 1) for line in described.splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    backend, isa = routing_kernels.resolve("cpu")
    return {
        "processor": named.get("model name", platform.processor()),
        "machine": platform.machine(),
        "flags": [flag for flag in wanted if flag in named.get("flags", "").split()],
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "backend": backend,
        "isa": isa,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ops = ["moe_experts", *kernel_ops.OPS]
    parser.add_argument("--ops", nargs="+", default=ops, choices=ops)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--tokens", nargs="+", type=int, default=[1, 64])
    parser.add_argument(
        "--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16", "float16"]
    )
    parser.add_argument(
        "--rounds", type=int, default=None, help="default: 101 at demo size, 7 at OLMoE's, 7 to 31 else"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    random.seed(options.seed)
    cases = []
    for setting in options.settings if "moe_experts" in options.ops else ():
        for dtype in (getattr(torch, name) for name in options.dtypes):
            made = banks(setting, dtype)
            for tokens in options.tokens:
                rounds = options.rounds or (101 if setting == "demo" else 7)
                cases.append(measure(setting, tokens, dtype, made, rounds))
    for op in (name for name in options.ops if name in kernel_ops.OPS):
        for dtype in (getattr(torch, name) for name in options.dtypes):
            cases += [measure_op(op, dtype, case, options.rounds) for case in kernel_ops.OPS[op](dtype)]
    json.dump({"machine": machine(), "cases": cases}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
