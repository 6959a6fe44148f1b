"""The tables of the documentation, written from what the kit found: families by outcome, and edits by check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workbench.anatomy.rules import FAMILIES, UNREADABLE
from workbench.conformance.families import DENSE, OPAQUE, SPARSE, build
from workbench.conformance.judge import CHECKS, Outcome, Report, examine
from workbench.errors import ModelError

_SIGNS: dict[Outcome, str] = {
    "right": "yes",
    "wrong": "WRONG",
    "refused": "refused",
    "not applicable": "-",
    "crashed": "CRASHED",
}


@dataclass(frozen=True)
class FamilyResult:
    """One line of the family table: what was proved (``moe`` layers out of how many), why not, and the kit's report."""

    family: str
    experts: str
    proved: bool
    additive: bool
    reason: str
    report: Report | None


def examine_family(family: str) -> FamilyResult:
    """Build a tiny model of ``family`` and hold it to the whole kit."""
    from workbench.runtime.opening import open as open_bench

    with open_bench(build(family), store=":memory:") as bench:
        moes = [block.moe for block in bench.anatomy.blocks if block.moe is not None]
        proved = bool(moes) and all(moe.proved for moe in moes)
        reason = next((moe.reason for moe in moes if not moe.proved), bench.anatomy.no_experts)
        additive = all(block.additive for block in bench.anatomy.blocks if block.attention and block.mlp)
        additive = additive and any(block.additive for block in bench.anatomy.blocks)
        kind = "experts" if moes or family in OPAQUE else "dense"
        return FamilyResult(family, kind, proved, additive, reason, examine(bench))


def family_row(result: FamilyResult) -> str:
    """One line of ``docs/families.md``."""
    choice = "proved" if result.proved else "none" if result.experts == "dense" else "not re-routed"
    counts = result.report.counts() if result.report is not None else {}
    cells = [str(counts.get(outcome, "")) for outcome in _SIGNS]
    name = result.family if result.experts == "experts" else f"{result.family} (dense)"
    parts = "yes" if result.additive else "no"
    return f"| {name} | {choice} | {parts} | {' | '.join(cells)} | {result.reason} |"


def family_table(results: Sequence[FamilyResult]) -> str:
    """``docs/families.md`` as text."""
    head = (
        "| family | re-routing | parts add up | right | wrong | refused | not applicable | crashed | reason |"
    )
    lines = [
        "# Model families",
        "",
        "Written by `python -m workbench.conformance`; do not edit. Each family is a tiny random model that every kind of",
        "edit was tried on: effect, read-back, identity and refusal are one check each. *proved*: choice and weights were",
        "recomputed from the router's input, bit for bit. *parts add up*: what attention and MLP add can be read.",
        "",
        head,
        "| " + " | ".join(["---"] * 9) + " |",
        *(family_row(result) for result in results),
        "",
        "Not opened, by name:",
        "",
        *(f"- `{name}`: {reason}." for name, reason in sorted(UNREADABLE.items())),
        "",
        "Proved inside a model that also sees: "
        + ", ".join(f"`{name}`" for name in sorted(set(FAMILIES) - set(SPARSE)))
        + ".",
        "",
    ]
    return "\n".join(lines)


def edit_table(report: Report, refused: Mapping[str, int]) -> str:
    """``docs/edits.md`` as text: the four checks of every kind on ``report``'s family, and in how many families with
    experts it was refused."""
    names = list(dict.fromkeys(verdict.kind for verdict in report.verdicts))
    lines = [
        "# Edits",
        "",
        "Written by `python -m workbench.conformance`; do not edit. A kind is listed with what the kit saw of it on a tiny",
        f"{report.family} model. *refused in*: families with experts that refuse it, for the reason in `families.md` or",
        "because a part is missing.",
        "",
        "| kind | effect | read-back | identity | refusal | refused in |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in names:
        verdicts = report.of(name)
        cells = " | ".join(_SIGNS[verdicts[check].outcome] for check in CHECKS)
        lines.append(f"| `{name}` | {cells} | {refused.get(name, 0)} |")
    return "\n".join([*lines, ""])


def run_all(progress: bool = False) -> tuple[list[FamilyResult], str, str]:
    """Examine every family of the installed transformers: the results and the two tables."""
    results: list[FamilyResult] = []
    for family in (*SPARSE, *OPAQUE, *DENSE):
        try:
            results.append(examine_family(family))
        except ModelError as error:
            if f"has no {family}" not in error.problem:
                raise
            continue
        if progress:
            print(family_row(results[-1]), flush=True)
    results.sort(key=lambda result: (result.experts != "experts", result.family))
    refused: dict[str, int] = {}
    for result in results:
        for verdict in result.report.verdicts if result.report is not None else ():
            if verdict.check == "effect" and verdict.outcome == "refused" and result.experts == "experts":
                refused[verdict.kind] = refused.get(verdict.kind, 0) + 1
    olmoe = next(result.report for result in results if result.family == "olmoe")
    assert olmoe is not None
    return results, family_table(results), edit_table(olmoe, refused)
