"""Search over masks of a fixed budget, and where the found mask stands among random masks of the same budget."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import pandas as pd

from workbench.anatomy import Anatomy
from workbench.errors import WorkbenchError
from workbench.interventions import Edit, Plan, mask, skip
from workbench.runtime.bench import Bench
from workbench.runtime.prompts import Prompt, several

Units: TypeAlias = Literal["heads", "experts", "blocks", "attentions", "mlps"]
Chosen: TypeAlias = frozenset[tuple[int, int]]
"""Units that are left out, as (layer, number); the number of a block or sublayer is 0."""

_SKIPS: dict[str, Callable[..., Edit]] = {
    "blocks": skip.block,
    "attentions": skip.attention,
    "mlps": skip.mlp,
}


@dataclass(frozen=True, eq=False)
class MaskSearch:
    """The result of :func:`search_mask`.

    Attributes
    ----------
    plan
        The best mask that was found.
    units
        What it leaves out: (layer, number).
    percentile
        Share in 0..1 of the random masks of the same budget whose loss on the held-out prompts is at least that of the found
        mask: 1 is better than all of them, 0.5 is chance.
    table
        One row a mask: ``mask`` (``none``, ``found``, ``ranked`` by its units' own losses, ``random``), ``seed`` of a random
        one, ``loss`` on the prompts of the search (NA for random masks) and ``held_out``, both in nats a token.
    tried
        Masks whose loss was measured in the search, the units alone included.
    """

    plan: Plan
    units: tuple[tuple[int, int], ...]
    percentile: float
    table: pd.DataFrame
    tried: int


def search_mask(
    bench: Bench,
    prompts: Sequence[Prompt],
    held_out: Sequence[Prompt],
    units: Units,
    budget: int,
    *,
    layers: Sequence[int] | None = None,
    swaps: int = 60,
    nulls: int = 99,
    seed: int = 0,
) -> MaskSearch:
    """Look for the ``budget`` units whose absence costs the least loss on ``prompts``.

    Every unit is left out alone, and the ``budget`` least harmful make the first mask; then ``swaps`` times one of its
    units is exchanged for another, and kept where the loss falls. The found mask and ``nulls`` masks of as many units, drawn
    uniformly without replacement, are scored on ``held_out``, which the search never saw: on its own prompts any search
    beats chance.

    Parameters
    ----------
    prompts, held_out
        Text or token ids of at least two tokens.
    units
        ``heads`` or ``experts`` (masked with zero), ``blocks``, ``attentions`` or ``mlps`` (skipped).
    budget
        How many units are left out, of all those in ``layers`` (all layers without).
    swaps, nulls, seed
        Exchanges tried, random masks, and what they are drawn from.

    Notes
    -----
    Source: the percentile in the empirical distribution of random masks of equal budget, as in Li and Talwalkar 2020,
    "Random Search and Reproducibility for Neural Architecture Search".
    """
    pool = pool_of(bench.anatomy, units, layers)
    if not 0 < budget < len(pool):
        raise WorkbenchError(
            f"A budget of {budget} of {len(pool)} {units} leaves nothing to choose.",
            f"Name one from 1 to {len(pool) - 1}.",
        )
    prompts, held_out = several(prompts), several(held_out)
    rng = random.Random(f"{seed}/{units}/{budget}")
    seen: dict[Chosen, float] = {}

    def loss(chosen: Iterable[tuple[int, int]]) -> float:
        key = frozenset(chosen)
        if key not in seen:
            seen[key] = _loss(bench, prompts, plan_of(units, key))
        return seen[key]

    alone = sorted(pool, key=lambda unit: loss([unit]))
    ranked = best = frozenset(alone[:budget])
    for _ in range(swaps):
        out, into = rng.choice(sorted(best)), rng.choice(sorted(set(pool) - best))
        other = best - {out} | {into}
        best = min((best, other), key=loss)
    plan = plan_of(units, best)
    rows: list[dict[str, Any]] = [
        {"mask": "none", "seed": None, "loss": _loss(bench, prompts, Plan()), "held_out": _loss(bench, held_out, Plan())},
        {"mask": "ranked", "seed": None, "loss": loss(ranked), "held_out": _loss(bench, held_out, plan_of(units, ranked))},
        {"mask": "found", "seed": None, "loss": loss(best), "held_out": _loss(bench, held_out, plan)},
    ]  # fmt: skip
    found = rows[-1]["held_out"]
    tried = len(seen)
    for number in range(nulls):
        drawn = random.Random(f"{seed}/null/{number}").sample(pool, budget)
        null = _loss(bench, held_out, plan_of(units, frozenset(drawn)))
        rows.append({"mask": "random", "seed": number, "loss": None, "held_out": null})
    table = pd.DataFrame(rows).astype({"seed": "Int64"})
    others = table.loc[table["mask"] == "random", "held_out"]
    percentile = float((others >= found).mean()) if nulls else float("nan")
    return MaskSearch(plan, tuple(sorted(best)), percentile, table, tried)


def pool_of(anatomy: Anatomy, units: Units, layers: Sequence[int] | None = None) -> list[tuple[int, int]]:
    """All units of a kind in ``layers``, as (layer, number)."""
    found: list[tuple[int, int]] = []
    for layer in range(anatomy.num_layers) if layers is None else layers:
        block = anatomy.layer(layer)
        count = {
            "heads": 0 if block.attention is None else block.attention.num_heads,
            "experts": 0 if block.moe is None else block.moe.num_experts,
            "blocks": 1, "attentions": int(block.attention is not None), "mlps": int(block.mlp is not None),
        }[units]  # fmt: skip
        found += [(layer, number) for number in range(count)]
    return found


def plan_of(units: Units, chosen: Iterable[tuple[int, int]]) -> Plan:
    """The plan that leaves ``chosen`` out."""
    by_layer: dict[int, list[int]] = {}
    for layer, number in sorted(chosen):
        by_layer.setdefault(layer, []).append(number)
    if units in _SKIPS:
        return Plan([_SKIPS[units](list(by_layer))] if by_layer else [])
    make = mask.heads if units == "heads" else mask.experts
    return Plan([make(layer, numbers) for layer, numbers in by_layer.items()])


def _loss(bench: Bench, prompts: Sequence[Prompt], plan: Plan) -> float:
    """Mean loss in nats a token."""
    runs = bench.run(list(prompts), plan, record=None)
    tokens = [len(run.tokens) - 1 for run in runs]
    return float(sum(run.loss * count for run, count in zip(runs, tokens, strict=True)) / sum(tokens))
