"""Crossed runs: the routes of one run on the input of another, and what each of the two accounts for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from workbench.errors import EditRefused, PromptError
from workbench.interventions import Plan, reroute
from workbench.runtime.run import Run

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench

Metric = Callable[[Run], float]


@dataclass(frozen=True)
class Crossed:
    """Four runs, two routes by two inputs, and a number of each.

    Attributes
    ----------
    runs, values
        By (whose routes, whose input): ``("a", "b")`` is input b on the routes of a.
    router
        Change of the number when only the routes become those of b: value(b, a) - value(a, a).
    expert
        Change when only the input becomes that of b, so that the same experts are given something else:
        value(a, b) - value(a, a).
    interaction
        What is left of the whole change: value(b, b) - value(a, b) - value(b, a) + value(a, a).
    """

    runs: dict[tuple[str, str], Run]
    values: dict[tuple[str, str], float]

    @property
    def router(self) -> float:
        return self.values["b", "a"] - self.values["a", "a"]

    @property
    def expert(self) -> float:
        return self.values["a", "b"] - self.values["a", "a"]

    @property
    def interaction(self) -> float:
        v = self.values
        return v["b", "b"] - v["a", "b"] - v["b", "a"] + v["a", "a"]

    def table(self) -> pd.DataFrame:
        """One row a run: ``routes``, ``input``, ``run`` (its id) and ``value``."""
        rows = [
            {"routes": routes, "input": given, "run": run.id, "value": self.values[routes, given]}
            for (routes, given), run in self.runs.items()
        ]
        return pd.DataFrame(rows)


def crossed(
    bench: Bench, a: Run, b: Run, metric: Metric | int, layers: reroute.Where, token_map: dict[int, int]
) -> Crossed:
    """Run each input on its own routes and on the other's; see :meth:`workbench.runtime.bench.Bench.crossed`."""
    for run in (a, b):
        if run.id is None:
            raise PromptError(
                "A run that was not recorded has no routes to cross.", "Run it with record=wb.Record()."
            )
        if any(isinstance(edit, reroute.Reroute) for edit in run.plan.active):
            raise EditRefused(
                f"Run {run.id} was re-routed by its plan, so it has no routes of its own to cross.",
                "Cross runs without re-routes.",
            )
    if not token_map and len(a.logits) != len(b.logits):
        raise EditRefused(
            f"The runs computed {len(a.logits)} and {len(b.logits)} tokens, so positions do not match.",
            "Give token_map={position in a: position in b}, or prompts of the same length.",
        )
    back = {there: here for here, there in token_map.items()}
    if len(back) != len(token_map):
        raise EditRefused("The token map sends two positions of a to one of b.", "Give each its own.")
    read = metric if callable(metric) else _log_probability(metric)
    runs: dict[tuple[str, str], Run] = {}
    for routes, given, source, target, mapped in (
        ("a", "a", a, a, {}), ("b", "a", b, a, token_map), ("a", "b", a, b, back), ("b", "b", b, b, {}),
    ):  # fmt: skip
        replay = reroute.replay(source, layers=layers, token_map=mapped)
        if mapped:  # tokens without a counterpart keep their own routes
            replay = reroute.replay(source, layers=layers, token_map=mapped, tokens=sorted(mapped))
        tokens = target.tokens[: len(target.logits)].tolist()
        runs[routes, given] = bench.run(tokens, Plan([*target.plan, replay]), labels=target.labels)
    return Crossed(runs, {key: float(read(run)) for key, run in runs.items()})


def _log_probability(token: int) -> Metric:
    return lambda run: float(run.logits[-1].log_softmax(-1)[token])
