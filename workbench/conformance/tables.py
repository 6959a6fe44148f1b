"""The tables of the documentation, written from what the kit found: families by outcome, and edits by check."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import transformers

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
        *_written(),
        "Each family is a tiny random model that every kind of edit was tried on: effect, read-back, identity and refusal",
        "are one check each. *proved*: choice and weights were recomputed from the router's input, bit for bit. *parts add",
        "up*: what attention and MLP add can be read. What is refused, and why, stands in [edits.md](edits.md).",
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


def _written() -> list[str]:
    version = transformers.__version__
    return [
        f"Written by `python -m workbench.conformance docs` under transformers {version}; do not edit.",
        "",
    ]


def edit_table(report: Report, results: Sequence[FamilyResult]) -> str:
    """``docs/edits.md`` as text: the four checks of every kind on ``report``'s family, in how many families with experts
    it was refused, and every reason for that."""
    reasons = _refusals(results)
    refused = {
        kind: {name for names in by_reason.values() for name in names} for kind, by_reason in reasons.items()
    }
    names = list(dict.fromkeys(verdict.kind for verdict in report.verdicts))
    lines = [
        "# Edits",
        "",
        *_written(),
        f"A kind is listed with what the kit saw of it on a tiny {report.family} model. *refused in*: families of",
        "[families.md](families.md) with a proved router that refuse the kit's example, for a reason that stands below.",
        "",
        "| kind | effect | read-back | identity | refusal | refused in |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in names:
        verdicts = report.of(name)
        cells = " | ".join(_SIGNS[verdicts[check].outcome] for check in CHECKS)
        lines.append(f"| `{name}` | {cells} | {len(refused.get(name, ()))} |")
    if reasons:
        lines += ["", "## Refused, and why", ""]
    for kind, by_reason in reasons.items():
        lines.append(f"- `{kind}`")
        lines += [f"  - {', '.join(sorted(names))}: {reason}" for reason, names in by_reason.items()]
    return "\n".join([*lines, ""])


def _refusals(results: Sequence[FamilyResult]) -> dict[str, dict[str, set[str]]]:
    """Kind -> reason, with no number of a layer -> the proved families that refuse the kit's example for it."""
    found: dict[str, dict[str, set[str]]] = {}
    for result in results:
        for verdict in result.report.verdicts if result.report is not None and result.proved else ():
            if verdict.check == "effect" and verdict.outcome == "refused":
                reason = re.sub(r"\b(layer |Layer |attn\.|mlp\.)\d+", r"\1N", verdict.detail)
                found.setdefault(verdict.kind, {}).setdefault(reason, set()).add(result.family)
    return dict(sorted(found.items()))


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
    olmoe = next(result.report for result in results if result.family == "olmoe")
    assert olmoe is not None
    return results, family_table(results), edit_table(olmoe, results)
