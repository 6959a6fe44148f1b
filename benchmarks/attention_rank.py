"""Attention rank: what a sketch misses against an SVD, what it costs, and whether layers keep their order, as JSON.

    python benchmarks/attention_rank.py [--samples 24] [--long 4096] [--picture sketch.png] [--parts error order cost]

* ``error``: stable rank by sketch against the SVD of the whole map, on every head of the demo model at 32, 64 and 128 tokens
  of this project's README, by columns of the sketch. A sketch never undershoots.
* ``order``: gamma-MoD ranks layers by ARank. Spearman's correlation of the order of the layers between samples, between
  means of half of the samples each, and between tolerances.
* ``cost``: seconds of the sketch and of exact ranks of sampled rows, against the attention itself on our kernel.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from surroundings import figure, publish

# isort: split
import numpy as np
import torch
from routing_kernels import block_attention, block_rows
from scipy.stats import spearmanr

import workbench as wb
from workbench.signals import attention_rank, rank_sketch
from workbench.signals.rank_kernel import kernel_sketch

WIDTHS = (2, 4, 8, 16, 32)
TOLERANCES = (0.001, 0.01, 0.05, 0.2)
README = Path(__file__).resolve().parent.parent / "README.md"


def texts(bench: Any, size: int, count: int) -> list[list[int]]:
    """``count`` stretches of ``size`` tokens of the README, evenly spread."""
    ids = bench.tokenizer(README.read_text())["input_ids"]
    starts = np.linspace(0, len(ids) - size, count).astype(int)
    return [ids[s : s + size] for s in starts]


def maps_of(bench: Any, prompt: list[int]) -> Iterator[tuple[int, torch.Tensor]]:
    """Layer and maps [N, S, S] in fp32."""
    run = bench.run(prompt, record=None)
    for layer in range(bench.anatomy.num_layers):
        yield layer, run.tensor("attn_pattern", layers=layer).float().cpu()


def errors(bench: Any) -> list[dict[str, Any]]:
    """Relative error of the stable rank of every map, by length and width."""
    rows = []
    for size in (32, 64, 128):
        for prompt in texts(bench, min(size, bench.context or size), 3):
            for layer, maps in maps_of(bench, prompt):
                exact = attention_rank.ranks(maps).stable_rank.double()
                for width in WIDTHS:
                    found = rank_sketch.of_map(maps, width, seed=layer).stable_rank.double()
                    rows += [
                        {"tokens": size, "width": width, "layer": layer, "svd": float(e), "sketch": float(f)}
                        for e, f in zip(exact, found, strict=True)
                    ]
        _say(f"  sketches of {size} tokens are done")
    return rows


def order(bench: Any, samples: int) -> dict[str, Any]:
    """Agreement of the order of the layers by mean rank over heads."""
    prompts = texts(bench, min(128, bench.context or 128), samples)
    rank = np.zeros((len(TOLERANCES), samples, bench.anatomy.num_layers))
    for n, prompt in enumerate(prompts):
        for layer, maps in maps_of(bench, prompt):
            for t, tolerance in enumerate(TOLERANCES):
                rank[t, n, layer] = float(attention_rank.ranks(maps, tolerance).rank.double().mean())
    random = np.random.default_rng(0)
    halves = [random.permutation(samples) for _ in range(20)]

    def agreement(a: Any, b: Any) -> float:
        return float(spearmanr(a, b).statistic)

    found: dict[str, Any] = {
        "mean_rank": {str(t): rank[n].mean(0).round(2).tolist() for n, t in enumerate(TOLERANCES)}
    }
    for n, tolerance in enumerate(TOLERANCES):
        pairs = [agreement(rank[n, a], rank[n, b]) for a, b in itertools.combinations(range(samples), 2)]
        split = [
            agreement(rank[n, h[: samples // 2]].mean(0), rank[n, h[samples // 2 :]].mean(0)) for h in halves
        ]
        found[str(tolerance)] = {
            "pairs": statistics.mean(pairs),
            "lowest_pair": min(pairs),
            "halves": statistics.mean(split),
        }
    found["tolerances"] = {
        f"{TOLERANCES[a]} and {TOLERANCES[b]}": agreement(rank[a].mean(0), rank[b].mean(0))
        for a, b in itertools.combinations(range(len(TOLERANCES)), 2)
    }
    return found


def cost(length: int) -> dict[str, float]:
    """Seconds by what is computed, 4 heads of 64 at ``length`` tokens."""
    random = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(4, length, 64, generator=random) for _ in range(3))
    count = -(-length // 64)
    ptr, col = block_rows(torch.ones(4, count, count, dtype=torch.bool).tril())
    extra = torch.randn(length, 16, generator=random)
    rows = attention_rank.sample(length, 256)
    index = torch.arange(length) if rows is None else rows

    def sampled() -> None:
        maps = attention_rank.attention_map(
            q[None, :, index], k[None], 0.125, torch.arange(length) <= index[:, None]
        )
        attention_rank.ranks(maps, columns=index)

    variants: dict[str, Callable[[], Any]] = {
        "attention": lambda: block_attention(q[None], k[None], v[None], ptr, col, stats=True),
        "attention with 16 columns": lambda: block_attention(
            q[None], k[None], v[None], ptr, col, extra=extra, stats=True
        ),
        "kernel sketch": lambda: kernel_sketch(q, k, 0.125, width=16),
        "sketch": lambda: rank_sketch.sketch(
            rank_sketch.blocks(q, k, 0.125, None, softcap=None, sinks=None, budget=2**22), 4, length, 16
        ),
        "ranks of 256 rows": sampled,
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(4):
        for name, run in variants.items():
            start = time.process_time()
            run()
            if round_:
                seconds[name].append(time.process_time() - start)
    found = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in found.items():
        _say(f"  {name}: {value:.3f} s, {value / found['attention']:.2f}x of the attention")
    return found


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Sketch against SVD, one point a map, a column of the picture for each width."""
    import altair as alt
    import pandas as pd

    frame = pd.DataFrame(rows)
    limit = float(frame[["svd", "sketch"]].max().max()) * 1.05
    line = pd.DataFrame({"svd": [1, limit], "sketch": [1, limit]})
    panels = []
    for width in WIDTHS:
        base = alt.Chart(frame[frame.width == width], title=f"{width} columns", width=150, height=150)
        points = base.mark_circle(size=18, opacity=0.6).encode(
            x=alt.X(
                "svd:Q",
                title="stable rank by SVD",
                scale=alt.Scale(domain=[1, limit], type="log", nice=False),
            ),
            y=alt.Y(
                "sketch:Q", title="by sketch", scale=alt.Scale(domain=[1, limit], type="log", nice=False)
            ),
            color=alt.Color("tokens:N", title="tokens"),
        )
        panels.append(
            alt.Chart(line).mark_line(color="gray", strokeDash=[4, 3]).encode(x="svd:Q", y="sketch:Q")
            + points
        )
    alt.hconcat(*panels).save(str(path), scale_factor=2)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Read the command line, print the figures and draw the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--long", type=int, default=4096, help="tokens of the map that is timed")
    parser.add_argument("--picture", type=Path, help="where to draw sketch against SVD (.png, .svg or .html)")
    parser.add_argument(
        "--parts", nargs="+", choices=("error", "order", "cost"), default=["error", "order", "cost"]
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    figures, details = [], {}
    with wb.open(store=":memory:") as bench:
        if "error" in asked.parts:
            rows = details["error"] = errors(bench)
            for width in WIDTHS:
                worst = max(r["sketch"] / r["svd"] - 1 for r in rows if r["width"] == width)
                typical = statistics.median(r["sketch"] / r["svd"] - 1 for r in rows if r["width"] == width)
                figures.append(
                    figure(
                        f"stable rank by sketch of {width} columns, median error", "demo model", typical, ""
                    )
                )
                figures.append(
                    figure(f"stable rank by sketch of {width} columns, worst error", "demo model", worst, "")
                )
            if asked.picture is not None:
                draw(rows, asked.picture)
        if "order" in asked.parts:
            found = details["order"] = order(bench, asked.samples)
            for t in TOLERANCES:
                for name in ("pairs", "halves"):
                    what = f"order of layers by ARank at {t}, {name} of samples"
                    figures.append(figure(what, "demo model", found[str(t)][name], "Spearman"))
            for name, value in found["tolerances"].items():
                figures.append(
                    figure(f"order of layers by ARank between {name}", "demo model", value, "Spearman")
                )
    if "cost" in asked.parts:
        seconds = details["cost"] = cost(asked.long)
        where = f"4 heads of 64, {asked.long:,} tokens, one thread"
        for name in ("attention with 16 columns", "kernel sketch", "sketch", "ranks of 256 rows"):
            budget = "<= 1.5" if name == "attention with 16 columns" else None
            figures.append(
                figure(
                    f"{name}, of the attention's time",
                    where,
                    seconds[name] / seconds["attention"],
                    "x",
                    budget,
                )
            )
    publish("attention_rank", figures, **details)


if __name__ == "__main__":
    main()
