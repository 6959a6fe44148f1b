"""A prompt, or a batch of prompts, read in one forward pass."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from workbench.interventions import Plan
from workbench.runtime.attach import device_of
from workbench.runtime.passes import Pass
from workbench.runtime.record import Record
from workbench.runtime.run import Done, Run
from workbench.store import new_run_id

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench


def forward(
    bench: Bench,
    ids: list[list[int]],
    plans: list[Plan],
    record: Record | None,
    labels: list[Mapping[str, Any]],
) -> list[Run]:
    """Run ``ids``, the tokens of each prompt of a batch, each under its plan; shorter ones are padded behind."""
    started = time.perf_counter()
    device = device_of(bench.model)
    sizes = [len(row) for row in ids]
    width = max(sizes)
    tokens = as_tensor([row + [0] * (width - len(row)) for row in ids]).to(device)
    lengths, positions = torch.tensor(sizes, device=device), torch.arange(width, device=device)
    padded = min(sizes) < width
    valid = positions < lengths.unsqueeze(-1) if padded else None
    now = Pass(0, positions.expand(len(ids), -1), valid, lengths, tokens)
    mask = {} if valid is None else {"attention_mask": valid.long()}
    run_ids = [new_run_id() for _ in ids] if record is not None else []
    with bench.session(plans, record, labels) as session:
        session.begin(now)
        output = bench.model(input_ids=now.tokens, use_cache=False, **mask)
        recorder = None
        if record is not None:
            recorder = bench.recorder(record, run_ids)
            recorder.take(session)
    logits = output.logits.cpu() if output.logits.dtype == torch.float64 else output.logits.float().cpu()
    seconds = time.perf_counter() - started
    return [
        bench.finish(
            Done(
                run=run_ids[row] if record is not None else None, kind="forward", tokens=ids[row],
                prompt_tokens=len(ids[row]), plan=plans[row], labels=labels[row], seconds=seconds / len(ids),
                dropped={} if recorder is None else recorder.dropped.get(run_ids[row], {}),
            ),
            logits[row, : len(ids[row])].clone() if len(ids) > 1 else logits[0],
            record,
        )
        for row in range(len(ids))
    ]  # fmt: skip


def as_tensor(tokens: Sequence[Any]) -> Tensor:
    """Token ids, or rows of them, as int64. By way of numpy: torch looks at the numbers of a list one by one."""
    return torch.from_numpy(np.array(tokens, dtype=np.int64))
