"""What recording costs: recorded forward passes against the bare model on the same kernels, as JSON.

    python benchmarks/recording.py [--settings demo olmoe dense] [--tokens 128] [--seconds 60] [--kernels auto] [--alone]

One torch thread. Every variant makes 1 to 10 passes in a row (about 0.3 s of the bare model), in random order inside each
round; rounds go on for ``--seconds`` a process and are told on stderr as they go, so that a run that is cut off has said
something. The bare model makes as many passes before each variant and after the last: a variant's ratio in a round is to
the mean of the two beside it, since a shared machine may be half as fast again a few seconds later, and what is published
is the median over the rounds. Clocks:

* ``wall``: what a user waits for until the last run has returned (the writer works beside, on a core of its own);
* ``committed``: the same until every row is committed;
* ``cpu``: CPU time of all threads together until then, and ``own_cpu`` that of the calling thread alone: what a busy
  machine distorts least.

A long recording is timed apart, three times and between bare passes: passes without a pause, the writer at work beside
them, until the last returns and until every row is committed. Sums of ended runs, which a store makes while nothing is
recorded, are kept from being made beside all this and timed by themselves.

Plain hooks (a list of what each router returns), TransformerLens' ``run_with_cache`` and an nnsight trace stand beside
them where those packages are installed; they keep tensors in memory and write nothing.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from surroundings import DENSE, OLMOE, figure, publish

# isort: split
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import workbench as wb
from workbench.store import upkeep

SETTINGS: dict[str, Callable[[], Any]] = {
    "demo": lambda: None,
    "olmoe": lambda: AutoModelForCausalLM.from_config(AutoConfig.for_model("olmoe", **OLMOE)),
    "dense": lambda: AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **DENSE)),
}
NAMES = {"demo": "demo model", "olmoe": "1 block at OLMoE-1B-7B width", "dense": "dense 1 B width, 4 layers"}
BUDGETS = {"demo": "<= 1.25", "olmoe": "<= 1.05", "dense": "<= 1.05"}
RECORDS: dict[str, Any] = {
    "session": None,
    "routing": wb.Record(contribution=False, sparsity=False, attention_rank=False),
    "contribution": wb.Record(routing=False, sparsity=False, attention_rank=False),
    "sparsity": wb.Record(routing=False, contribution=False, attention_rank=False),
    "attention_rank": wb.Record(routing=False, contribution=False, sparsity=False),
    "record": wb.Record(),
    "record+scores": wb.Record(scores=True),
}


def plain_hooks(bench: Any, ids: torch.Tensor) -> Callable[[], None]:
    """A list of what every router (or every MLP of a dense model) returns."""
    modules = [b.moe.router if b.moe is not None else b.mlp.module for b in bench.anatomy.blocks]

    def run() -> None:
        kept: list[Any] = []
        handles = [m.register_forward_hook(lambda _m, _a, out: kept.append(out)) for m in modules]
        with torch.no_grad():
            bench.model(ids, use_cache=False)
        for handle in handles:
            handle.remove()

    return run


def transformer_lens(bench: Any, ids: torch.Tensor) -> Callable[[], None]:
    """Everything that TransformerLens' bridge caches."""
    from transformer_lens.model_bridge import TransformerBridge

    model = copy.deepcopy(bench.model)
    model.config.architectures = [type(model).__name__]
    model.set_attn_implementation("eager")
    bridge = TransformerBridge.boot_transformers(
        "local", hf_model=model, tokenizer=bench.tokenizer or _tokenizer(), device="cpu"
    )

    def run() -> None:
        with torch.no_grad():
            bridge.run_with_cache(ids)

    return run


def _tokenizer() -> Any:
    """The demo model's, for a model that has none: the bridge looks for one on the network otherwise. It is given ids."""
    with wb.open(store=":memory:") as demo:
        return demo.tokenizer


def nnsight_trace(bench: Any, ids: torch.Tensor) -> Callable[[], None]:
    """An nnsight trace that keeps what every attention, MLP and block gives."""
    from nnsight import NNsight

    traced = NNsight(copy.deepcopy(bench.model))
    count = bench.anatomy.num_layers

    def run() -> None:
        with torch.no_grad(), traced.trace(ids, use_cache=False):
            for n in range(count):
                traced.model.layers[n].self_attn.output[0].save()
                traced.model.layers[n].mlp.output.save()
                traced.model.layers[n].output.save()

    return run


