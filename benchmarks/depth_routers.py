"""Depth routers trained on the frozen demo model, against random and uniform skipping of the same units at the same share.

    python benchmarks/depth_routers.py > benchmarks/results/depth_routers.json    # some minutes of one core
    python benchmarks/quality_page.py                                             # the table of it

Three ways: linear gates on the attention alone, trained to a target share (Router-Tuning's MindSkip); small networks on
whole blocks that learn searched paths of skips and repeats (Dr.LLM); and gates on the layers of lowest attention rank beside
those on as many others (gamma-MoD). Routers learn from training items; every row is measured on held-out texts and items,
with 95 % intervals over them. ``share`` is counted by what ran.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from typing import Any

from surroundings import figure, publish

# isort: split
import workbench as wb
from benchmarks.quality_parts import Ground, Outcome, change, ground, measure, points
from workbench.experiments.depth_router import (
    layers_by_rank,
    plan_of,
    search_path,
    train_gates,
    train_paths,
)

OPS = {"attention": "attn", "block": "block"}


class Table:
    """The rows of one benchmark, measured on one ground."""

    def __init__(self, bench: Any, on: Ground, seeds: int) -> None:
        self._bench, self._on, self._seeds = bench, on, seeds
        self._base = measure(bench, on, None, None)
        self.rows: list[dict[str, Any]] = []

    def router(
        self, way: str, setting: str, router: Any, seconds: float, capacity: float | None = None
    ) -> Outcome:
        """Measure ``router`` and skipping of its units at random and evenly, at the share that it runs; give what it does.

        With ``capacity`` it ranks tokens instead of opening for those above its threshold.
        """
        unit: Any = "attention" if router.form == "linear" else "block"
        layers = list(router.layers)
        plan: Any = plan_of(self._bench, router)
        if capacity is not None:
            name = self._bench.add(router.artefact())
            plan = wb.skip.tokens(
                layers, capacity=capacity, score="router", router=name, unit=unit, kv="compute"
            )
        learned = measure(self._bench, self._on, plan, OPS[unit])
        share = min(1.0, max(learned.work or 0.0, 1e-3))
        drawn = [
            measure(self._bench, self._on, wb.skip.policy(
                "random", share=share, layers=layers, unit=unit, kv="compute", seed=seed), OPS[unit])
            for seed in range(self._seeds)
        ]  # fmt: skip
        evenly = measure(self._bench, self._on, wb.skip.tokens(
            layers, capacity=share, score="position", unit=unit, kv="compute"), OPS[unit])  # fmt: skip
        about = {
            "way": way,
            "setting": setting,
            "layers": layers,
            "unit": unit,
            "training_seconds": round(seconds, 1),
        }
        self._row(about, "learned", learned, {"random": drawn, "uniform": [evenly]})
        for seed, one in enumerate(drawn):
            self._row(about, f"random {seed}", one, {})
        self._row(about, "uniform", evenly, {})
        print(
            f"{way}, {setting}: share {share:.2f}, {self.rows[-2 - len(drawn)]['change']:+.3f} nats",
            file=sys.stderr,
        )
        return learned

    def _row(self, about: dict[str, Any], plan: str, one: Outcome, against: dict[str, list[Outcome]]) -> None:
        row = about | {"plan": plan, "share": one.work, "time": one.time, "accuracy": float(one.right.mean())}
        told = {"change": change(one, [self._base]), "points": points(one, [self._base])}
        told |= {f"than_{name}": change(one, others) for name, others in against.items()}
        for name, (value, low, high) in told.items():
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        self.rows.append(row)


def training_texts(bench: Any, count: int, tokens: int) -> list[list[int]]:
    """Items of the training split, joined."""
    frames = [wb.tasks.load(name, split="train", level=1, n=4 * count) for name in wb.tasks.names()]
    joined: list[int] = []
    for row in range(4 * count):
        for frame in frames:
            joined += bench.token_ids(str(frame.iloc[row]["prompt"]) + str(frame.iloc[row]["answer"]))
    return [joined[n * tokens : (n + 1) * tokens] for n in range(count)]


def gates(bench: Any, table: Table, texts: list[list[int]], steps: int) -> None:
    """Gates on the attention of every layer but the first, at three shares."""
    layers = list(range(1, bench.anatomy.num_layers))
    for target in (0.25, 0.5, 0.75):
        started = time.process_time()
        router = train_gates(bench, texts, layers, target=target, steps=steps)
        spent = time.process_time() - started
        table.router("MindSkip", f"target {target:g}", router, spent)
        table.router("MindSkip, ranked", f"capacity {target:g}", router, spent, capacity=target)


def paths(bench: Any, table: Table, texts: list[list[int]], searched: int) -> dict[str, Any]:
    """Networks that learned searched paths, at two prices of a layer."""
    found: dict[str, Any] = {}
    for cost in (0.02, 0.1):
        started = time.process_time()
        some = texts[:searched]
        best = [search_path(bench, text, cost=cost, changes=3) for text in some]
        router = train_paths(bench, some, best)
        spent = time.process_time() - started
        found[f"cost {cost:g}"] = {
            "visits": [list(path.visits) for path in best], "loss": [path.loss for path in best],
            "base": [path.base for path in best],
        }  # fmt: skip
        if router.layers:
            table.router("Dr.LLM", f"cost {cost:g}", router, spent)
    return found


def layers_chosen(bench: Any, table: Table, on: Ground, texts: list[list[int]], steps: int) -> dict[str, Any]:
    """Gates at one share on the layers of lowest attention rank, of highest, and on random ones."""
    size = bench.anatomy.num_layers
    order = [layers_by_rank(bench, on.calibration, count) for count in range(1, size)]
    count = max(1, size // 3)
    lowest = order[count - 1]
    highest = sorted(set(range(1, size)) - set(order[size - 2 - count]))
    drawn = sorted(random.Random(0).sample(range(1, size), count))
    done: dict[str, Outcome] = {}
    for name, layers in (("lowest rank", lowest), ("highest rank", highest), ("random layers", drawn)):
        started = time.process_time()
        router = train_gates(bench, texts, layers, target=0.25, steps=steps)
        done[name] = table.router("layers by attention rank", name, router, time.process_time() - started)
    low = done["lowest rank"]
    return {
        name: dict(zip(("nats", "low", "high"), change(low, [done[name]]), strict=True))
        for name in ("highest rank", "random layers")
    }


def verdict(low: float, high: float) -> str:
    """What an interval of a difference of losses says."""
    return "better" if high < 0 else "worse" if low > 0 else "no sure difference"


def main() -> None:
    """Read the command line, train, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--texts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=192)
    parser.add_argument("--items", type=int, default=8, help="of each task")
    parser.add_argument("--steps", type=int, default=120, help="of training gates, one text each")
    parser.add_argument("--searched", type=int, default=16, help="training texts whose paths are searched")
    parser.add_argument("--seeds", type=int, default=2, help="random controls")
    given = parser.parse_args()
    started = time.process_time()
    with wb.open(store=":memory:") as bench:
        on = ground(bench, given.texts, given.tokens, given.items)
        texts = training_texts(bench, 32, given.tokens)
        table = Table(bench, on, given.seeds)
        gates(bench, table, texts, given.steps)
        searched = paths(bench, table, texts, given.searched)
        by_rank = layers_chosen(bench, table, on, texts, given.steps)
        about = {"model": bench.name, "checkpoint": bench.checkpoint, "layers": bench.anatomy.num_layers}
    learned = [row for row in table.rows if row["plan"] == "learned"]
    for row in learned:
        for other in ("random", "uniform"):
            row[f"verdict_{other}"] = verdict(row[f"than_{other}_low"], row[f"than_{other}_high"])
    figures = [
        figure(f"{row['way']}, {row['setting']}: loss beside random skipping", f"share {row['share']:.2f}",
               row["than_random"], "nats")
        for row in learned
    ]  # fmt: skip
    publish(
        "depth_routers", figures, **about, texts=given.texts, tokens=given.tokens, items=len(on.items), seeds=given.seeds,
        processor_seconds=round(time.process_time() - started, 1), searched=searched, lowest_rank_than=by_rank,
        rows=table.rows,
    )  # fmt: skip


if __name__ == "__main__":
    main()
