"""Quality against work for every family of skip and mask on the demo model, beside matched random controls, as JSON.

    python benchmarks/quality.py > benchmarks/results/quality.json    # some minutes of one core
    python benchmarks/quality_page.py                                 # the table and the picture of it

Every rule stands at several budgets. Its controls leave as much of the same work out at random, under ``--seeds`` seeds.
A row is one plan on the same texts and items: ``budget`` (share of the work by the rule's own arithmetic), ``work`` (share
counted by what ran), ``time`` (processor time over that of the bare model), ``change`` (loss in nats a token against no
plan) and ``points`` (accuracy against no plan, on one-token items), each with a 95 % interval; ``better`` is the loss
against the controls of the same budget, negative where the rule is better than chance. ``claims`` says which of the
training-free methods do what their papers say, decided from these rows by rule.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from surroundings import figure, publish

# isort: split
import pandas as pd

import workbench as wb
from benchmarks.quality_cases import Case, Family, Measured, families
from benchmarks.quality_claims import claims
from benchmarks.quality_parts import Ground, Outcome, change, ground, measure, points, work_of
from workbench.experiments.depth_router import layers_by_rank

DEPTH = ("block", "attn", "mlp")
"""Operations of which only the layers that an edit decides for have rows."""


def known_of(bench: Any, on: Ground) -> Measured:
    """What the rules that look at the model need, from the calibration texts."""
    runs = bench.run(on.calibration, record=wb.Record(routing=False, sparsity=False))
    ids = [run.id for run in runs]
    parts = bench.sql(
        "SELECT layer, avg(influence) AS influence, avg(attn_norm) AS attention, avg(mlp_norm) AS mlp "
        "FROM contribution WHERE list_contains(?, run) AND position > 0 GROUP BY layer ORDER BY layer",
        [ids],
    ).df()
    order = layers_by_rank(bench, on.calibration, bench.anatomy.num_layers)
    shares = bench.sql("FROM arank_profile(?)", [ids]).df().groupby("layer")["share"].mean()
    rank = [float(shares[n]) if n in order else float("inf") for n in range(bench.anatomy.num_layers)]
    return Measured(
        bench.calibrate(on.calibration),
        list(parts["influence"]),
        list(parts["attention"]),
        list(parts["mlp"]),
        rank,
    )


def rows_of(
    bench: Any, on: Ground, family: Family, seeds: int, told: Any
) -> tuple[list[dict[str, Any]], dict[Any, Outcome]]:
    """The measured rows of a family, and the outcomes by (method, number of the case)."""
    layers = bench.anatomy.num_layers if family.op in DEPTH else None
    base = measure(bench, on, None, None, grows=family.grows)

    def of(edit: Any) -> Outcome:
        return measure(bench, on, edit, family.op, layers, family.grows)

    controls: dict[float, list[Outcome]] = {}
    rows: list[dict[str, Any]] = []
    outcomes: dict[Any, Outcome] = {}
    for number, case in enumerate(family.cases):
        found = outcomes[family.name, case.method, number] = of(case.edit)
        budget = round(case.budget if case.budget is not None else found.work or 0.0, 4)
        if budget not in controls:
            aim = budget
            if case.budget is None and not family.grows:
                # A control that keeps at least some blocks of every row does a little more than it is asked for.
                more = (work_of(bench, on, family.control(budget, 0), family.op, layers) or budget) - budget
                aim = min(1.0, max(0.01, budget - more))
            controls[budget] = [of(family.control(aim, seed)) for seed in range(seeds)]
            for seed, control in enumerate(controls[budget]):
                rows.append(
                    _row(Case(family.name, "random", budget, None, seed), budget, control, base, None)
                )
        rows.append(_row(case, budget, found, base, controls[budget]) | {"number": number})
        told(f"{family.name}, {case.method}, {budget:.2f}: {rows[-1]['change']:+.3f} nats")
    return rows, outcomes


def _row(
    case: Case, budget: float, found: Outcome, base: Outcome, controls: list[Outcome] | None
) -> dict[str, Any]:
    accuracy = float(found.right.mean()) if len(found.right) else None
    row: dict[str, Any] = {
        "family": case.family, "method": case.method, "control": case.seed is not None, "seed": case.seed,
        "budget": budget, "work": found.work, "time": found.time, "accuracy": accuracy,
    }  # fmt: skip
    measures = {"change": change(found, [base]), "points": points(found, [base])}
    if controls is not None:
        measures |= {"better": change(found, controls), "better_points": points(found, controls)}
    row |= found.kept
    for name, (value, low, high) in measures.items():
        row |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return row


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--texts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--items", type=int, default=8, help="of each task")
    parser.add_argument("--seeds", type=int, default=2, help="random controls of each budget")
    parser.add_argument(
        "--block", type=int, default=16, choices=(16, 32, 64, 128), help="of the attention map"
    )
    parser.add_argument("--families", nargs="+", help="only those whose name holds one of these words")
    given = parser.parse_args()
    started = time.process_time()
    with wb.open(store=":memory:") as bench:
        on = ground(bench, given.texts, given.tokens, given.items)
        rows: list[dict[str, Any]] = []
        outcomes: dict[Any, Outcome] = {}
        for family in families(bench, known_of(bench, on), given.block):
            if given.families and not any(word in family.name for word in given.families):
                continue
            some, found = rows_of(bench, on, family, given.seeds, lambda line: print(line, file=sys.stderr))
            rows += some
            outcomes |= found
        base = measure(bench, on, None, None)
        about = {"model": bench.name, "checkpoint": bench.checkpoint, "layers": bench.anatomy.num_layers}
    frame = pd.DataFrame(rows)
    figures = [
        figure(f"{row['family']}: {row['method']}", f"budget {row['budget']:.2f}", row["change"], "nats")
        for row in frame[~frame["control"]].to_dict("records")
    ]
    publish(
        "quality", figures, **about, texts=given.texts, tokens=given.tokens, items=len(on.items), seeds=given.seeds,
        base_loss=float(base.loss.sum() / base.tokens.sum()), base_accuracy=float(base.right.mean()),
        processor_seconds=round(time.process_time() - started, 1), claims=claims(frame, outcomes),
        rows=frame.astype(object).where(frame.notna(), None).to_dict("records"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
