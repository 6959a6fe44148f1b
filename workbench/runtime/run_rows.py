"""The rows that describe a whole run: the run itself, its tokens, its plan and its metrics."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from torch import Tensor

from workbench.runtime.attach import device_of
from workbench.runtime.record import Record
from workbench.runtime.run import Done, Run
from workbench.runtime.versions import versions


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
