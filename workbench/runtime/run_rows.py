"""The rows that describe a whole run: the run itself, its tokens, its plan and its metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from workbench.runtime.attach import device_of
from workbench.runtime.record import Record
from workbench.runtime.run import Done, Run
from workbench.runtime.versions import versions


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
    for one in ended:
        yield "token", _tokens(one)
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
    rows = [_run(one) for one in ended]
    yield "run", {name: [row[name] for row in rows] for name in rows[0]}


def _plans(ended: Ended) -> tuple[tuple[int, Any], ...]:
    return ended.done.plans or ((0, ended.run.plan),)


def _tokens(ended: Ended) -> dict[str, Any]:
    run = ended.run
    size, prompt = len(run.tokens), run.prompt_tokens
    return {
        "run": run.id, "step": [max(0, n - prompt + 1) for n in range(size)], "position": list(range(size)),
        "token": run.tokens.numpy(), "text": list(run.texts),
        "part": ["prompt" if n < prompt else "generated" for n in range(size)],
        "logprob": [None, *run.logprob.tolist()],
    }  # fmt: skip


def _run(ended: Ended) -> dict[str, Any]:
    run, done, bench = ended.run, ended.done, ended.run.bench
    prompt = run.tokens[: run.prompt_tokens].tolist()
    sparse = bench.anatomy.layer(bench.anatomy.moe_layers[0]).moe if bench.anatomy.moe_layers else None
    return {
        "run": run.id, "parent": done.parent, "started": ended.at, "kind": done.kind, "seed": done.seed, "text": run.text,
        "prompt": "" if bench.tokenizer is None else bench.tokenizer.decode(prompt),
        "prompt_tokens": run.prompt_tokens, "tokens": len(run.tokens), "labels": json.dumps(dict(done.labels)),
        "record": ended.record.model_dump_json(), "versions": json.dumps(versions()),
        "dropped": json.dumps(dict(ended.dropped)) if ended.dropped else None,
        "model": bench.name, "checkpoint": bench.checkpoint, "revision": bench.revision,
        "dtype": str(next(bench.model.parameters()).dtype).removeprefix("torch."), "device": str(device_of(bench.model)),
        "kernels": bench.kernels, "isa": bench.isa or None, "num_layers": bench.anatomy.num_layers,
        "num_experts": sparse.num_experts if sparse else None, "top_k": sparse.top_k if sparse else None,
    }  # fmt: skip
