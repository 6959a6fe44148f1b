"""Quality against work for every family of skip and mask on the demo model, beside random controls, as JSON.

    python benchmarks/quality.py [--texts 12] [--tokens 96] [--families depth tokens ...] [--chart quality.html]

A row is one plan: ``family``, ``method``, ``control`` (a random one or not), ``level``, ``work`` (the share of the
units of work that was done, counted by what ran: tokens through blocks, neurons, blocks of the attention map, entries of
weights), ``change`` (mean change of the loss in nats a token), ``seconds`` (of the passes, over those of the bare model in
the same round). Levels are chosen so that a method and its control stand at about the same work.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from surroundings import figure, publish

# isort: split
import pandas as pd

import workbench as wb

RECORD = wb.Record(routing=False, contribution=False, sparsity=False, attention_rank=False)
FAMILIES = ("depth", "tokens", "policies", "attention", "activations", "weights", "units")
Case = tuple[str, str, bool, float, Any]


def cases(bench: Any, families: list[str], source: str, block: int) -> Iterator[Case]:
    """(family, method, control, level, edit) of everything that is measured."""
    layers = bench.anatomy.num_layers
    inner = list(range(1, layers))
    made = {
        "depth": lambda: _depth(layers), "tokens": lambda: _tokens(inner), "policies": lambda: _policies(),
        "attention": lambda: _attention(block), "activations": lambda: _activations(source),
        "weights": lambda: _weights(source), "units": lambda: _units(source),
    }  # fmt: skip
    for family in families:
        for method, control, level, edit in made[family]():
            yield family, method, control, level, edit


def _depth(layers: int) -> Iterator[tuple[str, bool, float, Any]]:
    for layer in range(layers):
        for name, make in (("block", wb.skip.block), ("attention", wb.skip.attention), ("MLP", wb.skip.mlp)):
            yield f"skip one {name}", False, layer, make(layer)
        yield "repeat one block", False, layer, wb.skip.repeat(layer, 2)


def _tokens(layers: list[int]) -> Iterator[tuple[str, bool, float, Any]]:
    for capacity in (0.25, 0.5, 0.75):
        for kv in ("absent", "compute", "copy-last"):
            for score in ("norm", "position", "random"):
                edit = wb.skip.tokens(layers, capacity=capacity, score=score, kv=kv, protect=0)
                yield f"{score}, {kv}", score == "random", capacity, edit
        for score in ("norm", "random"):
            edit = wb.skip.tokens(
                layers, capacity=capacity, score=score, kv="compute", unit="attention", protect=0
            )
            yield f"attention by {score}", score == "random", capacity, edit
        edit = wb.skip.tokens(
            layers, capacity=capacity, score="attention", causal=False, kv="compute", protect=0
        )
        yield "attention received (looks ahead)", False, capacity, edit


def _policies() -> Iterator[tuple[str, bool, float, Any]]:
    for speed_up in (1.2, 1.5, 2.0):
        yield "uniform", False, speed_up, wb.skip.policy("uniform", speed_up=speed_up)
        yield "random", True, speed_up, wb.skip.policy("random", share=1 / speed_up, protect=0)
    for radius in (1, 2):
        yield "middle", False, radius, wb.skip.policy("middle", radius=radius)
    for similarity in (0.9, 0.95, 0.98):
        yield (
            "early exit",
            False,
            similarity,
            wb.skip.policy("early_exit", similarity=similarity, kv="copy-last"),
        )


def _attention(block: int) -> Iterator[tuple[str, bool, float, Any]]:
    for keep in (0.3, 0.5, 0.7):
        for pattern, more in (
            ("oracle", {}), ("pooled", {}), ("vertical-slash", {"last": 32}), ("channels", {"channels": 8}),
            ("clusters", {"clusters": 3}), ("random", {}),
        ):  # fmt: skip
            edit = wb.mask.attention("all", pattern, keep=keep, block=block, **more)
            yield pattern, pattern == "random", keep, edit
    for window in (16, 32):
        yield (
            "window and sinks",
            False,
            window,
            wb.mask.attention("all", "window", window=window, block=block),
        )


def _activations(source: str) -> Iterator[tuple[str, bool, float, Any]]:
    for sparsity in (0.3, 0.5, 0.7):
        for method in ("magnitude", "weight-informed", "gate"):
            yield (
                method,
                False,
                sparsity,
                wb.mask.activations("all", method, sparsity=sparsity, source=source),
            )
        yield "random", True, sparsity, wb.mask.activations("all", "random", sparsity=sparsity)


def _weights(source: str) -> Iterator[tuple[str, bool, float, Any]]:
    for ratio in (0.3, 0.5):
        for by in ("magnitude", "activation-weighted", "prune-and-grow", "random"):
            needs = {"source": source} if by in ("activation-weighted", "prune-and-grow") else {}
            yield by, by == "random", ratio, wb.mask.weights("all", ratio=ratio, criterion=by, **needs)
    for by in ("magnitude", "activation-weighted"):
        needs = {"source": source} if by != "magnitude" else {}
        yield f"2:4 {by}", False, 0.5, wb.mask.weights("all", shape="n:m", n=2, m=4, criterion=by, **needs)


def _units(source: str) -> Iterator[tuple[str, bool, float, Any]]:
    for ratio in (0.25, 0.5):
        for name, make in (
            ("heads", wb.mask.heads),
            ("experts", wb.mask.experts),
            ("neurons", wb.mask.neurons),
        ):
            for by in ("activation", "magnitude", "random"):
                needs = {"source": source} if by == "activation" else {}
                yield (
                    f"{name} by {by}",
                    by == "random",
                    ratio,
                    make("all", ratio=ratio, criterion=by, **needs),
                )


def measured(bench: Any, texts: list[list[int]], edit: Any) -> tuple[float, float, float]:
    """Loss in nats a token, share of the work done and seconds of ``texts`` under ``edit``."""
    started = time.perf_counter()
    runs = [bench.run(ids, edit, record=RECORD) for ids in texts]
    seconds = time.perf_counter() - started
    loss = sum(run.loss * (len(run.tokens) - 1) for run in runs) / sum(len(run.tokens) - 1 for run in runs)
    tokens = sum(len(run.tokens) for run in runs)
    done = left = 0.0
    for op, executed, skipped, covered in bench.sql(
        "SELECT op, sum(executed), sum(skipped), count(DISTINCT layer) FROM cost WHERE list_contains(?, run) GROUP BY op",
        [[run.id for run in runs]],
    ).fetchall():
        # Of depth only the layers that an edit decides for have rows; the others run for every token.
        others = bench.anatomy.num_layers - covered if op in ("block", "attn", "mlp") else 0
        done, left = done + executed + others * tokens, left + skipped
    return loss, float(done / (done + left)) if done + left else 1.0, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--texts", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--block", type=int, default=16, choices=(16, 32, 64, 128))
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--chart", type=Path)
    given = parser.parse_args()
    with wb.open(store=":memory:") as bench:
        texts = demo_texts(bench, given.texts + 4, given.tokens)
        source = bench.calibrate(texts[given.texts :])
        texts = texts[: given.texts]
        base, _, seconds = measured(bench, texts, None)
        rows: list[dict[str, Any]] = []
        for family, method, control, level, edit in cases(bench, given.families, source, given.block):
            loss, work, took = measured(bench, texts, edit)
            rows.append({
                "family": family, "method": method, "control": control, "level": level, "work": work,
                "change": loss - base, "seconds": took / seconds,
            })  # fmt: skip
    frame = pd.DataFrame(rows)
    if given.chart is not None:
        from workbench.analysis import charts

        charts.quality(frame).save(str(given.chart))
    figures = [
        figure(f"{row['family']}: {row['method']}", f"level {row['level']:g}, work {row['work']:.2f}", row["change"], "nats")
        for row in rows
    ]  # fmt: skip
    publish("quality", figures, base_loss=base, rows=rows)


def demo_texts(bench: Any, count: int, tokens: int) -> list[list[int]]:
    """Held-out items of the tasks of the demo model, joined to texts of ``tokens`` tokens."""
    frames = [wb.tasks.load(name, split="test", n=count) for name in wb.tasks.names()]
    joined: list[int] = []
    for row in range(count):
        for frame in frames:
            item = frame.iloc[row % len(frame)]
            joined += bench.token_ids(str(item["prompt"]) + str(item["answer"]))
    size = min(tokens, bench.context or tokens)
    parts = [joined[start : start + size] for start in range(0, len(joined) - size, size)]
    return [parts[n % len(parts)] for n in range(count)]


if __name__ == "__main__":
    main()
