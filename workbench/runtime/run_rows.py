"""The rows that describe a whole run: the run itself, its tokens, its plan and its metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from workbench.runtime.attach import device_of
from workbench.runtime.record import Record
from workbench.runtime.run import Done, Run
from workbench.runtime.versions import versions

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench


@dataclass(frozen=True)
class Ended:
    """A run that has ended; waits in the writer's queue until its rows are made."""

    run: Run
    done: Done
    record: Record
    dropped: Mapping[str, int]
    at: datetime = field(default_factory=lambda: datetime.now(UTC).replace(tzinfo=None))

    @property
    def nbytes(self) -> int:
        """The logits, from which the log-probabilities of the tokens are computed."""
        return self.run.logits.numel() * self.run.logits.element_size()

    @property
    def rows(self) -> int:
        """Its tokens."""
        return len(self.run.tokens)

    def count(self) -> dict[str, int]:
        """Rows by table."""
        plans = _plans(self)
        active = sum(1 for _, plan in plans if plan.active)
        found = {"token": self.rows, "plan": active, "run_plan": len(plans), "metric": 2, "run": 1}
        return {table: rows for table, rows in found.items() if rows}


def digest_runs(ended: Sequence[Ended]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of runs that have ended, table by table."""
    yield "token", _tokens([one.run for one in ended])
    plans = [(one, step, plan) for one in ended for step, plan in _plans(one)]
    active = [(one, plan) for one, _, plan in plans if plan.active]
    if active:
        yield "plan", {
            "plan": [plan.hash for _, plan in active], "json": [plan.to_json() for _, plan in active],
            "created": [one.at for one, _ in active],
        }  # fmt: skip
    yield "run_plan", {
        "run": [one.run.id for one, _, _ in plans], "step": [step for _, step, _ in plans],
        "plan": [plan.hash for _, _, plan in plans],
    }  # fmt: skip
    yield "metric", {
        "run": [one.run.id for one in ended for _ in range(2)], "step": 0, "name": ["loss", "seconds"] * len(ended),
        "value": [value for one in ended for value in (one.run.loss, one.done.seconds)],
    }  # fmt: skip
    benches = {id(one.run.bench): _bench(one.run.bench) for one in ended}
    records = {id(one.record): one.record.model_dump_json() for one in ended}
    rows = [_run(one, records[id(one.record)]) | benches[id(one.run.bench)] for one in ended]
    yield "run", {name: [row[name] for row in rows] for name in rows[0]}


def _plans(ended: Ended) -> tuple[tuple[int, Any], ...]:
    return ended.done.plans or ((0, ended.run.plan),)


def _tokens(runs: Sequence[Run]) -> dict[str, Any]:
    sizes = [len(run.tokens) for run in runs]
    position = np.concatenate([np.arange(size, dtype=np.int32) for size in sizes])
    prompt = np.repeat([run.prompt_tokens for run in runs], sizes)
    logprob = np.zeros(len(position), dtype=np.float32)
    logprob[position > 0] = np.concatenate([run.logprob.numpy() for run in runs])
    return {
        "run": np.repeat([run.id for run in runs], sizes), "step": np.maximum(0, position - prompt + 1),
        "position": position, "token": np.concatenate([run.tokens.numpy() for run in runs]),
        "text": pa.concat_arrays([_texts(run) for run in runs]),
        "part": pa.array(["prompt", "generated"]).take(pa.array((position >= prompt).astype(np.int8))),
        "logprob": pa.array(logprob, mask=position == 0),
    }  # fmt: skip


def _texts(run: Run) -> pa.Array:
    """The text of every token. Each one is asked for once: what is done token by token here, the model waits for."""
    ids, at = np.unique(run.tokens.numpy(), return_inverse=True)
    return pa.array([run.bench.token_text(one) for one in ids.tolist()], type=pa.string()).take(pa.array(at))


def _run(ended: Ended, record: str) -> dict[str, Any]:
    run, done, tokenizer = ended.run, ended.done, ended.run.bench.tokenizer
    prompt = run.tokens[: run.prompt_tokens].tolist()
    text = "" if tokenizer is None else tokenizer.decode(prompt)
    return {
        "run": run.id, "parent": done.parent, "started": ended.at, "kind": done.kind, "seed": done.seed,
        "text": text if run.prompt_tokens == len(run.tokens) else run.text, "prompt": text,
        "prompt_tokens": run.prompt_tokens, "tokens": len(run.tokens), "labels": json.dumps(dict(done.labels)),
        "record": record, "dropped": json.dumps(dict(ended.dropped)) if ended.dropped else None,
    }  # fmt: skip


def _bench(bench: Bench) -> dict[str, Any]:
    sparse = bench.anatomy.layer(bench.anatomy.moe_layers[0]).moe if bench.anatomy.moe_layers else None
    return {
        "versions": json.dumps(versions()),
        "model": bench.name, "checkpoint": bench.checkpoint, "revision": bench.revision,
        "dtype": str(next(bench.model.parameters()).dtype).removeprefix("torch."), "device": str(device_of(bench.model)),
        "kernels": bench.kernels, "isa": bench.isa or None, "num_layers": bench.anatomy.num_layers,
        "num_experts": sparse.num_experts if sparse else None, "top_k": sparse.top_k if sparse else None,
    }  # fmt: skip
