"""What a router edit costs: passes under a plan against passes under none, on the same bench, as JSON.

    python benchmarks/edits.py [--tokens 128] [--rounds 12] [--kernels auto]

One block at OLMoE-1B-7B width, one torch thread, nothing recorded. In each round every edit makes one pass and the empty
plan two, in random order; a ratio is the median over the rounds of that round's CPU time of the thread against the mean of
the empty plan's two, so that what else a busy machine does falls on both. About a minute on a quiet core. Edits that change
how many experts run are left out: their cost is that of the experts.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from typing import Any

from surroundings import OLMOE, figure, filled, publish

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


def measure(tokens: int, rounds: int, kernels: str) -> dict[str, Any]:
    """Milliseconds of CPU a pass takes under the empty plan, and each edit's ratio to it."""
    with torch.device("meta"):
        shape = AutoModelForCausalLM.from_config(AutoConfig.for_model("olmoe", **OLMOE))
    model = filled(shape)
    with wb.open(model, store=":memory:", kernels=kernels) as bench:
        prompt = torch.randint(0, 8192, (tokens,), generator=torch.Generator().manual_seed(0)).tolist()
        plans = {"no plan": wb.Plan()} | {name: wb.Plan([edit]) for name, edit in EDITS.items()}
        times: dict[str, list[float]] = {name: [] for name in plans}
        for round_ in range(rounds + 1):
            taken: dict[str, list[float]] = {name: [] for name in plans}
            for name in random.sample([*plans, "no plan"], len(plans) + 1):
                start = time.thread_time()
                bench.run(prompt, plans[name], record=None)
                taken[name].append(time.thread_time() - start)
            if round_:  # the first round warms up
                for name, values in taken.items():
                    times[name].append(statistics.mean(values))
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
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--kernels", default="auto")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(asked.tokens, asked.rounds, asked.kernels)
    setting = f"1 block at OLMoE-1B-7B width, {asked.tokens} tokens"
    figures = [
        figure(f"reroute: {name}", setting, ratio, "x", "<= 1.02" if name in HELD else None)
        for name, ratio in found["ratios"].items()
    ]
    publish("edits", figures, measured=found)


if __name__ == "__main__":
    main()
