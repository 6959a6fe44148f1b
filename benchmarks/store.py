"""Times the store and prints JSON: rows in, bytes on disk, and every macro.

    python benchmarks/store.py [--choices 4000000] [--threads 1] [--repeats 3] [--macros 1000000 10000000]

Rows are those of a model with 16 routed layers of 64 experts, 8 a token, with skewed loads and random weights, written
through ``Store.write``, one call a layer of 2,048 tokens. A choice is one row of the table ``routing``. Making the random
rows is not timed. Macros are timed over all runs of a store in memory, their whole answer made, with the sums of ended runs
kept (``Store.summarise``, whose seconds are told beside); ``--rows`` times them over the rows alone as well.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from figures import figure, publish

from workbench.store import Store
from workbench.store.schema import TABLE_MACROS
from workbench.store.summary import SUMS

LAYERS, EXPERTS, TOP_K, TOKENS = 16, 64, 8, 2048
CALLS = {
    "specialisation": "$runs, 'kind'",
    "label_information": "$runs, 'kind'",
    "token_specialisation_by_label": "$runs, 'kind'",
    "label_null": "$runs, 'kind'",
    "group_divergence": "$runs, 'kind'",
    "risk_difference": "$runs, 'kind', 'a', 'b'",
    "flips_aligned": "$first, $second, range($tokens), range($tokens)",
    "shared_prefix": "$first, $second",
    "flips": "$first, $second",
    "route_stability": "$first, $runs",
    "load_divergence": "$first, $runs",
    "route_neighbours": "$runs, $runs",
    "loss_change": "$first, $runs",
    "skip_effect": "$first, $runs",
    "cell": "$first, 3, 1000",
    "routing_map": "$first",
    "choice_tiles": "$first, 0, $tokens, 16",
    "router_tiles": "$first, 0, $tokens, 16",
    "part_tiles": "$first, 0, $tokens, 16",
    "flip_tiles": "$first, $second, 0, $tokens, 16",
    "lane_tiles": "$first, 3, 0, $tokens, 16",
}
"""Arguments of the macros that take more than runs, or one."""


def make_layer(rng: np.random.Generator) -> dict[str, Any]:
    """Random routing of one layer of ``TOKENS`` tokens: distinct experts by Gumbel top-k, weights by softmax."""
    scores = rng.gumbel(size=(TOKENS, EXPERTS)) + np.linspace(0, 2, EXPERTS)
    experts = np.argsort(-scores, axis=1)[:, :TOP_K]
    logits = np.take_along_axis(scores, experts, axis=1)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return {
        "position": np.repeat(np.arange(TOKENS), TOP_K),
        "slot": np.tile(np.arange(TOP_K), TOKENS),
        "expert": experts.reshape(-1),
        "weight": weights.reshape(-1),
        "rank": np.tile(np.arange(TOP_K), TOKENS),
    }


def measure(choices: int, threads: int, folder: Path) -> dict[str, Any]:
    """All figures of one store file in ``folder``."""
    rng = np.random.default_rng(0)
    layers = [make_layer(rng) for _ in range(LAYERS)]
    per_run = LAYERS * TOKENS * TOP_K
    runs = max(1, choices // per_run)
    path = folder / "bench.duckdb"
    store = Store.open(path, threads=threads, share=False)
    start, start_cpu = time.perf_counter(), time.process_time()
    for run in range(1, runs + 1):
        for layer, columns in enumerate(layers):
            store.write("routing", {"run": run, "step": 0, "layer": layer, "norm": None, **columns})
    store.flush()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    store.close()
    rows = runs * per_run
    return {
        "choices": rows,
        "runs": runs,
        "rows_per_second": round(rows / seconds),
        "rows_per_cpu_second": round(
            rows / cpu_seconds
        ),  # of all threads: what a loaded machine does not distort
        "bytes_per_choice": round(path.stat().st_size / rows, 2),
    }


def time_macros(choices: int, threads: int, repeats: int, over_rows: bool) -> dict[str, Any]:
    """Seconds of every table macro over a store in memory of at least ``choices`` choices, all runs together."""
    rng = np.random.default_rng(1)
    layers = [make_layer(rng) for _ in range(LAYERS)]
    runs = list(range(1, max(2, -(-choices // (LAYERS * TOKENS * TOP_K))) + 1))
    cells = {"position": np.tile(np.arange(TOKENS), LAYERS), "layer": np.repeat(np.arange(LAYERS), TOKENS)}
    store = Store.open(":memory:", threads=threads)
    for run in runs:
        at: dict[str, Any] = {"run": run, "step": 0}
        for layer, columns in enumerate(layers):
            norm = rng.random(TOKENS * TOP_K).astype(np.float32)
            store.write("routing", {**at, "layer": layer, **columns, "norm": norm})
        numbers = iter(rng.random((12, LAYERS * TOKENS)).astype(np.float32))
        router = {
            "margin": next(numbers),
            "entropy": next(numbers),
            "tie": False,
            "dropped": 0,
            "edited": False,
        }
        store.write("router", {**at, **cells, **router})
        names = ("attn_norm", "attn_cos", "mlp_norm", "mlp_cos", "block_norm", "influence")
        store.write("contribution", {**at, **cells, **{name: next(numbers) for name in names}})
        shares = {"zero_share": next(numbers), "below_share": next(numbers), "hoyer": next(numbers)}
        store.write("sparsity", {**at, **cells, "expert": -1, "width": 64, "threshold": 0.01, **shares})
        # The same beginning of every run, so that pairs of runs can be compared.
        words = np.random.default_rng(2).zipf(1.3, TOKENS) % 50_000
        store.write(
            "token", {**at, "position": np.arange(TOKENS), "token": words, "text": "word", "logprob": -2.0}
        )
        depth = {"position": np.arange(TOKENS), "layer": 5, "unit": "block", "event": "skip"}
        store.write("depth", {**at, **depth})
        heads = np.arange(16)
        ranks = {"tokens": 256, "submatrix": "sampled", "tolerance": 0.01, "rank": 40, "stable_rank": 3.0}
        store.write(
            "attention_rank",
            {**at, "layer": np.repeat(np.arange(LAYERS), 16), "head": np.tile(heads, LAYERS), **ranks},
        )
        store.write(
            "neuron_rate",
            {"run": run, "layer": 0, "expert": -1, "neuron": np.arange(4096), "rate": rng.random(4096)},
        )
        store.write(
            "cost",
            {**at, "layer": np.arange(LAYERS), "op": "moe", "flops": 1e9, "bytes": 1e6, "seconds": 0.01},
        )
    scores = list(rng.normal(size=(LAYERS * TOKENS, EXPERTS)).astype(np.float32))
    store.write("router_scores", {"run": 1, "step": 0, **cells, "scores": scores, "logits": scores})
    labels = [{"kind": "ab"[run % 2]} for run in runs]
    store.write("run", {"run": runs, "num_experts": EXPERTS, "top_k": TOP_K, "labels": labels})
    store.flush()
    ids = {"runs": str(runs), "first": "1", "second": "2", "tokens": str(TOKENS)}
    questions = {}
    for name in TABLE_MACROS:
        if name in SUMS.values():
            continue
        arguments = CALLS.get(name, "$runs")
        for word, value in ids.items():
            arguments = arguments.replace(f"${word}", value)
        questions[name] = f"FROM {name}({arguments})"
    found: dict[str, Any] = {"choices": len(runs) * LAYERS * TOKENS * TOP_K, "runs": len(runs)}
    if over_rows:
        found["seconds_over_rows"] = {name: _time(store, query, repeats) for name, query in questions.items()}
    start, start_cpu = time.perf_counter(), time.process_time()
    store.summarise()
    found["summarise"] = {
        "seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - start_cpu,
        "rows": {table: store.sql(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in SUMS},
    }  # fmt: skip
    found["seconds"] = {name: _time(store, query, repeats) for name, query in questions.items()}
    store.close()
    return found


def _time(store: Store, query: str, repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        cursor = store.cursor()
        start = time.perf_counter()
        cursor.execute(f"CREATE OR REPLACE TEMP TABLE answer AS {query}")
        seconds.append(time.perf_counter() - start)
        cursor.close()
    return round(statistics.median(seconds), 4)


def main() -> None:
    """Read the command line and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--choices", type=int, default=4_000_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--macros", type=int, nargs="*", default=[1_000_000], help="sizes, in choices, to time every macro at"
    )
    parser.add_argument("--rows", action="store_true", help="time the macros without kept sums too")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        written = measure(asked.choices, asked.threads, Path(folder))
    macros = [time_macros(size, asked.threads, asked.repeats, asked.rows) for size in asked.macros]
    model = f"{LAYERS} layers x {EXPERTS} experts, {TOP_K} a token"
    figures = [
        figure("choices written a second", model, written["rows_per_second"], "rows/s", ">= 2000000"),
        figure("choices written a CPU second", model, written["rows_per_cpu_second"], "rows/s"),
        figure("bytes a choice on disk", model, written["bytes_per_choice"], "B", "<= 6"),
    ]
    for one in macros:
        slowest = max(one["seconds"], key=one["seconds"].get)
        slow = sum(seconds >= 1 for seconds in one["seconds"].values())
        where = f"{one['choices']:,} choices, {one['runs']} runs"
        figures.append(figure(f"slowest macro ({slowest})", where, one["seconds"][slowest], "s", "<= 1"))
        figures.append(figure(f"macros of {len(one['seconds'])} above 1 s", where, slow, "macros"))
    setting = {"duckdb": duckdb.__version__, "python": platform.python_version(), "threads": asked.threads}
    publish("store", figures, setting=setting, written=written, macros=macros)


if __name__ == "__main__":
    main()
