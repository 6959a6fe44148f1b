"""A run of the store as a Run again, so that it can be computed anew."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch

from workbench.errors import EditRefused
from workbench.interventions import Plan
from workbench.runtime.run import Run

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench


def stored_run(bench: Bench, number: int) -> Run:
    """Run ``number`` of the bench's store, with what it needs to be computed again; its logits were not kept: [S, 0]."""
    found = bench.sql("SELECT kind, prompt_tokens, labels FROM run WHERE run = ?", [number]).fetchone()
    plans = bench.sql(
        "SELECT DISTINCT p.json FROM run_plan AS u LEFT JOIN plan AS p USING (plan) WHERE run = ?", [number]
    ).fetchall()
    tokens = bench.sql("SELECT token FROM token WHERE run = ? ORDER BY position", [number]).fetchall()
    if found is None or not tokens:
        raise EditRefused(f"Run {number} is not in this store.", "Name a run that was recorded here.")
    if len(plans) > 1:
        raise EditRefused(
            f"Run {number} changed its plan on the way, so it cannot be computed again in one pass.",
            "Use a run that kept one plan.",
        )
    kind, prompt_tokens, labels = found
    plan = Plan.from_json(plans[0][0]) if plans and plans[0][0] else Plan()
    ids = torch.tensor([token for (token,) in tokens])
    computed = len(ids) - (kind == "generate")
    return Run(number, ids, torch.empty(computed, 0), plan, prompt_tokens, bench, json.loads(labels or "{}"))
