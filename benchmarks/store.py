"""Times the store and prints JSON: rows in, bytes on disk, and every macro.

    python benchmarks/store.py [--choices 16000000] [--threads 1] [--repeats 3] [--macros 1000000 100000000] [--folder DIR]
    python benchmarks/store.py --macros 100000000 --folder DIR --keep
    python benchmarks/store.py --short 2000 --macros

Rows are those of a model with 16 routed layers of 64 experts, 8 a token, with skewed loads and random weights, written
through ``Store.write``, one call a layer of 2,048 tokens. A choice is one row of the table ``routing``. Making the random
rows is not timed, and DuckDB writes with one thread, as a bench opens it. Macros are timed over all runs of a store file
(10^8 choices take about 1.5 GB in ``--folder``) with ``--threads``: their whole answer is made, and they are asked once
before, so that what they read is in memory. The sums of ended runs are kept (``Store.summarise``, whose seconds are told
beside); ``--rows`` times them over the rows alone as well. All runs have the same text, so that they can be compared; macros
that ask by token id are asked where every run has a text of its own, of 50,000 ids by Zipf's law (filling the pools with
these is timed too).
Every figure is told on stderr as it comes; a macro that takes more than ``--limit`` seconds is given up. Those that may have
to read every choice are asked a second time with ``most := 30000``, over so many tokens' worth of runs. So many runs of 64
tokens as ``--short`` says are written and summed up, for the bytes that they take.
``--keep`` leaves the stores in ``--folder``, and asks those that lie there already instead of making them anew.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from figures import figure, publish

from workbench.store import Store, pools
from workbench.store.schema import TABLE_MACROS, macro_docs
from workbench.store.summary import BLOCK_TABLES, SUMS

LAYERS, EXPERTS, TOP_K, TOKENS = 16, 64, 8, 2048
SHORT = 64
"""Tokens of a short run."""
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
BY_ID = ("context_independence", "token_specialisation")
"""Macros whose work grows with how many ids there are."""
SCANS = tuple(doc.name for doc in macro_docs() if "most := NULL" in doc.arguments)
"""Macros that can be asked over some of the runs alone: no sums of single runs answer them, and without larger ones, or for
other runs than those hold, they read every choice."""
MOST = 30_000
"""Tokens they are asked over then."""
HELPERS = (
    "unsummarised",
    "unpaired",
    "some_runs",
    "whole_blocks",
    "runs_outside",
    "pair_totals",
    "next_totals",
    "place_totals",
    "across_totals",
    "label_totals",
    "label_marks",
    "set_cells",
    "top_cells",
    "unset",
    "pool_for",
    "pool_changes",
    "changed_ids",
    "token_changes",
    "top_changes",
)
EFFECTS = ("skip_matrix", "layer_effect", "recovery_layer", "tolerable_sparsity")
"""Macros over what experiments measured, which is small whatever was recorded."""


def make_layer(rng: np.random.Generator, tokens: int = TOKENS) -> dict[str, Any]:
    """Random routing of one layer of ``tokens`` tokens: distinct experts by Gumbel top-k, weights by softmax."""
    scores = rng.gumbel(size=(tokens, EXPERTS)) + np.linspace(0, 2, EXPERTS)
    experts = np.argsort(-scores, axis=1)[:, :TOP_K]
    logits = np.take_along_axis(scores, experts, axis=1)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return {
        "position": np.repeat(np.arange(tokens), TOP_K),
        "slot": np.tile(np.arange(TOP_K), tokens),
        "expert": experts.reshape(-1),
        "weight": weights.reshape(-1),
        "rank": np.tile(np.arange(TOP_K), tokens),
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


def measure_short(runs: int, folder: Path) -> dict[str, Any]:
    """Bytes and rows of kept sums of ``runs`` runs of :data:`SHORT` tokens each, of all tables together."""
    rng = np.random.default_rng(2)
    path = folder / "short.duckdb"
    with Store.open(path, share=False) as store:
        for run in range(1, runs + 1):
            for layer in range(LAYERS):
                norm = rng.random(SHORT * TOP_K).astype(np.float32)
                store.write(
                    "routing", {"run": run, "step": 0, "layer": layer, "norm": norm, **make_layer(rng, SHORT)}
                )
        store.write(
            "run", {"run": list(range(1, runs + 1)), "num_experts": EXPERTS, "top_k": TOP_K, "tokens": SHORT}
        )
        store.flush()
        store.cursor().execute("CHECKPOINT")
        before = path.stat().st_size
        start = time.process_time()
        store.summarise()
        seconds = time.process_time() - start
        sums = _rows(store)
    choices = runs * LAYERS * SHORT * TOP_K
    return {
        "runs": runs, "tokens": SHORT, "choices": choices, "bytes_per_choice": round(before / choices, 2),
        "bytes_per_choice_with_sums": round(path.stat().st_size / choices, 2), "summarise_cpu_seconds": round(seconds, 1),
        "rows_of_sums": sums,
    }  # fmt: skip


def _rows(store: Store) -> dict[str, int]:
    """How many rows of sums there are, by table."""
    tables = (*SUMS, "set_sum", *BLOCK_TABLES, *pools.TABLES)
    return {table: store.sql(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in tables}


def time_macros(choices: int, asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds of every table macro over a store of at least ``choices`` choices, all runs together."""
    runs = list(range(1, max(2, -(-choices // (LAYERS * TOKENS * TOP_K))) + 1))
    path = folder / f"macros-{choices}.duckdb"
    made = path.exists()
    store = Store.open(path, threads=asked.threads, share=False)
    _say(f"{'asking' if made else 'making'} {len(runs)} runs")
    if not made:
        _fill(store, runs)
    every = _questions(runs)
    by_id = {name: query for name, query in every.items() if name.split(",")[0] in BY_ID}
    questions = {name: query for name, query in every.items() if name not in by_id}
    found: dict[str, Any] = {"choices": len(runs) * LAYERS * TOKENS * TOP_K, "runs": len(runs)}
    if asked.rows:
        found |= {f"{clock}_over_rows": each for clock, each in _time_all(store, questions, asked).items()}
    start, start_cpu = time.perf_counter(), time.process_time()
    summed = store.summarise()
    found["summarise"] = {
        "runs": summed, "seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - start_cpu,
        "rows": _rows(store),
    }  # fmt: skip
    _say(f"sums of {summed} runs kept in {found['summarise']['seconds']:.1f} s: {found['summarise']['rows']}")
    found |= _time_all(store, questions, asked)
    found["pool"] = _own_texts(store, runs)
    _say(f"pools of texts of their own filled in {found['pool']['seconds']:.1f} s: {found['pool']['rows']}")
    for clock, each in _time_all(store, by_id, asked).items():
        found[clock] |= each
    store.close()
    found["bytes"] = path.stat().st_size
    return found


def _questions(runs: list[int]) -> dict[str, str]:
    """A question to every macro that answers one, by its name; scans have one over some of the runs beside it."""
    ids = {"runs": str(runs), "first": "1", "second": "2", "tokens": str(TOKENS)}
    questions = {}
    for name in TABLE_MACROS:
        if name in SUMS.values() or name in (*HELPERS, *EFFECTS):
            continue
        arguments = CALLS.get(name, "$runs")
        for word, value in ids.items():
            arguments = arguments.replace(f"${word}", value)
        questions[name] = f"FROM {name}({arguments})"
        if name in SCANS:
            questions[f"{name}, most"] = f"FROM {name}({arguments}, most := {MOST})"
    return questions


def _fill(store: Store, runs: list[int]) -> None:
    """Rows of every table for ``runs``: those of the first run, with other experts in every run and layer."""
    _first_run(store)
    cursor = store.cursor()
    for table in (
        "router",
        "contribution",
        "sparsity",
        "token",
        "token_label",
        "depth",
        "attention_rank",
        "neuron_rate",
        "cost",
    ):
        cursor.execute(f"INSERT INTO {table} BY NAME SELECT f.* REPLACE (unnest($runs::BIGINT[]) AS run) FROM {table} AS f",
                       {"runs": runs[1:]})  # fmt: skip
    shifted = "(f.expert + hash($run, f.layer) % $experts) % $experts"  # other experts in every run and layer
    for run in runs[1:]:  # one after the other, as they are recorded
        cursor.execute(
            f"INSERT INTO routing BY NAME SELECT f.* REPLACE ($run AS run, {shifted} AS expert) "
            "FROM routing AS f WHERE f.run = 1",
            {"run": run, "experts": EXPERTS},
        )
    labels = [{"kind": "ab"[run % 2]} for run in runs]
    store.write(
        "run", {"run": runs, "num_experts": EXPERTS, "top_k": TOP_K, "tokens": TOKENS, "labels": labels}
    )
    store.flush()


def _first_run(store: Store) -> None:
    """Rows of every table of run 1, from which those of the others are made."""
    rng = np.random.default_rng(1)
    cells = {"position": np.tile(np.arange(TOKENS), LAYERS), "layer": np.repeat(np.arange(LAYERS), TOKENS)}
    at: dict[str, Any] = {"run": 1, "step": 0}
    for layer in range(LAYERS):
        norm = rng.random(TOKENS * TOP_K).astype(np.float32)
        store.write("routing", {**at, "layer": layer, **make_layer(rng), "norm": norm})
    numbers = iter(rng.random((12, LAYERS * TOKENS)).astype(np.float32))
    known = {"tie": False, "dropped": 0, "edited": False}
    store.write("router", {**at, **cells, "margin": next(numbers), "entropy": next(numbers), **known})
    names = ("attn_norm", "attn_cos", "mlp_norm", "mlp_cos", "block_norm", "influence")
    store.write("contribution", {**at, **cells, **{name: next(numbers) for name in names}})
    shares = {"zero_share": next(numbers), "below_share": next(numbers), "hoyer": next(numbers)}
    store.write("sparsity", {**at, **cells, "expert": -1, "width": 64, "threshold": 0.01, **shares})
    # The same tokens in every run, so that pairs of runs can be compared.
    words = rng.zipf(1.3, TOKENS) % 50_000
    store.write(
        "token", {**at, "position": np.arange(TOKENS), "token": words, "text": "word", "logprob": -2.0}
    )
    kinds = {"label": "kind", "value": np.where(words < 10, "common", "rare").tolist()}
    store.write("token_label", {"run": 1, "position": np.arange(TOKENS), **kinds})
    store.write("depth", {**at, "position": np.arange(TOKENS), "layer": 5, "unit": "block", "event": "skip"})
    ranks = {"tokens": 256, "submatrix": "sampled", "tolerance": 0.01, "rank": 40, "stable_rank": 3.0}
    heads = {"layer": np.repeat(np.arange(LAYERS), 16), "head": np.tile(np.arange(16), LAYERS)}
    store.write("attention_rank", {**at, **heads, **ranks})
    rates = {"neuron": np.arange(4096), "rate": rng.random(4096)}
    store.write("neuron_rate", {"run": 1, "layer": 0, "expert": -1, **rates})
    store.write(
        "cost", {**at, "layer": np.arange(LAYERS), "op": "moe", "flops": 1e9, "bytes": 1e6, "seconds": 0.01}
    )
    scores = list(rng.normal(size=(LAYERS * TOKENS, EXPERTS)).astype(np.float32))
    store.write("router_scores", {**at, **cells, "scores": scores, "logits": scores})
    store.flush()


def _own_texts(store: Store, runs: list[int]) -> dict[str, Any]:
    """Other tokens for every run, from 50,000 ids by Zipf's law; what it takes to fill the pools with them."""
    share = 1 / np.arange(1, 50_001)
    ids = np.random.default_rng(3).choice(50_000, len(runs) * TOKENS, p=share / share.sum())
    at = {"run": np.repeat(runs, TOKENS), "step": 0, "position": np.tile(np.arange(TOKENS), len(runs))}
    for table in ("token", "pool_run", *pools.TABLES):
        store.cursor().execute(f"DELETE FROM {table}")
    store.write("token", {**at, "token": ids, "text": "word", "logprob": -2.0})
    store.flush()
    start, start_cpu = time.perf_counter(), time.process_time()
    store.summarise([])
    return {
        "seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - start_cpu,
        "rows": {table: store.sql(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in pools.TABLES},
    }  # fmt: skip


def _time_all(
    store: Store, questions: dict[str, str], asked: argparse.Namespace
) -> dict[str, dict[str, float | None]]:
    """Wall clock and CPU time of all threads by macro; with one thread they are the same on a machine that is not busy."""
    found: dict[str, dict[str, float | None]] = {"seconds": {}, "cpu_seconds": {}}
    for name, query in questions.items():
        both = _time(store, query, asked.repeats, asked.limit)
        found["seconds"][name], found["cpu_seconds"][name] = both or (None, None)
        _say(f"  {name:40} " + ("given up" if both is None else f"{both[0]:8.3f} s, CPU {both[1]:8.3f} s"))
    return found


def _time(store: Store, query: str, repeats: int, limit: float) -> tuple[float, float] | None:
    """Median seconds by both clocks, or ``None`` where it takes longer than ``limit``.

    The first time does not count, unless it takes ten seconds: then it is the only one.
    """
    seconds: list[float] = []
    cpu_seconds: list[float] = []
    while len(seconds) < (repeats + 1 if sum(seconds) < 10 else 1):
        cursor = store.cursor()
        stop = threading.Timer(limit, cursor.interrupt)
        stop.start()
        start, start_cpu = time.perf_counter(), time.process_time()
        try:
            cursor.execute(f"CREATE OR REPLACE TEMP TABLE answer AS {query}")
        except duckdb.InterruptException:
            return None
        finally:
            stop.cancel()
            cursor.close()
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - start_cpu)
    after = slice(1 if len(seconds) > 1 else 0, None)
    return round(statistics.median(seconds[after]), 4), round(statistics.median(cpu_seconds[after]), 4)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Read the command line and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--choices", type=int, default=16_000_000)
    parser.add_argument("--threads", type=int, default=1, help="of DuckDB while macros are asked")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--macros", type=int, nargs="*", default=[1_000_000], help="sizes, in choices, to time every macro at"
    )
    parser.add_argument("--limit", type=float, default=120.0, help="seconds after which a macro is given up")
    parser.add_argument(
        "--folder", help="where the stores are made, and removed again; the system's temporary folder"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the stores in --folder, and ask those there"
    )
    parser.add_argument(
        "--short", type=int, default=2000, help="short runs whose bytes are measured; 0 for none"
    )
    parser.add_argument("--rows", action="store_true", help="time the macros without kept sums too")
    asked = parser.parse_args()
    if asked.keep and not asked.folder:
        parser.error("--keep needs a --folder")
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        written = measure(asked.choices, 1, Path(folder))
        _say(f"written: {written}")
        short = measure_short(asked.short, Path(folder)) if asked.short else None
        _say(f"short runs: {short}")
        place = Path(asked.folder if asked.keep else folder)
        macros = [time_macros(size, asked, place) for size in asked.macros]
    model = f"{LAYERS} layers x {EXPERTS} experts, {TOP_K} a token"
    figures = [
        figure("choices written a second", model, written["rows_per_second"], "rows/s", ">= 2000000"),
        figure("choices written a CPU second", model, written["rows_per_cpu_second"], "rows/s"),
        figure("bytes a choice on disk", model, written["bytes_per_choice"], "B", "<= 6"),
    ]
    if short is not None:
        where = f"{short['runs']:,} runs of {SHORT} tokens with norms, {model}"
        figures.append(figure("bytes a choice on disk", where, short["bytes_per_choice"], "B"))
        figures.append(figure("the same with kept sums", where, short["bytes_per_choice_with_sums"], "B"))
    for one in macros:
        # With one thread its CPU time is the wall clock of a machine that has nothing else to do.
        clock, unit = ("cpu_seconds", "CPU s") if asked.threads == 1 else ("seconds", "s")
        where = f"{one['choices']:,} choices, {one['runs']} runs, {asked.threads} threads"
        whole = {name: float("inf") if t is None else t for name, t in one[clock].items()}
        slow = [name for name, seconds in whole.items() if seconds >= 1]
        scans = [name for name in slow if f"{name}, most" in whole]
        others = {name: seconds for name, seconds in whole.items() if name not in scans}
        slowest = max(others, key=lambda name: others[name])
        figures.append(
            figure(
                f"slowest macro over sums or most tokens ({slowest})", where, others[slowest], unit, "<= 1"
            )
        )
        figures.append(figure(f"macros of {len(whole)} above 1 s", where, len(slow), "macros"))
        for name in scans:
            if one[clock][name] is None:  # the limit is one of the wall clock
                figures.append(figure(f"{name}, reads every choice: given up after", where, asked.limit, "s"))
            else:
                figures.append(figure(f"{name}, reads every choice", where, whole[name], unit))
    setting = {"duckdb": duckdb.__version__, "python": platform.python_version(), "threads": asked.threads}
    publish("store", figures, setting=setting, written=written, short=short, macros=macros)


if __name__ == "__main__":
    main()
