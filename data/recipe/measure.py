"""Measures a finished model and writes facts.json and levels.json into its folder.

    python -m data.recipe.measure data/demo                  everything
    python -m data.recipe.measure data/demo --only headroom  one part; the others keep their figures

Everything is measured through the workbench itself: runs are recorded and asked by SQL, edits are plans.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import workbench as wb
from data.recipe import headroom, task_facts, text_facts
from workbench.runtime.bench import Bench
from workbench.tasks.levels import FILE as LEVELS

PROMPT = "The capital of France is"
SHOWN = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_experts",
    "num_experts_per_tok",
    "norm_topk_prob",
    "vocab_size",
    "max_position_embeddings",
)


def shape(bench: Bench, folder: Path) -> dict[str, Any]:
    """Size, configuration, where in training the model stands, and a greedy continuation."""
    return {
        "checkpoint": bench.checkpoint,
        "parameters": sum(parameter.numel() for parameter in bench.model.parameters()),
        "active_parameters": active_parameters(bench.model),
        "bytes": (folder / "model.safetensors").stat().st_size,
        "config": {key: getattr(bench.model.config, key) for key in SHOWN},
        "training": json.loads((folder / "training.json").read_text()),
        "continuation": bench.generate(PROMPT, max_new_tokens=40, record=None).text,
    }


def active_parameters(model: torch.nn.Module) -> int:
    """Parameters that one token uses: everything but the experts it is not sent to."""
    config = model.config
    total = sum(parameter.numel() for parameter in model.parameters())
    bank = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    return total - bank + bank * config.num_experts_per_tok // config.num_experts


PARTS = ("shape", "text", "accuracy", "random_routing", "held_out", "oracles", "fault")


def measure(bench: Bench, folder: Path, part: str, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one part."""
    if part == "shape":
        return shape(bench, folder)
    if part == "text":
        return text_facts.measure(bench)
    if part == "accuracy":
        found = task_facts.accuracy(bench, options.items)
        frozen = task_facts.frozen_levels(found, bench.checkpoint)
        (folder / LEVELS).write_text(json.dumps(frozen, indent=1) + "\n")
        return found
    levels = wb.tasks.usable(folder)
    if part == "random_routing":
        return task_facts.random_routing(bench, levels, options.items // 2)
    if part == "held_out":
        return task_facts.held_out(bench, levels, options.test_items, options.items)
    if part == "oracles":
        return headroom.oracles(bench, levels, options.oracle_items)
    return headroom.planted_fault(bench, levels, options.items // 2)


def rounded(value: Any) -> Any:
    """Numbers with six significant digits, so that the file can be read."""
    if isinstance(value, dict):
        return {str(key): rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--items", type=int, default=200, help="items of a level on the validation split")
    parser.add_argument(
        "--test-items", type=int, default=500, help="items of a usable level on the test split"
    )
    parser.add_argument("--oracle-items", type=int, default=32, help="items of a level for the oracles")
    options = parser.parse_args()
    file = options.folder / "facts.json"
    facts = json.loads(file.read_text()) if file.exists() else {}
    with wb.open(str(options.folder), store=":memory:", dtype="float32") as bench:
        for part in options.only:
            started = time.time()
            facts[part] = rounded(measure(bench, options.folder, part, options))
            file.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
            print(f"{part}: {time.time() - started:.0f} s", flush=True)
    print(pd.Series(facts["shape"]["training"]).to_string())


if __name__ == "__main__":
    main()
