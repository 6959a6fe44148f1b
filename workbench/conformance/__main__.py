"""``python -m workbench.conformance [FOLDER]``: examine every family and write families.md and edits.md into FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

from workbench.conformance.tables import run_all


def main(folder: str = "docs") -> int:
    """Write both tables; 1 where anything is wrong or crashed, after writing."""
    results, families, edits = run_all(progress=True)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    (target / "families.md").write_text(families, encoding="utf-8")
    (target / "edits.md").write_text(edits, encoding="utf-8")
    failures = [
        (result.family, verdict)
        for result in results
        for verdict in (result.report.failures() if result.report else ())
    ]
    for family, verdict in failures:
        print(
            f"{family}: {verdict.kind} {verdict.check} {verdict.outcome}: {verdict.detail}", file=sys.stderr
        )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
