"""The rows that describe a whole run: the run itself, its tokens, its plan and its metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from workbench.runtime.attach import device_of
from workbench.runtime.record import Record
from workbench.runtime.run import Done
from workbench.runtime.versions import versions

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench


@dataclass(frozen=True)
class Ended:
    """A run that has ended; waits in the writer's queue until its rows are made.

    It holds the log-probabilities [S - 1] of its tokens and not the run, whose logits are larger than everything else that
    is recorded: the memory of one run's logits serves the next.
    """

    bench: Bench
    done: Done
    logprob: NDArray[Any]
    loss: float
    record: Record
    dropped: Mapping[str, int]
    at: datetime = field(default_factory=lambda: datetime.now(UTC).replace(tzinfo=None))

    @property
    def nbytes(self) -> int:
        """The log-probabilities of its tokens."""
        return self.logprob.nbytes

    @property
    def rows(self) -> int:
        """Its tokens."""
        return len(self.done.tokens)

    def count(self) -> dict[str, int]:
        """Rows by table."""
        plans = _plans(self)
        active = sum(1 for _, plan in plans if plan.active)
        found = {"token": self.rows, "plan": active, "run_plan": len(plans), "metric": 2, "run": 1}
        return {table: rows for table, rows in found.items() if rows}


def digest_runs(ended: Sequence[Ended]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of runs that have ended, table by table."""
    yield "token", _tokens(ended)
    plans = [(one, step, plan) for one in ended for step, plan in _plans(one)]
    active = [(one, plan) for one, _, plan in plans if plan.active]
    if active:
        yield "plan", {
            "plan": [plan.hash for _, plan in active], "json": [plan.to_json() for _, plan in active],
            "created": [one.at for one, _ in active],
        }  # fmt: skip
    yield "run_plan", {
        "run": [one.done.run for one, _, _ in plans], "step": [step for _, step, _ in plans],
        "plan": [plan.hash for _, _, plan in plans],
    }  # fmt: skip
    yield "metric", {
        "run": [one.done.run for one in ended for _ in range(2)], "step": 0, "name": ["loss", "seconds"] * len(ended),
        "value": [value for one in ended for value in (one.loss, one.done.seconds)],
    }  # fmt: skip
    benches = {key: _bench(bench) for key, bench in {id(one.bench): one.bench for one in ended}.items()}
    records = {
        key: one.model_dump_json() for key, one in {id(one.record): one.record for one in ended}.items()
    }
    rows = [_run(one, records[id(one.record)]) | benches[id(one.bench)] for one in ended]
    yield "run", {name: [row[name] for row in rows] for name in rows[0]}


def _plans(ended: Ended) -> tuple[tuple[int, Any], ...]:
    return ended.done.plans or ((0, ended.done.plan),)


def _tokens(ended: Sequence[Ended]) -> dict[str, Any]:
    sizes = [one.rows for one in ended]
    position = np.concatenate([np.arange(size, dtype=np.int32) for size in sizes])
    prompt = np.repeat([one.done.prompt_tokens for one in ended], sizes)
    tokens = np.fromiter(chain.from_iterable(one.done.tokens for one in ended), np.int64, len(position))
    logprob = np.zeros(len(position), dtype=np.float32)
    logprob[position > 0] = np.concatenate([one.logprob for one in ended])
    return {
        "run": np.repeat([one.done.run for one in ended], sizes), "step": np.maximum(0, position - prompt + 1),
        "position": position, "token": tokens, "text": _texts(ended, tokens, sizes),
        "part": pa.array(["prompt", "generated"]).take(pa.array((position >= prompt).astype(np.int8))),
        "logprob": pa.array(logprob, mask=position == 0),
    }  # fmt: skip


def _texts(ended: Sequence[Ended], tokens: NDArray[np.int64], sizes: Sequence[int]) -> pa.Array:
    """The text of every token, run by run. Each one is asked for once: what is done token by token here, the model waits
    for."""
    benches = list({id(one.bench): one.bench for one in ended}.values())
    numbers = {id(bench): number for number, bench in enumerate(benches)}
    whose = np.repeat([numbers[id(one.bench)] for one in ended], sizes)
    keys, at = np.unique(whose << 32 | tokens, return_inverse=True)
    texts = [benches[key >> 32].token_text(key & 0xFFFFFFFF) for key in keys.tolist()]
    return pa.array(texts, type=pa.string()).take(pa.array(at))


def _run(ended: Ended, record: str) -> dict[str, Any]:
    done = ended.done
    whole = np.asarray(done.tokens)  # a list is looked through number by number
    prompt = _text(ended.bench, whole[: done.prompt_tokens])
    return {
        "run": done.run, "parent": done.parent, "started": ended.at, "kind": done.kind, "seed": done.seed,
        "text": prompt if done.prompt_tokens == len(whole) else _text(ended.bench, whole), "prompt": prompt,
        "prompt_tokens": done.prompt_tokens, "tokens": len(whole), "labels": json.dumps(dict(done.labels)),
        "record": record, "dropped": json.dumps(dict(ended.dropped)) if ended.dropped else None,
    }  # fmt: skip


def _text(bench: Bench, tokens: NDArray[np.int64]) -> str:
    """The text of tokens; empty without a tokenizer."""
    return "" if bench.tokenizer is None else bench.tokenizer.decode(tokens)


def _bench(bench: Bench) -> dict[str, Any]:
    sparse = bench.anatomy.layer(bench.anatomy.moe_layers[0]).moe if bench.anatomy.moe_layers else None
    return {
        "versions": json.dumps(versions()),
        "model": bench.name, "checkpoint": bench.checkpoint, "revision": bench.revision,
        "dtype": str(next(bench.model.parameters()).dtype).removeprefix("torch."), "device": str(device_of(bench.model)),
        "kernels": bench.kernels, "isa": bench.isa or None, "num_layers": bench.anatomy.num_layers,
        "num_experts": sparse.num_experts if sparse else None, "top_k": sparse.top_k if sparse else None,
    }  # fmt: skip
