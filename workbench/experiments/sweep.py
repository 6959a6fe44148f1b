"""A sweep: every prompt under every plan and its random controls, recorded, in one table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workbench.errors import PlanError
from workbench.experiments.controls import matched_random
from workbench.experiments.experiment import start
from workbench.interventions import Plan
from workbench.runtime.bench import Bench
from workbench.runtime.prompts import Prompt
from workbench.runtime.record import Record


@dataclass(frozen=True, eq=False)
class Sweep:
    """The result of :func:`sweep`.

    ``experiment`` is its id in the store (every run carries it in ``labels.experiment``), ``table`` has one row per
    prompt and plan: ``prompt``, ``plan`` (its name; ``base`` is no plan), ``control`` (number of the random control, or
    NA for the plan itself), ``hash``, ``run``, ``loss`` (nats), ``loss_change`` against base, ``kl`` (mean over positions of
    KL(base || plan), nats) and ``flips`` (token-layer choices whose set of experts differs from base).
    """

    experiment: int
    table: pd.DataFrame

    def summary(self) -> pd.DataFrame:
        """Mean change by plan, beside the mean and the range of its random controls."""
        plans = self.table[self.table["plan"] != "base"]
        own = plans[plans["control"].isna()].groupby("plan")[["loss_change", "kl", "flips"]].mean()
        if plans["control"].notna().any():
            each = plans.dropna(subset="control").groupby(["plan", "control"])[["loss_change", "kl"]].mean()
            grouped = each.groupby("plan")
            own = own.join(grouped.mean().add_prefix("random_"))
            own = own.join(grouped["loss_change"].agg(random_loss_low="min", random_loss_high="max"))
        return own.reset_index()


def sweep(
    bench: Bench,
    prompts: Sequence[Prompt],
    plans: Mapping[str, Plan],
    *,
    name: str = "sweep",
    controls: int = 0,
    seed: int = 0,
    record: Record | None = None,
) -> Sweep:
    """Run every prompt under no plan, under every plan of ``plans`` (by name) and under ``controls`` matched random
    plans of each, and compare with no plan.

    Runs are recorded with ``record`` (routing alone by default) and labelled with experiment, plan and control, so that
    SQL finds them.
    """
    if not plans or "base" in plans:
        raise PlanError(
            "A sweep needs named plans, none of them called 'base'.", 'Give {"name": wb.Plan([...])}.'
        )
    chosen = record or Record(contribution=False, sparsity=False, attention_rank=False)
    named: list[tuple[str, int | None, Plan]] = [("base", None, Plan())]
    for key, plan in plans.items():
        plan.check(bench.anatomy)
        named.append((key, None, plan))
        named.extend((key, n, matched_random(plan, bench.anatomy, seed + n)) for n in range(controls))
    config = {"plans": {key: json.loads(plan.to_json()) for key, plan in plans.items()}, "controls": controls,
              "seed": seed, "prompts": len(prompts)}  # fmt: skip
    experiment = start(bench, name, config)
    rows: list[dict[str, Any]] = []
    for number, prompt in enumerate(prompts):
        rows.extend(_prompt_rows(bench, number, prompt, named, chosen, experiment))
    table = pd.DataFrame(rows).astype({"control": "Int64"})
    return Sweep(experiment, table)


def _prompt_rows(
    bench: Bench, number: int, prompt: Prompt, named: list[tuple[str, int | None, Plan]], record: Record, experiment: int
) -> list[dict[str, Any]]:  # fmt: skip
    rows = []
    base = None
    for name, control, plan in named:
        labels = {"experiment": str(experiment), "plan": name, "control": control}
        run = bench.run(prompt, plan, record=record, labels=labels)
        base = run if base is None else base
        diff = bench.diff(base, run)
        rows.append({
            "prompt": number, "plan": name, "control": control, "hash": plan.hash, "run": run.id, "loss": run.loss,
            "loss_change": run.loss - base.loss, "kl": float(diff.kl.mean()), "flips": len(diff.flips),
        })  # fmt: skip
    return rows
