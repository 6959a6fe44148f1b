"""What opening costs beside loading: the anatomy, the contract and the attachment, as a share of loading a checkpoint.

    python benchmarks/opening.py [--gigabytes 1.1] [--rounds 3] [--folder FOLDER]

Writes a checkpoint of random bf16 weights in OLMoE's architecture, then loads it with ``from_pretrained`` and opens it on
the bench, several times; the first load, which reads a cold disk or fills the page cache, is thrown away. CPU time of the
calling thread beside wall clock: on a busy machine the wall clock says little.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from surroundings import figure, filled, publish

# isort: split
import torch
from transformers import AutoModelForCausalLM, OlmoeConfig, OlmoeForCausalLM

import workbench as wb


def make(folder: Path, gigabytes: float) -> int:
    """A checkpoint of about ``gigabytes`` in ``folder``; its size in bytes."""
    width, inner, experts = 1024, 1024, 32
    layer = experts * 3 * width * inner * 2 + 4 * width * width * 2
    layers = max(1, round(gigabytes * 1e9 / layer))
    config = OlmoeConfig(
        hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=16, num_experts=experts,
        num_key_value_heads=16, num_experts_per_tok=8, vocab_size=8192, dtype="bfloat16",
    )  # fmt: skip
    with torch.device("meta"):
        shape = OlmoeForCausalLM(config).to(torch.bfloat16)
    filled(shape).save_pretrained(folder)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def once(folder: Path) -> dict[str, float]:
    """Seconds of loading and of opening what was loaded, by both clocks."""
    wall, cpu = time.perf_counter(), time.process_time()
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    loaded_wall, loaded_cpu = time.perf_counter(), time.process_time()
    bench = wb.open(model, store=":memory:")
    opened_wall, opened_cpu = time.perf_counter(), time.process_time()
    bench.close()
    return {
        "load_wall": loaded_wall - wall, "load_cpu": loaded_cpu - cpu,
        "open_wall": opened_wall - loaded_wall, "open_cpu": opened_cpu - loaded_cpu,
    }  # fmt: skip


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=1.1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, help="where to keep the checkpoint; a temporary folder by default"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        have = sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.exists() else 0
        size = have or make(folder, given.gigabytes)
        rounds = [once(folder) for _ in range(given.rounds + 1)][1:]
    figures = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    setting = f"checkpoint of {size / 1e9:.2f} GB, bf16"
    publish(
        "opening",
        [
            figure(
                "opening, over loading", setting, figures["open_wall"] / figures["load_wall"], "x", "<= 0.1"
            ),
            figure("opening, over loading, CPU", setting, figures["open_cpu"] / figures["load_cpu"], "x"),
        ],
        seconds=figures,
        rounds=given.rounds,
    )


if __name__ == "__main__":
    main()
