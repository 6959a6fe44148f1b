"""A sweep: every prompt under every plan and its random controls, recorded, in one table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workbench.errors import PlanError
from workbench.experiments.controls import matched_random, require_controls
from workbench.experiments.experiment import start
from workbench.interventions import Edit, Plan
from workbench.runtime.bench import Bench
from workbench.runtime.prompts import Prompt, several
from workbench.runtime.record import Record
from workbench.runtime.run import Run


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
    plans: Mapping[str, Plan | Edit],
    *,
    name: str = "sweep",
    controls: int = 0,
    seed: int = 0,
    record: Record | None = None,
) -> Sweep:
    """Run every prompt under no plan, under every plan of ``plans`` (by name) and under ``controls`` matched random
    plans of each, and compare with no plan. Where only a run knows how much a plan changes, the controls of a prompt change
    as much as the plan did there (:func:`matched_random`).

    Runs are recorded with ``record`` (routing alone by default) and labelled with experiment, plan and control, so that
    SQL finds them.

    Raises
    ------
    PromptError
        ``prompts`` is not a list of prompts.
    PlanError, EditRefused
        ``plans`` are no plans by name, or one of them cannot act on this model or has no control.
    """
    prompts = several(prompts)
    if not isinstance(plans, Mapping) or not plans or "base" in plans:
        raise PlanError(
            "A sweep needs named plans, none of them called 'base'.", 'Give {"name": wb.Plan([...])}.'
        )
    named = {key: Plan.of(plan) for key, plan in plans.items()}
    chosen = record or Record(contribution=False, sparsity=False, attention_rank=False)
    for plan in named.values():
        plan.check(bench.anatomy)
        if controls:
            require_controls(plan)
    config = {"plans": {key: json.loads(plan.to_json()) for key, plan in named.items()}, "controls": controls,
              "seed": seed, "prompts": len(prompts)}  # fmt: skip
    experiment = start(bench, name, config)
    rows: list[dict[str, Any]] = []
    for number, prompt in enumerate(prompts):
        rows.extend(_Prompt(bench, number, prompt, chosen, experiment).rows(named, controls, seed))
    table = pd.DataFrame(rows).astype({"control": "Int64"})
    return Sweep(experiment, table)


class _Prompt:
    """The runs of one prompt, compared with no plan."""

    def __init__(self, bench: Bench, number: int, prompt: Prompt, record: Record, experiment: int) -> None:
        self._bench, self._number, self._prompt = bench, number, prompt
        self._record, self._experiment = record, experiment
        self._base: Run | None = None

    def rows(self, plans: Mapping[str, Plan], controls: int, seed: int) -> Iterator[dict[str, Any]]:
        """One row a plan and control, no plan first."""
        yield self._row("base", None, Plan())[0]
        for name, plan in plans.items():
            row, run = self._row(name, None, plan)
            yield row
            for n in range(controls):
                control = matched_random(run.plan, self._bench.anatomy, seed + n, like=run)
                yield self._row(name, n, control)[0]

    def _row(self, name: str, control: int | None, plan: Plan) -> tuple[dict[str, Any], Run]:
        labels = {"experiment": str(self._experiment), "plan": name, "control": control}
        run = self._bench.run(self._prompt, plan, record=self._record, labels=labels)
        base = self._base = run if self._base is None else self._base
        diff = self._bench.diff(base, run)
        return {
            "prompt": self._number, "plan": name, "control": control, "hash": plan.hash, "run": run.id, "loss": run.loss,
            "loss_change": run.loss - base.loss, "kl": float(diff.kl.mean()), "flips": len(diff.flips),
        }, run  # fmt: skip
