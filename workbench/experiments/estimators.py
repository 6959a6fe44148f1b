"""An estimator of attention masks between the best that its density allows and chance."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from workbench.experiments.controls import matched_random
from workbench.interventions import Plan, mask
from workbench.runtime.bench import Bench
from workbench.runtime.prompts import Prompt, several
from workbench.runtime.record import Record
from workbench.runtime.run import Run

_COLUMNS = ["layer", "head", "density", "recall", "error"]


def beside_oracle(
    bench: Bench, prompts: Sequence[Prompt], edit: mask.AttentionMask, seeds: Sequence[int] = (0, 1, 2)
) -> pd.DataFrame:
    """What ``edit`` keeps of the attention maps of ``prompts``, beside an oracle and random masks of its density.

    The oracle keeps the blocks with the most attention, which it knows; the random masks draw theirs by ``seeds``. Both keep
    the share of blocks that the edit says, or else what it kept, layer by layer (:func:`matched_random`).

    One row a prompt, mask, layer and head: ``mask`` (``estimator``, ``oracle``, ``random``), ``seed`` (NA but for random
    masks), ``density``, ``recall`` (``exp(lse masked - lse)``), ``error`` (relative, of the head's output) and ``loss`` of
    the whole run, in nats a token.
    """
    record = Record(routing=False, contribution=False, sparsity=False, attention_rank=False)
    parts = []
    for number, prompt in enumerate(several(prompts)):
        run = bench.run(prompt, edit, record=record)
        plans: list[tuple[str, int | None, Plan]] = [
            ("random", seed, matched_random(run.plan, bench.anatomy, seed, like=run)) for seed in seeds
        ]
        drawn = matched_random(run.plan, bench.anatomy, 0, like=run)
        plans.append(("oracle", None, Plan(one.model_copy(update={"pattern": "oracle"}) for one in drawn)))
        runs: list[tuple[str, int | None, Run]] = [("estimator", None, run)]
        runs += [(name, seed, bench.run(prompt, plan, record=record)) for name, seed, plan in plans]
        for name, seed, each in runs:
            told = bench.sql("FROM attention_recall(?)", [each.id]).df()[_COLUMNS]
            parts.append(told.assign(prompt=number, mask=name, seed=seed, loss=each.loss))
    return pd.concat(parts, ignore_index=True).astype({"seed": "Int64"})
