"""Times the kernels against what a user would run instead, and prints figures and goals as JSON.

    python benchmarks/kernels.py [--ops moe_experts ...] [--dtypes float32 bfloat16] [--seconds 20] [--no-flex]

One thread, its own CPU time (a core taken by somebody else is not charged), the variants in random order inside each
round, times as medians with quartiles. A ratio is the median of the rounds' own ratios: what makes a machine waver lasts
longer than a round, and takes both sides of it alike. A read-bandwidth probe runs in the same rounds, over another 128 MiB
of a gibibyte each time (the same ones again would in part be in cache): a layer that reads its weights once is hardly faster
than it, by a tenth where what it asks for ahead beats a plain read. A case ends after its rounds or after ``--seconds`` of
CPU time, whichever comes first, but not before three rounds.
"""

from __future__ import annotations

import argparse
import os
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

from benchmarks import kernel_cases, kernel_fallbacks
from benchmarks.figures import figure, publish

PROBE_BYTES = 128 << 20
PROBED = 8  # as many of them to choose from
OPS = kernel_cases.OPS | {"fallbacks": kernel_fallbacks.fallbacks}


def clock(action: Callable[[], object]) -> float:
    """Seconds of this thread."""
    start = time.thread_time()
    action()
    return time.thread_time() - start


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and quartiles in milliseconds."""
    low, middle, high = statistics.quantiles(seconds, n=4)
    return {name: round(value * 1e3, 4) for name, value in (("median", middle), ("low", low), ("high", high))}


def in_rounds(above: list[float], below: list[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


@torch.no_grad()
def measure(
    case: kernel_cases.Case, seconds: float, memory: torch.Tensor
) -> tuple[list[dict[str, object]], dict[str, object]]:
    """The figures of one case, and what they were drawn from; ``memory`` [PROBED, ...] is what the probe reads."""
    actions = case.variants | {"probe": lambda: random.choice(memory).sum()}
    times: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values():
        action()  # warms up
    spent = 0.0
    for round_ in range(case.rounds):
        for name in random.sample(list(actions), len(actions)):
            times[name].append(clock(actions[name]))
            spent += times[name][-1]
        if spent > seconds and round_ >= 2:
            break
    dtype = str(case.dtype).removeprefix("torch.")
    setting = f"{case.setting}, {dtype}"
    figures = [
        figure(one.what, setting, in_rounds(times[one.slow], times[one.fast]), "x", one.goal)
        for one in case.ratios
    ]
    probed = PROBE_BYTES / statistics.median(times["probe"])
    if case.reads:
        share = case.reads / PROBE_BYTES * in_rounds(times["probe"], times[case.read_by])
        goal = ">= 0.9" if case.setting == "olmoe, 1 tokens" else None
        figures.append(
            figure(f"{case.op}: share of the read bandwidth", setting, share, "of the probe", goal)
        )
    details = {
        "op": case.op, "setting": case.setting, "dtype": dtype, "rounds": len(times["probe"]),
        "relative_difference_from_baseline": case.error, "probe_gb_per_s": round(probed / 1e9, 2),
        "times_ms": {name: spread(column) for name, column in times.items()},
    }  # fmt: skip
    return figures, details


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ops = list(OPS)
    parser.add_argument("--ops", nargs="+", default=ops, choices=ops)
    parser.add_argument(
        "--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16", "float16"]
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="CPU time after which a case ends")
    parser.add_argument(
        "--no-flex", action="store_true", help="without FlexAttention, which is compiled first"
    )
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(asked.seed)
    random.seed(asked.seed)
    figures, cases = [], []
    memory = torch.ones(PROBED, PROBE_BYTES // 4)
    for op in asked.ops:
        for dtype in (getattr(torch, name) for name in asked.dtypes):
            options = {"flex": not asked.no_flex} if op == "block_attention" else {}
            for case in OPS[op](dtype, **options):
                told, details = measure(case, asked.seconds, memory)
                figures += told
                cases.append(details)
    backend, isa = routing_kernels.resolve("cpu")
    publish(
        "kernels", figures, cases=cases, backend=backend, isa=isa, torch=torch.__version__,
        transformers=transformers.__version__,
    )  # fmt: skip


if __name__ == "__main__":
    main()
