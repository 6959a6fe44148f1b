"""Write figures from the JSON that the benchmarks printed: those held against a budget into the README, what the kernels'
fallbacks cost into kernels/README.md.

python benchmarks/readme_table.py            # from benchmarks/results/*.json
python benchmarks/readme_table.py --check    # exit 1 where the two say anything else
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from figures import holds

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
KERNELS = HERE.parent / "kernels" / "README.md"
BEGIN = "<!-- {}: begin (written by benchmarks/readme_table.py; do not edit by hand) -->"
END = "<!-- {}: end -->"


def table(results: list[dict[str, Any]]) -> str:
    """The figures of all ``results`` with a budget as Markdown, one section a benchmark."""
    parts = []
    for result in results:
        machine, told = result["machine"], [one for one in result["figures"] if one["budget"] is not None]
        if not told:  # a page of its own tells what it found
            continue
        isa = f"{result['isa']}, " if "isa" in result else ""
        parts.append(
            f"<details><summary><code>benchmarks/{result['benchmark']}.py</code>: {sum(map(bool, map(holds, told)))} of "
            f"{len(told)} budgets kept ({machine['processor']}, {isa}{machine['cores']} cores, load "
            f"{machine['load_average']})</summary>\n"
        )
        parts.append("| what | setting | measured | budget | kept |\n| --- | --- | --- | --- | --- |")
        for one in told:
            unit = "x" if one["unit"] == "x" else f" {one['unit']}"
            kept = "yes" if holds(one) else "no"
            parts.append(
                f"| {one['what']} | {one['setting']} | {one['value']:g}{unit} | {one['budget']} | {kept} |"
            )
        parts.append("\n</details>\n")
    return "\n".join(parts)


def fallbacks(results: list[dict[str, Any]]) -> str:
    """Where ``results`` tell what fallbacks cost: one row each, the dtypes beside each other, as Markdown."""
    parts = []
    for result in results:
        rows: dict[tuple[str, str], dict[str, float]] = {}
        for one in result["figures"]:
            if one["what"].startswith(("fallback: ", "composed ")):
                setting, dtype = one["setting"].rsplit(", ", 1)
                rows.setdefault((one["what"].removeprefix("fallback: "), setting), {})[dtype] = one["value"]
        if not rows:
            continue
        machine = result["machine"]
        parts.append(f"{machine['processor']}, {result['isa']}, load {machine['load_average']}:\n")
        parts.append("| what | setting | float32 | bfloat16 |\n| --- | --- | --- | --- |")
        for (what, setting), told in rows.items():
            cells = (f"{told[dtype]:.3g}x" if dtype in told else "" for dtype in ("float32", "bfloat16"))
            parts.append(f"| {what} | {setting} | {' | '.join(cells)} |")
        parts.append("")
    return "\n".join(parts)


def written(text: str, name: str, told: str) -> str:
    """``text`` with what stands between the marks of ``name`` replaced."""
    before, rest = text.split(BEGIN.format(name), 1)
    _, after = rest.split(END.format(name), 1)
    return f"{before}{BEGIN.format(name)}\n{told}\n{END.format(name)}{after}"


def main() -> None:
    """Read the command line; write or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page differs")
    asked = parser.parse_args()
    results = [json.loads(path.read_text()) for path in sorted((HERE / "results").glob("*.json"))]
    if not results:
        sys.exit("There are no results. Run the benchmarks and keep what they print in benchmarks/results.")
    for page, name, told in (
        (README, "figures", table(results)), (KERNELS, "fallbacks", fallbacks(results))
    ):  # fmt: skip
        text = page.read_text(encoding="utf-8")
        new = written(text, name, told)
        if not asked.check:
            page.write_text(new, encoding="utf-8")
        elif new != text:
            sys.exit(f"The figures of {page.relative_to(HERE.parent)} are not those of benchmarks/results.")


if __name__ == "__main__":
    main()
