"""Write the figures of the README from the JSON that the benchmarks printed: those that are held against a budget.

python benchmarks/readme_table.py            # from benchmarks/results/*.json into README.md
python benchmarks/readme_table.py --check    # exit 1 where the README says anything else
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
BEGIN = "<!-- figures: begin (written by benchmarks/readme_table.py; do not edit by hand) -->"
END = "<!-- figures: end -->"


def table(results: list[dict[str, Any]]) -> str:
    """The figures of all ``results`` with a budget as Markdown, one section a benchmark."""
    parts = []
    for result in results:
        machine, told = result["machine"], [one for one in result["figures"] if one["budget"] is not None]
        if not told:  # a page of its own tells what it found
            continue
        parts.append(
            f"<details><summary><code>benchmarks/{result['benchmark']}.py</code>: {sum(map(bool, map(holds, told)))} of "
            f"{len(told)} budgets kept ({machine['processor']}, {machine['cores']} cores, load "
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


def main() -> None:
    """Read the command line; write or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the README differs")
    asked = parser.parse_args()
    results = [json.loads(path.read_text()) for path in sorted((HERE / "results").glob("*.json"))]
    if not results:
        sys.exit("There are no results. Run the benchmarks and keep what they print in benchmarks/results.")
    text = README.read_text(encoding="utf-8")
    before, rest = text.split("<!-- figures: begin", 1)
    _, after = rest.split(END, 1)
    written = f"{before}{BEGIN}\n{table(results)}\n{END}{after}"
    if asked.check:
        sys.exit(0 if written == text else "The README's figures are not those of benchmarks/results.")
    README.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
