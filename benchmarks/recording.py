"""What recording costs: a recorded forward pass against the bare model on the same kernels, as JSON.

    python benchmarks/recording.py [--settings demo olmoe dense] [--tokens 128] [--rounds 15] [--kernels auto]

One torch thread; the variants run in random order inside each round; ratios are of medians over the bare forward of the
same run. ``wall`` is what a user waits for (the writer has a thread of its own, and the rows are flushed before the clock
stops), ``cpu`` the CPU time of all threads together.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
HERE = Path(__file__).resolve().parent
# transformers imports a published package named kernels: from this folder it would find a script of that name.
sys.path[:] = [
    str(HERE.parent),
    str(HERE.parent / "kernels"),
    *(p for p in sys.path if Path(p).resolve() != HERE),
]

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import workbench as wb

_OLMOE = {
    "vocab_size": 8192, "hidden_size": 2048, "intermediate_size": 1024, "num_hidden_layers": 1,
    "num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 64, "num_experts_per_tok": 8,
}  # fmt: skip
_DENSE = {
    "vocab_size": 8192, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 4,
    "num_attention_heads": 16, "num_key_value_heads": 8,
}  # fmt: skip
SETTINGS: dict[str, Callable[[], Any]] = {
    "demo": lambda: None,
    "olmoe": lambda: AutoModelForCausalLM.from_config(AutoConfig.for_model("olmoe", **_OLMOE)),
    "dense": lambda: AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **_DENSE)),
}
VARIANTS: dict[str, Any] = {
    "bare": None,
    "session": None,
    "routing": wb.Record(contribution=False, sparsity=False, attention_rank=False),
    "contribution": wb.Record(routing=False, sparsity=False, attention_rank=False),
    "sparsity": wb.Record(routing=False, contribution=False, attention_rank=False),
    "attention_rank": wb.Record(routing=False, contribution=False, sparsity=False),
    "record": wb.Record(),
    "record+scores": wb.Record(scores=True),
}


def measure(name: str, tokens: int, rounds: int, kernels: str) -> dict[str, Any]:
    """Median wall and CPU seconds of every variant at one setting, and their ratios to ``bare``."""
    with (
        tempfile.TemporaryDirectory() as folder,
        wb.open(SETTINGS[name](), store=Path(folder) / "runs.duckdb", kernels=kernels) as bench,
    ):
        length = min(tokens, bench.context or tokens)
        ids = torch.randint(
            0, bench.anatomy.vocab_size, (length,), generator=torch.Generator().manual_seed(0)
        )
        times: dict[str, list[tuple[float, float]]] = {variant: [] for variant in VARIANTS}
        for round_ in range(rounds + 2):
            for variant in random.sample(list(VARIANTS), len(VARIANTS)):
                wall, cpu = time.perf_counter(), time.process_time()
                if variant == "bare":
                    with torch.no_grad():
                        bench.model(ids.unsqueeze(0), use_cache=False)
                else:
                    bench.run(ids, record=VARIANTS[variant])
                if round_ >= 2:
                    times[variant].append((time.perf_counter() - wall, time.process_time() - cpu))
        result: dict[str, Any] = {
            "setting": name,
            "tokens": length,
            "kernels": bench.kernels,
            "isa": bench.isa,
        }
    bare = [statistics.median(column) for column in zip(*times["bare"], strict=True)]
    for variant, seconds in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*seconds, strict=True))
        result[variant] = {"ms": wall * 1e3, "wall_ratio": wall / bare[0], "cpu_ratio": cpu / bare[1]}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["demo"])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--kernels", default="auto")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }
    rows = [measure(name, asked.tokens, asked.rounds, asked.kernels) for name in asked.settings]
    print(json.dumps({"benchmark": "recording", "machine": machine, "threads": 1, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
