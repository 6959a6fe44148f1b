"""What a model does with held-out text, from recorded runs: loss, load, what experts know of the domain, ARank."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

import workbench as wb
from data.recipe.corpus import DOMAINS
from data.recipe.information import Choices, about_label, about_label_at_token
from data.recipe.stream import TextSource
from workbench import tasks
from workbench.interventions import Plan, reroute
from workbench.runtime.bench import Bench

LABELS = (*DOMAINS, "tasks")
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Rows:
    """Held-out rows of token ids with the number of their domain in `LABELS` and, for tasks, the task's name."""

    ids: list[list[int]]
    domain: np.ndarray
    task: list[str]
    answer_tokens: list[int]  # tokens at the end of a row whose loss counts; for text all but the first


def held_out(bench: Bench, rows: int, length: int, per_level: int, split: str = "validation") -> Rows:
    """``rows`` windows of ``length`` tokens of every text domain, and ``per_level`` items of every task level."""
    rng = random.Random(f"{split}/0")
    text = TextSource(split)
    ids: list[list[int]] = []
    domain, task, answers = [], [], []
    for number in range(len(DOMAINS)):
        found = 0
        while found < rows:
            window = text.window(number, rng, length)
            if len(window) == length:
                ids.append(window.tolist())
                domain.append(number)
                task.append("")
                answers.append(length - 1)
                found += 1
    for name in tasks.names():
        for item in tasks.load(name, split=split, n=per_level).itertuples():
            prompt, answer = bench.tokenizer([item.prompt, item.answer])["input_ids"]
            ids.append(prompt + answer)
            domain.append(len(DOMAINS))
            task.append(name)
            answers.append(len(answer))
    return Rows(ids, np.array(domain), task, answers)


def losses(bench: Bench, data: Rows, plan: Plan | None = None) -> np.ndarray:
    """Mean loss of every row in nats per token, over the tokens that count."""
    found = []
    for run, counted in zip(bench.run(data.ids, plan, record=None), data.answer_tokens, strict=True):
        log_p = run.logits[-counted - 1 : -1].log_softmax(-1)
        found.append(-float(log_p.gather(-1, run.tokens[-counted:, None]).mean()))
    return np.array(found)


def by_domain(values: np.ndarray, data: Rows) -> dict[str, dict[str, float]]:
    """Mean and half-width of the 95 % interval over rows, by domain."""
    return {name: mean_of(values[data.domain == number]) for number, name in enumerate(LABELS)}


def mean_of(values: np.ndarray) -> dict[str, float]:
    """Mean and half-width of its 95 % interval, by the normal approximation."""
    return {"mean": float(values.mean()), "half_width": float(1.96 * values.std(ddof=1) / len(values) ** 0.5)}


def measure(bench: Bench, rows: int = 24, length: int = 192, per_level: int = 3) -> dict[str, Any]:
    """Everything of this file, as numbers for the datasheet."""
    data = held_out(bench, rows, length, per_level)
    plain = losses(bench, data)
    moe = bench.anatomy.layer(bench.anatomy.moe_layers[0]).moe
    scrambled = plain  # where every expert is chosen there is nothing to scramble
    if moe.top_k < moe.num_experts:
        plans = [Plan([reroute.random("all", seed=seed)]) for seed in SEEDS]
        scrambled = np.mean([losses(bench, data, plan) for plan in plans], axis=0)
    texts = int((data.domain < len(DOMAINS)).sum())
    runs = bench.run(data.ids[:texts], record=wb.Record(contribution=False, sparsity=False, rank_tokens=256))
    runs += bench.run(
        data.ids[texts:], record=wb.Record(contribution=False, sparsity=False, attention_rank=False)
    )
    numbers = [run.id for run in runs]
    return {
        "rows_per_domain": rows,
        "row_length": length,
        "loss": by_domain(plain, data),
        "random_routing_cost": by_domain(scrambled - plain, data),
        "random_routing_seeds": len(SEEDS),
        "load": load(bench, numbers, data).to_dict("list"),
        "information": knowledge(bench, numbers, data),
        "attention_rank": bench.sql(
            "SELECT layer, avg(rank / tokens) AS share, avg(stable_rank) AS stable_rank, "
            "avg(effective_rank / tokens) AS effective_share, avg(entropy) AS entropy, min(tolerance) AS tolerance, "
            "min(tokens) AS tokens, count(*) AS maps FROM attention_rank "
            "WHERE run IN (SELECT unnest(?)) GROUP BY layer ORDER BY layer", [numbers],
        ).df().to_dict("records"),
    }  # fmt: skip


def load(bench: Bench, runs: list[int], data: Rows) -> pd.DataFrame:
    """Share of the choices by layer and expert, every domain counted alike and first tokens left out."""
    names = pd.DataFrame({"run": runs, "domain": data.domain})
    counted = bench.sql(
        "SELECT run, layer, expert, count(*) AS choices FROM routing "
        "WHERE position > 0 AND run IN (SELECT unnest(?)) GROUP BY ALL",
        [runs],
    ).df()
    table = counted.merge(names, on="run").groupby(["domain", "layer", "expert"])["choices"].sum()
    share = table / table.groupby(["domain", "layer"]).transform("sum")
    shares = share.unstack(fill_value=0.0).stack().groupby(["layer", "expert"]).mean()
    return shares.rename("share").reset_index()


def knowledge(bench: Bench, runs: list[int], data: Rows) -> list[dict[str, Any]]:
    """By layer: bits of a chosen expert about the domain, about the domain at fixed token identity, about the task, and
    about the task at the answer mark, which is the same token in every task."""
    experts = bench.anatomy.layer(bench.anatomy.moe_layers[0]).moe.num_experts
    order = pd.Series(range(len(runs)), index=runs)
    frame = bench.sql(
        "SELECT r.run, r.layer, r.position, t.token, r.expert FROM routing r JOIN token t USING (run, position) "
        "WHERE r.position > 0 AND r.run IN (SELECT unnest(?))",
        [runs],
    ).df()  # fmt: skip
    frame["row"] = frame["run"].map(order)
    task = np.unique(data.task, return_inverse=True)[1]
    of_tasks = np.array([bool(name) for name in data.task])
    last = pd.Series(
        [len(ids) - counted - 1 for ids, counted in zip(data.ids, data.answer_tokens, strict=True)]
    )
    result = []
    for layer, own in frame.groupby("layer"):
        asked = own[of_tasks[own["row"]]]
        mark = asked[asked["position"].to_numpy() == last[asked["row"]].to_numpy()]
        result.append({
            "layer": int(layer),
            "domain": about_label(*_labelled(own, data.domain), experts),
            "domain_at_token": about_label_at_token(*_labelled(own, data.domain), experts),
            "task": about_label(*_labelled(asked, task), experts),
            "task_at_answer_mark": about_label(*_labelled(mark, task), experts),
        })  # fmt: skip
    return result


def _labelled(frame: pd.DataFrame, label: np.ndarray) -> tuple[Choices, np.ndarray]:
    """The choices of a frame, with the rows that occur in it numbered from 0, and the labels of these rows."""
    kept, row = np.unique(frame["row"].to_numpy(), return_inverse=True)
    return Choices(row, frame["token"].to_numpy(), frame["expert"].to_numpy()), label[kept]
