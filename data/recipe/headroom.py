"""How much a better route could help: oracle paths with their controls, and a planted fault with what undoes it.

All paths are chosen at the answer token (the last of the prompt) in the last three layers.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pandas as pd

import workbench as wb
from data.recipe.text_facts import mean_of
from workbench import tasks
from workbench.experiments import choice_losses, oracle
from workbench.interventions import Plan, reroute
from workbench.runtime.bench import Bench
from workbench.tasks.item import TASKS

LAYERS = 3
WORDINGS = (0, 1, 2)  # a path is chosen on the first two and scored on the third


def chosen_levels(levels: pd.DataFrame) -> pd.DataFrame:
    """One usable level of each task with answers of one token: the one nearest to the middle of the usable range."""
    single = levels[[not TASKS[task].free_form for task in levels["task"]]]
    middle = (single["corrected"] - 0.55).abs()
    return single.loc[middle.groupby(single["task"]).idxmin()]


def last_layers(bench: Bench) -> list[int]:
    """The last layers with routers."""
    return list(bench.anatomy.moe_layers[-LAYERS:])


def oracles(bench: Bench, levels: pd.DataFrame, items: int, seed: int = 0) -> dict[str, Any]:
    """Oracle for the label, oracle for a wrong answer, and the oracle chosen on two wordings and scored on a third."""
    rng = random.Random(seed)
    asked = chosen_levels(levels)
    worded = [
        pd.concat(
            [
                tasks.load(row.task, "validation", level=row.level, n=items, variant=wording)
                for row in asked.itertuples()
            ],
            ignore_index=True,
        )
        for wording in WORDINGS
    ]
    wrong = [
        rng.choice([option for option in row.choices if option != row.answer])
        for row in worded[0].itertuples()
    ]
    worded = [table.assign(wrong=wrong) for table in worded]
    first, _, third = worded
    layers = last_layers(bench)
    for_label = oracle(bench, first, layers)
    for_wrong = oracle(bench, first, layers, target="wrong")
    across = oracle(bench, worded[:2], layers)
    across_wrong = oracle(bench, worded[:2], layers, target="wrong")
    others = [across.plans[n] for n in _another(third)]
    own = bench.evaluate(first, plans=[None, for_label.plans, for_wrong.plans])
    crossed = bench.evaluate(third, plans=[None, across.plans, others, across_wrong.plans])
    plain, label, steered = (group for _, group in own.groupby("plan_number"))
    native, same, other, carried = (group for _, group in crossed.groupby("plan_number"))
    return {
        "layers": layers,
        "levels": asked[["task", "level"]].to_dict("records"),
        "items": len(first),
        "native": _share(plain["correct"]),
        "label_oracle": _share(label["correct"]),
        "wrong_label_oracle_reaches_its_label": _share(steered["prediction"] == steered["wrong"]),
        "native_on_that_label": _share(plain["prediction"] == plain["wrong"]),
        "wrong_label_oracle_still_right": _share(steered["correct"]),
        "cross_native": _share(native["correct"]),
        "cross_oracle": _share(same["correct"]),
        "cross_other_item": _share(other["correct"]),
        "cross_wrong_label_oracle_reaches_its_label": _share(carried["prediction"] == carried["wrong"]),
        "cross_gain": mean_of(same["correct"].to_numpy(float) - native["correct"].to_numpy(float)),
        "cross_other_gain": mean_of(other["correct"].to_numpy(float) - native["correct"].to_numpy(float)),
        "loss": {
            "native": mean_of(_loss(plain)),
            "label_oracle": mean_of(_loss(label)),
            "cross_native": mean_of(_loss(native)),
            "cross_oracle": mean_of(_loss(same)),
            "cross_other_item": mean_of(_loss(other)),
        },
    }


def planted_fault(bench: Bench, levels: pd.DataFrame, items: int, seed: int = 0) -> dict[str, Any]:
    """Half of the experts exchanged among each other in the last routers at the answer token, and what it takes to undo it.

    With the fault in place, the routes of the intact router are asked for through the faulty map: its experts alone, at
    the weights that the faulty router gives them, and its experts with its weights. Beside them stand the experts that it
    chose for another item of the level and for an item of another task.
    """
    asked = chosen_levels(levels)
    table = pd.concat(
        [tasks.load(row.task, "validation", level=row.level, n=items) for row in asked.itertuples()],
        ignore_index=True,
    )
    layers = last_layers(bench)
    experts = bench.anatomy.layer(layers[0]).moe.num_experts
    exchanged = faulty_map(experts, seed)
    back = [exchanged.index(expert) for expert in range(experts)]
    fault = Plan([reroute.permute(layers, exchanged, tokens="prompt_last")])
    routes = intact_routes(bench, table, layers)
    chosen = [
        fault
        + Plan(
            [reroute.allow(layer, [back[e] for e in route[layer]], tokens="prompt_last") for layer in layers]
        )
        for route in routes
    ]
    weighed = [
        fault
        + Plan([
            reroute.force(layer, back[expert], weight=weight, tokens="prompt_last")
            for layer in layers
            for expert, weight in route[layer].items()
        ])
        for route in routes
    ]  # fmt: skip
    other_task = np.roll(np.arange(len(table)), items)  # every level has as many items
    plans = {
        "intact": None,
        "faulty": fault,
        "intact_choices": chosen,
        "intact_choices_and_weights": weighed,
        "choices_of_another_item": [chosen[n] for n in _another(table)],
        "choices_of_another_task": [chosen[n] for n in other_task],
    }
    scored = bench.evaluate(table, plans=list(plans.values()))
    groups = [group["correct"].to_numpy(float) for _, group in scored.groupby("plan_number")]
    right = dict(zip(plans, groups, strict=True))
    lost = right["intact"].mean() - right["faulty"].mean()
    return {
        "layers": layers,
        "map": exchanged,
        "items": len(table),
        "experts_shared": {
            "another_item": shared_experts(routes, _another(table)),
            "another_task": shared_experts(routes, other_task.tolist()),
        },
        "right": {name: _share(values) for name, values in right.items()},
        "lost_points": {
            key: 100 * value for key, value in mean_of(right["intact"] - right["faulty"]).items()
        },
        "recovered": {
            name: float((right[name].mean() - right["faulty"].mean()) / lost) if lost > 0 else None
            for name in list(plans)[2:]
        },
    }


def faulty_map(experts: int, seed: int) -> list[int]:
    """A permutation in which half of the experts, drawn at random, each stand for the next one of them."""
    moved = random.Random(seed).sample(range(experts), experts // 2)
    result = list(range(experts))
    for expert, instead in zip(moved, moved[1:] + moved[:1], strict=True):
        result[expert] = instead
    return result


def intact_routes(bench: Bench, table: pd.DataFrame, layers: list[int]) -> list[dict[int, dict[int, float]]]:
    """For every item, by layer, the experts that the router chose at the last token of its prompt, with their weights."""
    record = wb.Record(contribution=False, sparsity=False, attention_rank=False, layers=tuple(layers))
    runs = bench.run(table["prompt"].tolist(), record=record)
    rows = bench.sql(
        "SELECT r.run, r.layer, r.expert, r.weight FROM routing r JOIN run USING (run) "
        "WHERE r.position = run.prompt_tokens - 1"
    ).fetchall()  # fmt: skip
    found: dict[int, dict[int, dict[int, float]]] = {}
    for run, layer, expert, weight in rows:
        found.setdefault(run, {}).setdefault(layer, {})[expert] = weight
    return [found[run.id] for run in runs]


def shared_experts(routes: list[dict[int, dict[int, float]]], others: list[int]) -> float:
    """Share of the experts of each item that the item numbered beside it also uses in the same layer."""
    pairs = [
        (set(route[layer]), set(routes[other][layer]))
        for route, other in zip(routes, others, strict=True)
        for layer in route
    ]
    return sum(len(own & theirs) for own, theirs in pairs) / sum(len(own) for own, _ in pairs)


def _another(table: pd.DataFrame) -> list[int]:
    """For every row the next row of the same task and level."""
    following = np.arange(len(table))
    for rows in table.groupby(["task", "level"]).indices.values():
        following[rows] = np.roll(rows, -1)
    return following.tolist()


def _loss(scored: pd.DataFrame) -> np.ndarray:
    return choice_losses(scored["losses"], scored["choices"], scored["answer"])


def _share(right: Any) -> dict[str, float]:
    return mean_of(np.asarray(right, dtype=float))