PEERS: dict[str, tuple[str, Callable[[Any, torch.Tensor], Callable[[], None]]]] = {
    "TransformerLens run_with_cache": ("transformer_lens", transformer_lens),
    "nnsight trace": ("nnsight", nnsight_trace),
}


CLOCKS = ("wall", "committed", "cpu", "own_cpu")
BLOCK = 0.3
"""Seconds of the bare model that passes in a row take."""
ROUNDS = 9
"""Rounds that a process makes at least."""
PROCESSES = {"demo": 3, "olmoe": 1, "dense": 1}
"""How many processes measure a setting."""
LONG = 15.0
"""Seconds of passes without a pause in a long recording: the last commit, for which all passes wait, is a small part."""


def measure(name: str, tokens: int, seconds: float, kernels: str, peers: bool) -> dict[str, Any]:
    """Seconds a pass of every variant at one setting by each clock, and their ratios to ``bare``."""
    with (
        tempfile.TemporaryDirectory() as folder,
        wb.open(SETTINGS[name](), store=Path(folder) / "runs.duckdb", kernels=kernels) as bench,
    ):
        length = min(tokens, bench.context or tokens)
        ids = torch.randint(
            0, bench.anatomy.vocab_size, (1, length), generator=torch.Generator().manual_seed(0)
        )
        prompt = ids[0].tolist()

        def bare() -> None:
            with torch.no_grad():
                bench.model(ids, use_cache=False)

        variants: dict[str, Callable[[], Any]] = {"bare": bare, "plain hooks": plain_hooks(bench, ids)}
        for variant, record in RECORDS.items():
            variants[variant] = lambda record=record: bench.run(prompt, record=record)
        absent = [peer for peer, (package, _) in PEERS.items() if find_spec(package) is None or not peers]
        for peer, (_, make) in PEERS.items():
            if peer not in absent:
                variants[peer] = make(bench, ids)
        for run in variants.values():
            run()  # what is made once is made now
        once = min(_block(bare, bench.store.flush, 1)[3] for _ in range(3))
        runs = max(1, min(10, round(BLOCK / once)))
        _say(f"{NAMES[name]}: {length} tokens, {once * 1e3:.1f} ms a bare pass, {runs} passes in a row")
        times: dict[str, list[tuple[float, ...]]] = {variant: [] for variant in variants}
        ratios: dict[str, list[tuple[float, ...]]] = {
            variant: [] for variant in variants if variant != "bare"
        }
        flush, end = bench.store.flush, time.monotonic() + seconds
        while len(ratios["record"]) < ROUNDS or time.monotonic() < end:
            times["bare"].append(_block(bare, flush, runs))
            for variant in random.sample(list(ratios), len(ratios)):
                times[variant].append(_block(variants[variant], flush, runs))
                times["bare"].append(_block(bare, flush, runs))
                ratios[variant].append(_between(times[variant][-1], *times["bare"][-2:]))
            told = ", ".join(f"{c} {r:.3f}x" for c, r in zip(CLOCKS, _middle(ratios["record"]), strict=True))
            _say(f"  round {len(ratios['record'])}: wb.Record() {told}")
        beside, long = [_long(bare, flush, LONG / 2)], []
        for _ in range(3):
            recording = _long(variants["record"], flush, LONG)
            beside.append(_long(bare, flush, LONG / 2))
            long.append(_between(recording, *beside[-2:]))
        returned, committed = _middle(long)
        start = time.perf_counter()
        summed = bench.store.summarise()
        sums = (time.perf_counter() - start) / summed / _middle(times["bare"])[0]
        result: dict[str, Any] = {
            "setting": name, "tokens": length, "runs": runs, "rounds": len(ratios["record"]), "kernels": bench.kernels,
            "isa": bench.isa, "not_measured": absent, "long_returned_ratio": returned, "long_ratio": committed,
            "sums_ratio": sums,
        }  # fmt: skip
    _say(
        f"  long recording {returned:.3f}x until returned, {committed:.3f}x until committed; sums {sums:.3f} of a pass"
    )
    result["bare"] = {"ms": _middle(times["bare"])[0] * 1e3}
    for variant, rows in ratios.items():
        found = dict(zip(CLOCKS, _middle(rows), strict=True))
        result[variant] = {"ms": _middle(times[variant])[0] * 1e3} | {
            f"{clock}_ratio": ratio for clock, ratio in found.items()
        }
        _say(f"  {variant:32} " + "  ".join(f"{clock} {ratio:6.3f}x" for clock, ratio in found.items()))
    return result


