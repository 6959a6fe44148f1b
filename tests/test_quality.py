"""Claims are decided by what was measured, and the page says what the benchmarks printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.quality_claims import claims
from benchmarks.quality_parts import Outcome, change, points

ROOT = Path(__file__).parent.parent
FAMILY = "weights, 2 of 4"


def outcome(per_token: float, spread: float = 0.01, seed: int = 0) -> Outcome:
    rng = np.random.default_rng(seed)
    tokens = np.full(20, 50)
    right = np.arange(20) % 2 == 0
    return Outcome(tokens * (per_token + rng.normal(0, spread, 20)), tokens, right, 0.5, 1.0, {})


def test_differences_are_those_of_the_sums_with_an_interval_over_texts() -> None:
    one, other = outcome(2.0, seed=1), outcome(1.5, seed=2)
    value, low, high = change(one, [other])
    assert value == pytest.approx((one.loss.sum() - other.loss.sum()) / one.tokens.sum())
    assert low < value < high and low > 0.4 and high < 0.6
    assert change(one, [one]) == (0.0, 0.0, 0.0) and points(one, [other])[0] == 0.0
    nothing = Outcome(one.loss, one.tokens, np.zeros(0, dtype=bool), None, 1.0, {})
    assert np.isnan(points(nothing, [nothing])).all()


def rows_of(**losses: float) -> tuple[pd.DataFrame, dict]:
    """Rows of one family, one budget a method, whose losses are given."""
    control, found, rows = outcome(1.0, seed=9), {}, []
    for number, (method, loss) in enumerate(losses.items()):
        name = method.replace("_", "-")
        found[FAMILY, name, number] = one = outcome(loss, seed=number)
        value, low, high = change(one, [control])
        rows.append({
            "family": FAMILY, "method": name, "budget": 0.5, "number": number, "better": value, "better_low": low,
            "better_high": high,
        })  # fmt: skip
    return pd.DataFrame(rows), found


@pytest.mark.parametrize(
    ("wanda", "verdict"), [(1.5, "as claimed"), (2.5, "not as claimed"), (2.0, "undecided")]
)
def test_a_claim_is_decided_by_the_interval_of_the_difference(wanda: float, verdict: str) -> None:
    told = claims(*rows_of(magnitude=2.0, activation_weighted=wanda))
    (one,) = [claim for claim in told if claim["paper"].startswith("Wanda")]
    assert one["verdict"] == verdict
    (difference,) = one["differences"]
    assert difference["nats"] == pytest.approx(wanda - 2.0, abs=0.02) and difference["budget"] == 0.5
    assert not [claim for claim in told if claim["paper"].startswith("DSnoT")], (
        "a side that was not measured decides nothing"
    )


@pytest.mark.slow
def test_the_page_and_its_picture_are_written_from_what_was_printed(tmp_path: Path) -> None:
    common = {"control": False, "seed": None, "work": 0.5, "time": 0.9, "accuracy": 0.5}
    spans = {f"{name}{end}": value for name in ("change", "points", "better") for end, value in
             (("", 0.1), ("_low", 0.05), ("_high", 0.2))}  # fmt: skip
    kept = {"density": 0.5, "recall": 0.8, "error": 0.1}
    rows = [common | spans | kept | {"family": FAMILY, "method": method, "budget": budget}
            for method in ("magnitude", "random") for budget in (0.5, 0.7)]  # fmt: skip
    for row in rows:
        if row["method"] == "random":
            row |= {"control": True, "seed": 0}
    told = {
        "benchmark": "quality", "machine": {"processor": "a processor", "load_average": 0.1}, "figures": [], "model": "demo",
        "checkpoint": "abc", "layers": 6, "texts": 4, "tokens": 64, "items": 8, "seeds": 1, "base_loss": 2.0,
        "base_accuracy": 0.5, "rows": rows,
        "claims": [{"paper": "A paper", "says": "this costs less", "verdict": "undecided",
                    "differences": [{"budget": 0.5, "nats": 0.1, "low": -0.1, "high": 0.3}]}],
    }  # fmt: skip
    (tmp_path / "quality.json").write_text(json.dumps(told))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "benchmarks/quality_page.py", "--results", str(tmp_path), *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert run("--check").returncode == 1
    written = run()
    assert written.returncode == 0, written.stderr
    page = (tmp_path / "quality.md").read_text()
    assert "| A paper | this costs less | **undecided** | 0.50: +0.100 [-0.100, +0.300] |" in page
    assert "| magnitude | 0.50 | 0.50 | 0.90x | +0.100 [+0.050, +0.200] | +10.0 [+5.0, +20.0] |" in page
    assert "| 0.50 | magnitude | 0.500 | 0.800 | 0.100 |" in page
    assert (tmp_path / "quality.svg").read_text().startswith("<svg")
    assert run("--check").returncode == 0
