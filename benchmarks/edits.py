"""What a router edit costs: passes under a plan against passes under none, on the same bench, as JSON.

    python benchmarks/edits.py [--tokens 128] [--rounds 15] [--runs 3] [--kernels auto]

One block at OLMoE-1B-7B width, one torch thread, nothing recorded. Every edit and the empty plan make ``--runs`` passes in a
row, in random order inside each round; a ratio is the median over the rounds of that round's CPU time of the thread against
the empty plan's, so that what else a busy machine does falls on both. Edits that change how many experts run are left out:
their cost is that of the experts.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from typing import Any

from surroundings import OLMOE, figure, publish

# isort: split
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import workbench as wb

EDITS: dict[str, Any] = {
    "ban": wb.reroute.ban("all", [3, 5]),
    "force": wb.reroute.force("all", 7),
    "bias": wb.reroute.bias("all", {3: 0.5}),
    "temperature": wb.reroute.temperature("all", 1.5),
    "permute": wb.reroute.permute("all", [*range(1, 64), 0]),
    "uniform": wb.reroute.uniform("all"),
    "scores": wb.reroute.scores("all", [1 / 64] * 64, alpha=0.1),
    "where margin < 0.001": wb.reroute.uniform("all", where="margin < 0.001"),
    "group by sample": wb.reroute.group("all", by="sample"),
    "capacity": wb.reroute.capacity("all", 2.0, overflow="next"),
}
HELD = ("ban", "force", "bias", "temperature", "permute", "uniform", "scores")
"""The edits the budget speaks of; the others look at many tokens or at a signal."""


def measure(tokens: int, rounds: int, runs: int, kernels: str) -> dict[str, Any]:
    """Milliseconds of CPU a pass takes under the empty plan, and each edit's ratio to it."""
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("olmoe", **OLMOE))
    with wb.open(model, store=":memory:", kernels=kernels) as bench:
        prompt = torch.randint(0, 8192, (tokens,), generator=torch.Generator().manual_seed(0)).tolist()
        plans = {"no plan": wb.Plan()} | {name: wb.Plan([edit]) for name, edit in EDITS.items()}
        times: dict[str, list[float]] = {name: [] for name in plans}
        for round_ in range(rounds + 1):
            for name in random.sample(list(plans), len(plans)):
                start = time.thread_time()
                for _ in range(runs):
                    bench.run(prompt, plans[name], record=None)
                if round_:
                    times[name].append((time.thread_time() - start) / runs)
        ratios = {
            name: statistics.median(a / b for a, b in zip(times[name], times["no plan"], strict=True))
            for name in EDITS
        }
        return {
            "tokens": tokens, "kernels": bench.kernels, "isa": bench.isa,
            "no_plan_ms": statistics.median(times["no plan"]) * 1e3, "ratios": ratios,
        }  # fmt: skip


def main() -> None:
    """Read the command line and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--kernels", default="auto")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(asked.tokens, asked.rounds, asked.runs, asked.kernels)
    setting = f"1 block at OLMoE-1B-7B width, {asked.tokens} tokens"
    figures = [
        figure(f"reroute: {name}", setting, ratio, "x", "<= 1.02" if name in HELD else None)
        for name, ratio in found["ratios"].items()
    ]
    publish("edits", figures, measured=found)


if __name__ == "__main__":
    main()