def _process(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """:func:`measure` in a process of its own."""
    given = ["--tokens", asked.tokens, "--seconds", asked.seconds, "--kernels", asked.kernels]
    given += ["--alone"] if asked.alone else []
    command = [sys.executable, __file__, "--process", name, *map(str, given)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _median(found: list[dict[str, Any]]) -> dict[str, Any]:
    """What the processes found: medians of their numbers, and of what is no number what the first says."""
    middle: dict[str, Any] = {}
    for key, first in found[0].items():
        each = [one[key] for one in found]
        if isinstance(first, dict):
            middle[key] = _median(each)
        else:
            middle[key] = statistics.median(each) if isinstance(first, float) else first
    return middle


def _middle(rows: list[tuple[float, ...]]) -> list[float]:
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def _between(
    found: tuple[float, ...], before: tuple[float, ...], after: tuple[float, ...]
) -> tuple[float, ...]:
    """By each clock the ratio to the mean of what came before and after."""
    return tuple(2 * f / (b + a) for f, b, a in zip(found, before, after, strict=True))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _block(run: Callable[[], Any], flush: Callable[[], None], runs: int) -> tuple[float, ...]:
    flush()
    wall, cpu, own = time.perf_counter(), time.process_time(), time.thread_time()
    for _ in range(runs):
        run()
    returned, own = time.perf_counter() - wall, time.thread_time() - own
    flush()
    committed, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return returned / runs, committed / runs, cpu / runs, own / runs


def _long(run: Callable[[], Any], flush: Callable[[], None], seconds: float) -> tuple[float, ...]:
    """Seconds a pass of many without a pause, until the last has returned and until all of their rows are committed."""
    flush()
    start, runs = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        run()
        runs += 1
    returned = time.perf_counter() - start
    flush()
    return returned / runs, (time.perf_counter() - start) / runs


def main() -> None:
    """Read the command line and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["demo"])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a process goes on with rounds")
    parser.add_argument("--alone", action="store_true", help="leave out TransformerLens and nnsight")
    parser.add_argument("--kernels", default="auto")
    parser.add_argument(
        "--process", choices=SETTINGS, help="measure one setting here, and print what was found"
    )
    asked = parser.parse_args()
    if asked.process:
        torch.set_num_threads(1)
        upkeep.ENOUGH = sys.maxsize
        found = measure(asked.process, asked.tokens, asked.seconds, asked.kernels, not asked.alone)
        print(json.dumps(found))
        return
    rows = []
    for name in asked.settings:
        found = [_process(name, asked) for _ in range(PROCESSES[name])]
        rows.append(_median(found) | {"processes": found})
    figures = []
    for row in rows:
        where = f"{NAMES[row['setting']]}, {row['tokens']} tokens"
        budget = BUDGETS[row["setting"]]
        figures.append(
            figure("wb.Record(), until runs return", where, row["record"]["wall_ratio"], "x", budget)
        )
        figures.append(
            figure("wb.Record(), until rows are committed", where, row["record"]["committed_ratio"], "x")
        )
        figures.append(figure("wb.Record(), a long recording", where, row["long_ratio"], "x", budget))
        figures.append(
            figure("wb.Record(), a long recording, until runs return", where, row["long_returned_ratio"], "x")
        )
        figures.append(
            figure("sums of a run, when nothing is recorded, in bare passes", where, row["sums_ratio"], "x")
        )
        figures.append(
            figure("wb.Record(), CPU of the calling thread", where, row["record"]["own_cpu_ratio"], "x")
        )
        figures.append(figure("wb.Record(), CPU of all threads", where, row["record"]["cpu_ratio"], "x"))
        for peer in ("plain hooks", *PEERS):
            if peer in row:
                figures.append(figure(peer, where, row[peer]["wall_ratio"], "x"))
    publish("recording", figures, rows=rows)


if __name__ == "__main__":
    main()
