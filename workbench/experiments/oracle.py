"""Oracle paths: how much better the experts of the last prompt token could be chosen by someone who knows the answer.

An oracle uses the label, so it is a bound and never a method. Alone it measures only how far the model can be steered;
so set beside it an oracle for a wrong answer (``target`` names the column), and a path that was chosen on some wordings
of an item and is scored on another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from workbench.errors import EditRefused, WorkbenchError
from workbench.interventions import Edit, Plan, reroute
from workbench.runtime.bench import Bench

MOST_SETS = 200
"""Most sets of experts that are tried without being asked for."""


@dataclass(frozen=True, eq=False)
class Paths:
    """The result of :func:`oracle`.

    ``plans`` has one plan per item, ready for ``bench.evaluate(items, plans=[plans])``. ``table`` has one row per item:
    ``item``, ``loss_before`` and ``loss_after`` (mean over the wordings of the loss among the options, nats), and one
    column ``layer_l`` per layer with the chosen experts as a tuple, or None where the router's own choice stayed.
    """

    plans: list[Plan]
    table: pd.DataFrame


def oracle(
    bench: Bench,
    items: pd.DataFrame | Sequence[pd.DataFrame],
    layers: Sequence[int],
    *,
    target: str = "answer",
    experts: Sequence[Sequence[int]] | None = None,
    progress: bool = False,
) -> Paths:
    """For every item the path through ``layers`` at the last prompt token that favours its target most, found greedily.

    Layer by layer, from the lowest, every set of experts is tried in place of the router's choice, with the weights that
    the family's rule gives it; the one with the lowest loss stays, if it is lower than with the router's own choice.

    Parameters
    ----------
    items
        Items as for ``bench.evaluate``, or several tables of the same items in different wordings, row by row: then one
        path is chosen for all wordings of an item, by their mean loss.
    layers
        Layers to choose in, with a router each.
    target
        The column that holds the option to favour.
    experts
        The sets to try; by default all sets of as many experts as the model uses, at most `MOST_SETS`.

    Notes
    -----
    The loss is that of the target among the options, ``-log(p(target) / sum of p(option))``, in nats. The number of
    last tokens run is layers x sets x items x wordings.
    """
    tables = [items] if isinstance(items, pd.DataFrame) else list(items)
    _check(tables, layers, target)
    plans = [Plan()] * len(tables[0])
    before = best = _losses(bench, tables, [plans], target, progress)[0]
    chosen: dict[int, list[tuple[int, ...] | None]] = {}
    for layer in sorted(layers):
        sets = _sets(bench, layer) if experts is None else [tuple(one) for one in experts]
        edits: list[Edit] = [reroute.allow(layer, one, tokens="prompt_last") for one in sets]
        asked = [_extended(plans, edit) for edit in edits]
        losses = _losses(bench, tables, asked, target, progress)
        winner = losses.argmin(axis=0)
        better = losses.min(axis=0) < best
        plans = [asked[w][n] if b else plans[n] for n, (w, b) in enumerate(zip(winner, better, strict=True))]
        best = np.minimum(best, losses.min(axis=0))
        chosen[layer] = [sets[w] if b else None for w, b in zip(winner, better, strict=True)]
    table = pd.DataFrame({"item": np.arange(len(plans)), "loss_before": before, "loss_after": best})
    for layer, found in chosen.items():
        table[f"layer_{layer}"] = pd.Series(found, dtype=object)
    return Paths(plans, table)


def choice_losses(losses: pd.Series, choices: pd.Series, target: pd.Series) -> np.ndarray:
    """Loss in nats of each item's target among its options, from the ``losses`` of ``bench.evaluate``."""
    return np.array([
        np.logaddexp.reduce(-np.array(loss)) + loss[list(options).index(wanted)]
        for loss, options, wanted in zip(losses, choices, target, strict=True)
    ])  # fmt: skip


def _check(tables: list[pd.DataFrame], layers: Sequence[int], target: str) -> None:
    if not tables or not len(tables[0]) or len({len(table) for table in tables}) > 1:
        raise WorkbenchError(
            "An oracle needs items, and as many in every wording.",
            "Load the wordings with the same arguments.",
        )
    if not layers:
        raise WorkbenchError("No layer is given to choose experts in.", "Name at least one layer.")
    for table in tables:
        if target not in table:
            raise WorkbenchError(
                f"The items have no column {target!r}.", "Name the column of the wanted answer."
            )
        if any(
            wanted not in options for wanted, options in zip(table[target], table["choices"], strict=True)
        ):
            raise WorkbenchError(
                f"Some item's {target} is not among its choices.", "Every target must be one of the options."
            )


def _sets(bench: Bench, layer: int) -> list[tuple[int, ...]]:
    """All sets of as many experts as a token of ``layer`` uses."""
    moe = bench.anatomy.layer(layer).moe
    if moe is None:
        raise EditRefused(f"Layer {layer} has no router.", "Choose layers with experts.")
    found = list(combinations(range(moe.num_experts), moe.top_k))
    if len(found) > MOST_SETS:
        raise WorkbenchError(
            f"Layer {layer} has {len(found)} sets of {moe.top_k} experts, more than the {MOST_SETS} tried by default.",
            "Name the sets to try with experts.",
        )
    return found


def _extended(plans: list[Plan], edit: Edit) -> list[Plan]:
    """Every plan with one more edit; equal plans stay one object, so that they are checked once."""
    known: dict[int, Plan] = {}
    return [
        known.setdefault(id(plan), plan + edit) if id(plan) not in known else known[id(plan)]
        for plan in plans
    ]


def _losses(
    bench: Bench, tables: list[pd.DataFrame], columns: list[list[Plan]], target: str, progress: bool
) -> np.ndarray:
    """Mean over wordings of the loss of the target [columns, items]."""
    total = np.zeros((len(columns), len(tables[0])))
    for table in tables:
        scored = bench.evaluate(table, plans=columns, progress=progress)
        losses = choice_losses(scored["losses"], scored["choices"], scored[target])
        total += losses.reshape(len(columns), -1)
    return total / len(tables)
