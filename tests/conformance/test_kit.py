"""The public kit: it passes where all is well, catches planted faults, and its tables say what it found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers
from tiny_models import build_tiny

import workbench as wb
from workbench.conformance import CHECKS, Example, Report, Verdict, examine, judge
from workbench.conformance.families import DENSE, OPAQUE, SPARSE, build
from workbench.conformance.tables import FamilyResult, edit_table, examine_family, family_row, family_table
from workbench.interventions.plan import kinds

SOME = ("reroute.ban", "reroute.replay", "skip.block", "mask.heads")


@pytest.mark.slow
def test_every_kind_is_examined_and_none_fails(bench: Any) -> None:
    report = examine(bench(build_tiny("olmoe")))
    assert [v.kind for v in report.verdicts[::4]] == list(kinds())
    assert all(set(report.of(kind)) == set(CHECKS) for kind in kinds())
    assert not report.failures(), report.failures()
    assert not [v.kind for v in report.verdicts if "no example" in v.detail]
    sizes = [v.size for v in report.verdicts if v.check == "effect" and v.outcome == "right"]
    assert len(sizes) == len(kinds()) and all(size is not None and size > 1e-4 for size in sizes)


def _outcomes(report: Report, kind: str) -> list[str]:
    return [report.of(kind)[check].outcome for check in CHECKS]


@pytest.mark.slow
def test_models_without_the_part_are_not_applicable_and_unproved_ones_refuse(bench: Any) -> None:
    dense = examine(bench(build_tiny("llama")), only=SOME)
    assert _outcomes(dense, "reroute.ban") == ["not applicable"] * 4
    assert _outcomes(dense, "skip.block")[0] == "right"
    opaque = examine(bench(build("llama4_text")), only=SOME)
    assert _outcomes(opaque, "reroute.ban") == ["refused"] * 4
    assert "scaled copy" in opaque.of("reroute.ban")["effect"].detail


def _with(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Callable[[Any], Report]:
    """The kit with an example of ``reroute.uniform`` of which some part is changed."""

    def report(one: Any) -> Report:
        def example(kind: str, subject: Any) -> Example:
            fields = {"effect": wb.reroute.uniform(1), "holds": lambda b, a: set(a) == set(b)} | changes
            return Example(**fields)

        monkeypatch.setattr(judge, "example_of", example)
        return examine(one, only=["reroute.uniform"])

    return report


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "check", "detail"),
    [
        ({"effect": wb.reroute.weights(1, scale=1.0)}, "effect", "moves no logit"),
        ({"effect": wb.reroute.weights(1, scale=1.000001, normalise="as-is")}, "effect", "moves no logit"),
        ({"holds": lambda b, a: False}, "read-back", "was recorded with"),
        ({"effect": wb.reroute.uniform(0)}, "read-back", "before the edit"),
        ({"identity": wb.reroute.uniform(1)}, "identity", "moves a logit"),
        ({"refused": lambda: wb.reroute.uniform(1)}, "refusal", "was run"),
        ({"read_back": lambda subject, run: "nothing is there"}, "read-back", "nothing is there"),
    ],
)
def test_planted_faults_are_wrong(
    bench: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], check: Any, detail: str
) -> None:
    report = _with(monkeypatch, **changes)(bench(build_tiny("olmoe")))
    verdict = report.of("reroute.uniform")[check]
    assert verdict.outcome == "wrong" and detail in verdict.detail
    assert verdict in report.failures()


@pytest.mark.slow
def test_a_write_that_nobody_reads_is_wrong(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault of every other tool: the edit is made, recorded, and never reaches the experts."""
    from workbench.runtime.hooks import routing

    monkeypatch.setattr(routing, "with_choice", lambda args, kwargs, *_: (args, kwargs))
    report = examine(bench(build_tiny("olmoe")), only=["reroute.ban"])
    assert report.of("reroute.ban")["effect"].outcome == "wrong"


def test_an_error_of_another_kind_is_a_crash(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = bench(build_tiny("olmoe"))

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("planted")

    report = _with(monkeypatch, read_back=fail, refused=fail)(one)
    assert _outcomes(report, "reroute.uniform") == ["right", "crashed", "not applicable", "crashed"]
    assert report.counts()["crashed"] == 2
    assert "RuntimeError: planted" in report.of("reroute.uniform")["refusal"].detail


DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def olmoe() -> FamilyResult:
    """The kit on a tiny OLMoE."""
    return examine_family("olmoe")


@pytest.mark.slow
def test_the_tables_are_made_of_the_verdicts(olmoe: FamilyResult) -> None:
    assert olmoe.report is not None and family_row(olmoe).startswith("| olmoe |")
    assert family_row(olmoe) in family_table([olmoe]).splitlines()
    text = edit_table(olmoe.report, [olmoe])
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in rows] == list(kinds())
    assert "WRONG" not in text and "CRASHED" not in text


def test_a_refusal_stands_in_the_table_with_its_families(olmoe: FamilyResult) -> None:
    assert olmoe.report is not None
    verdict = Verdict("skip.path", "effect", "refused", "Layer 2 keeps a window.")
    other = replace(olmoe, family="strange", report=Report("strange", (verdict,)))
    text = edit_table(olmoe.report, [olmoe, other])
    assert "- `skip.path`\n  - strange: Layer N keeps a window.\n" in text
    assert "| `skip.path` | yes | - | yes | yes | 1 |" in text


@pytest.mark.slow
def test_the_tables_that_are_kept_are_what_the_kit_says(olmoe: FamilyResult) -> None:
    """All families, all kinds, nothing wrong; and the rows of some families are those of today. Made anew by
    ``python -m workbench.conformance docs``."""
    families, edits = ((DOCS / name).read_text("utf-8") for name in ("families.md", "edits.md"))
    if f"transformers {transformers.__version__};" not in families:
        pytest.skip(f"the tables are of another release than transformers {transformers.__version__}")
    rows = [line for line in families.splitlines() if line.startswith("| ") and "| family |" not in line][1:]
    assert {row.split(" ")[1] for row in rows} == {*SPARSE, *OPAQUE, *DENSE}
    assert all(row.split(" | ")[4] == row.split(" | ")[7] == "0" for row in rows)
    for result in (olmoe, examine_family("llama"), examine_family("doge")):
        assert family_row(result) in rows
    assert olmoe.report is not None
    listed = [line for line in edits.splitlines() if line.startswith("| `")]
    fresh = [line for line in edit_table(olmoe.report, []).splitlines() if line.startswith("| `")]
    assert [row.rsplit("|", 2)[0] for row in listed] == [row.rsplit("|", 2)[0] for row in fresh]
