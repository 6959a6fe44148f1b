"""Write the figures of the README from the JSON that the benchmarks printed.

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
    """The figures of all ``results`` as Markdown, one section a benchmark."""
    parts = []
    for result in results:
        machine = result["machine"]
        where = f"{machine['processor']}, {machine['cores']} cores, load {machine['load_average']}"
        parts.append(f"**{result['benchmark']}** ({where}; `benchmarks/{result['benchmark']}.py`)\n")
        parts.append("| what | setting | measured | budget | kept |\n| --- | --- | --- | --- | --- |")
        for one in result["figures"]:
            kept = {True: "yes", False: "no", None: ""}[holds(one)]
            unit = "x" if one["unit"] == "x" else f" {one['unit']}"
            parts.append(
                f"| {one['what']} | {one['setting']} | {one['value']:g}{unit} | {one['budget'] or ''} | {kept} |"
            )
        parts.append("")
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
