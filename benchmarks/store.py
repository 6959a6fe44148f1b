"""Times the store and prints JSON: rows in, bytes on disk, and every macro.

    python benchmarks/store.py [--choices 4000000] [--threads 1] [--repeats 3]

Rows are those of a model with 16 routed layers of 64 experts, 8 a token, with skewed loads and random weights, written
through ``Store.write`` as the recorder does: one call a layer of 2,048 tokens. A choice is one row of the table ``routing``.
Making the random rows is not timed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from workbench.store import Store

LAYERS, EXPERTS, TOP_K, TOKENS = 16, 64, 8, 2048
MACROS = "expert_load load_balance coactivation expert_affinity saliency route_repetition chunk_sparsity routing_map".split()


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


def measure(choices: int, threads: int, repeats: int, folder: Path) -> dict[str, Any]:
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
    store.write("run", {"run": list(range(1, runs + 1)), "num_experts": EXPERTS})
    store.flush()
    macros = {}
    for scope, ids in (("one_run", [1]), ("all_runs", list(range(1, runs + 1)))):
        macros[scope] = {name: _time(store, f"FROM {name}(?)", [ids], repeats) for name in MACROS}
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
        "macro_seconds": macros,
    }


def _time(store: Store, query: str, params: list[Any], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        cursor = store.cursor()
        start = time.perf_counter()
        cursor.execute(f"SELECT count(*) FROM ({query})", params).fetchall()
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
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(arguments.choices, arguments.threads, arguments.repeats, Path(folder))
    setting = {
        "duckdb": duckdb.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": arguments.threads,
        "layers": LAYERS,
        "experts": EXPERTS,
        "top_k": TOP_K,
    }
    print(json.dumps({"setting": setting, **figures}, indent=2))


if __name__ == "__main__":
    main()
