"""The rows that describe a whole run: the run itself, its tokens, its plan and its metrics."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.errors import EditRefused
from workbench.interventions import Plan
from workbench.runtime.attach import device_of
from workbench.runtime.blobs import write_blobs
from workbench.runtime.record import Record
from workbench.runtime.run import Done, Run
from workbench.runtime.versions import versions

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench


def write_run(run: Run, logprob: Tensor, record: Record, done: Done) -> None:
    """Write ``run`` to the store of its bench; ``logprob`` [S - 1] is that of every token but the first, in nats."""
    store = run.bench.store
    size, prompt = len(run.tokens), run.prompt_tokens
    now = datetime.now(UTC).replace(tzinfo=None)
    store.write("token", {
        "run": run.id, "step": [max(0, n - prompt + 1) for n in range(size)], "position": list(range(size)),
        "token": run.tokens.numpy(), "text": list(run.texts),
        "part": ["prompt" if n < prompt else "generated" for n in range(size)], "logprob": [None, *logprob.tolist()],
    })  # fmt: skip
    for step, plan in done.plans or ((0, run.plan),):
        if plan.active:
            write_blobs(store, plan)
            store.write("plan", {"plan": [plan.hash], "json": [plan.to_json()], "created": [now]})
        store.write("run_plan", {"run": [run.id], "step": [step], "plan": [plan.hash]})
    store.write(
        "metric", {"run": run.id, "step": 0, "name": ["loss", "seconds"], "value": [run.loss, done.seconds]}
    )
    described = _model(run) | {
        "run": run.id, "parent": done.parent, "started": now, "kind": done.kind, "seed": done.seed, "text": run.text,
        "prompt": "" if run.bench.tokenizer is None else run.bench.tokenizer.decode(run.tokens[:prompt].tolist()),
        "prompt_tokens": prompt, "tokens": size, "labels": json.dumps(dict(done.labels)), "record": record.model_dump_json(),
        "versions": json.dumps(versions()),
    }  # fmt: skip
    store.write("run", {name: [value] for name, value in described.items()})


def stored_run(bench: Bench, number: int) -> Run:
    """A run of the bench's store, with what it needs to be computed again; its logits were not kept and are empty."""
    bench.store.flush()
    found = bench.sql("SELECT kind, prompt_tokens, text, labels FROM run WHERE run = ?", [number]).fetchone()
    plans = bench.sql(
        "SELECT p.json FROM run_plan AS u LEFT JOIN plan AS p USING (plan) WHERE run = ? ORDER BY step",
        [number],
    ).fetchall()
    rows = bench.sql("SELECT token, text FROM token WHERE run = ? ORDER BY position", [number]).fetchall()
    if found is None or not rows:
        raise EditRefused(f"Run {number} is not in this store.", "Name a run that was recorded here.")
    if len({text for (text,) in plans}) > 1:
        raise EditRefused(
            f"Run {number} changed its plan on the way, so it cannot be computed again in one pass.",
            "Use a run that kept one plan.",
        )
    kind, prompt_tokens, text, labels = found
    plan = Plan.from_json(plans[0][0]) if plans and plans[0][0] else Plan()
    computed = len(rows) - (kind == "generate")
    tokens = torch.tensor([token for token, _ in rows])
    return Run(
        number, tokens, torch.empty(computed, 0), float("nan"), text, tuple(text for _, text in rows), plan, prompt_tokens,
        bench, json.loads(labels or "{}"),
    )  # fmt: skip


def _model(run: Run) -> dict[str, Any]:
    """The columns that say which model ran, and how."""
    bench = run.bench
    sparse = bench.anatomy.layer(bench.anatomy.moe_layers[0]).moe if bench.anatomy.moe_layers else None
    return {
        "model": bench.name, "checkpoint": bench.checkpoint, "revision": bench.revision,
        "dtype": str(next(bench.model.parameters()).dtype).removeprefix("torch."), "device": str(device_of(bench.model)),
        "kernels": bench.kernels, "isa": bench.isa or None, "num_layers": bench.anatomy.num_layers,
        "num_experts": sparse.num_experts if sparse else None, "top_k": sparse.top_k if sparse else None,
    }  # fmt: skip
