"""Write the page and the picture of quality against work from what the benchmarks printed.

python benchmarks/quality_page.py            # from benchmarks/results/*.json to benchmarks/results/quality.md and .svg
python benchmarks/quality_page.py --check    # exit 1 where the page says anything else
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from surroundings import HERE

# isort: split
import pandas as pd

from workbench.analysis import charts

RESULTS = HERE / "results"


def signed(value: float | None, low: float | None, high: float | None, digits: int = 3) -> str:
    """A number with its interval."""
    if value is None or low is None or high is None or pd.isna(value):
        return ""
    return f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def page(quality: dict[str, Any], routers: dict[str, Any] | None) -> str:
    """The whole page as Markdown."""
    machine = quality["machine"]
    parts = [
        "# Quality against work\n",
        "Written by `benchmarks/quality_page.py`; not to be edited by hand.\n",
        f"Model `{quality['model']}` (checkpoint `{quality['checkpoint']}`, {quality['layers']} layers): "
        f"{quality['texts']} held-out texts of {quality['tokens']} tokens, half task items and half prose, "
        f"{quality['base_loss']:.3f} nats a token; {quality['items']} items with one-token options, "
        f"{quality['base_accuracy']:.1%} right. *loss* and *accuracy* are changes against no plan, *beside random* is the "
        f"loss against {quality['seeds']} random controls of the same budget (negative: better than chance), all with 95 % "
        "intervals over texts or items. *work* is counted by what ran, *time* is processor time over the bare model's "
        f"({machine['processor']}, load {machine['load_average']}).\n",
        "![quality against work](quality.svg)\n",
        "## What the papers claim, and what happens here\n",
        claims(quality["claims"]),
        *families(quality["rows"]),
        estimators(quality["rows"]),
    ]
    if routers is not None:
        parts += learned(routers)
    return "\n".join(parts) + "\n"


def claims(found: list[dict[str, Any]]) -> str:
    """One line a claim."""
    lines = ["| paper | claim | here | nats by budget |", "| --- | --- | --- | --- |"]
    for one in found:
        told = "; ".join(
            f"{d['budget']:.2f}: {signed(d['nats'], d['low'], d['high'])}" for d in one["differences"]
        )
        lines.append(f"| {one['paper']} | {one['says']} | **{one['verdict']}** | {told} |")
    return "\n".join(lines) + "\n"


def families(rows: list[dict[str, Any]]) -> list[str]:
    """One table a family."""
    parts = []
    frame = pd.DataFrame(rows)
    for family, some in frame.groupby("family", sort=False):
        lines = [
            f"## {str(family)[0].upper()}{str(family)[1:]}\n",
            "| method | budget | work | time | loss, nats | accuracy, points | beside random, nats |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for row in some.sort_values(["method", "budget"]).to_dict("records"):
            name = f"{row['method']} {int(row['seed'])}" if row["control"] else row["method"]
            accuracy = (
                None if row[key] is None else 100 * row[key]
                for key in ("points", "points_low", "points_high")
            )
            work = "computed, masked" if pd.isna(row["work"]) else f"{row['work']:.2f}"
            time = "" if pd.isna(row["time"]) else f"{row['time']:.2f}x"
            beside = signed(row.get("better"), row.get("better_low"), row.get("better_high"))
            loss = signed(row["change"], row["change_low"], row["change_high"])
            lines.append(
                f"| {name} | {row['budget']:.2f} | {work} | {time} | {loss} | {signed(*accuracy, digits=1)} | {beside} |"
            )
        parts.append("\n".join(lines) + "\n")
    return parts


def estimators(rows: list[dict[str, Any]]) -> str:
    """What masks of the attention map kept of it: the estimators between their oracle and chance."""
    frame = pd.DataFrame(rows)
    if "recall" not in frame or frame["recall"].isna().all():
        return ""
    some = (
        frame.dropna(subset="recall")
        .groupby(["budget", "method"], as_index=False)[["density", "recall", "error"]]
        .mean()
    )
    lines = [
        "## What masks keep of the attention map\n",
        "*recall*: share of the attention that is kept, exp(lse masked - lse); *density*: share of the visible map; "
        "*error*: relative error of the heads' output; means over layers, heads and texts. The oracle knows the map.\n",
        "| budget | mask | density | recall | error |", "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row in some.sort_values(["budget", "recall"], ascending=[True, False]).itertuples():
        lines.append(
            f"| {row.budget:.2f} | {row.method} | {row.density:.3f} | {row.recall:.3f} | {row.error:.3f} |"
        )
    return "\n".join(lines) + "\n"


def _hundred(row: dict[str, Any]) -> list[float | None]:
    """The change of the accuracy in points of a hundred, with its interval."""
    return [None if row[key] is None else 100 * row[key] for key in ("points", "points_low", "points_high")]


def learned(routers: dict[str, Any]) -> list[str]:
    """The trained depth routers."""
    lines = [
        "## Depth routers trained on the frozen model\n",
        f"{routers['texts']} held-out texts; each row beside random and uniform skipping of the same units at the same "
        "share.\n",
        "| way | setting | unit | layers | share | loss, nats | accuracy, points | beside random | beside uniform |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in routers["rows"]:
        if row["plan"] != "learned":
            continue
        beside = [
            f"{row[f'verdict_{name}']}: {signed(*(row[f'than_{name}{end}'] for end in ('', '_low', '_high')))}"
            for name in ("random", "uniform")
        ]
        accuracy = _hundred(row)
        loss = signed(row["change"], row["change_low"], row["change_high"])
        layers = ", ".join(map(str, row["layers"]))
        lines.append(
            f"| {row['way']} | {row['setting']} | {row['unit']} | {layers} | {row['share']:.2f} | {loss} | "
            f"{signed(*accuracy, digits=1)} | {beside[0]} | {beside[1]} |"
        )
    told = "; ".join(
        f"{name} {signed(d['nats'], d['low'], d['high'])}" for name, d in routers["lowest_rank_than"].items()
    )
    lines.append(
        f"\nGates on the layers of lowest attention rank, loss beside gates on the others: {told} nats.\n"
    )
    return ["\n".join(lines)]


def main() -> None:
    """Read the command line; write or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page differs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    source = asked.results / "quality.json"
    if not source.exists():
        sys.exit(
            "There is no quality.json. Run benchmarks/quality.py and keep what it prints in benchmarks/results."
        )
    quality = json.loads(source.read_text(encoding="utf-8"))
    trained = asked.results / "depth_routers.json"
    routers = json.loads(trained.read_text(encoding="utf-8")) if trained.exists() else None
    text = page(quality, routers)
    target = asked.results / "quality.md"
    if asked.check:
        known = target.read_text(encoding="utf-8") if target.exists() else ""
        sys.exit(0 if known == text else "The page is not that of benchmarks/results.")
    target.write_text(text, encoding="utf-8")
    charts.quality(pd.DataFrame(quality["rows"])).save(str(asked.results / "quality.svg"))


if __name__ == "__main__":
    main()
