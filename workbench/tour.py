"""The tour of `make demo`: run, record, ban, compare, ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench import console
from workbench.errors import ModelError
from workbench.interventions import Plan, reroute

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench

BUSIEST = "SELECT layer, expert, load FROM expert_load(?) ORDER BY load DESC, layer, expert LIMIT 1"

QUESTIONS = (
    (
        "Which experts did most of the work?",
        "SELECT layer, expert, choices, load FROM expert_load({base}) ORDER BY load DESC, layer, expert LIMIT 5",
    ),
    (
        "Where did the ban change a choice, and was it the ban itself or what followed from it?",
        "SELECT layer, cause, count(*) AS flips FROM flips({base}, {run}) GROUP BY ALL ORDER BY ALL",
    ),
    (
        "Which layers move the residual stream most, and how sparse are their neurons?",
        "SELECT layer, avg(influence) AS influence, avg(below_share) AS nearly_zero FROM contribution "
        "JOIN sparsity USING (run, step, position, layer) WHERE run = {base} GROUP BY layer ORDER BY layer",
    ),
)


def show(bench: Bench, prompt: str) -> None:
    """Run ``prompt`` with and without its busiest expert and print what the store says about it."""
    if not bench.anatomy.moe_layers:
        raise ModelError(
            f"{bench.name} has no router, so no expert can be banned.", "Choose a mixture of experts."
        )
    print(f"1. Run {prompt!r} on {bench.name}\n")
    base = bench.run(prompt)
    console.print_run(bench, base, None, 5)

    layer, expert, load = bench.sql(BUSIEST, [base.id]).fetchall()[0]
    plan = Plan([reroute.ban(layers=layer, experts=[expert])])
    print(
        f"\n2. Ban expert {expert} of layer {layer}, which took {load:.0%} of that layer's choices, and run again\n"
    )
    run = bench.run(prompt, plan=plan)
    console.print_run(bench, run, None, 5)

    print("\n3. Compare\n")
    console.print_diff(bench.diff(base, run), most=8)

    print("\n4. Ask the store")
    for question, template in QUESTIONS:
        query = template.format(base=base.id, run=run.id)
        print(f"\n{question}\n  {query}\n")
        console.print_rows(*console.fetch(bench, query))
    print(
        f'\nThe rows are in {bench.store.path}. Ask your own: workbench sql "FROM routing_entropy({run.id})"'
    )
