"""What holds for the house as a whole."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GENERATED = ("workbench/labextension/", "workbench/static/", "extension/yarn.lock")
SOURCES = {".py", ".ts", ".tsx", ".js", ".sh", ".c", ".h", ".sql", ".css"}
LONGEST = 600


def project_files() -> list[Path]:
    """The files of the project, as git knows them: tracked, or new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def is_generated(path: Path) -> bool:
    return path.relative_to(ROOT).as_posix().startswith(GENERATED)


def test_import_is_quick_and_brings_no_torch() -> None:
    code = (
        "import json, sys, time; start = time.perf_counter(); import workbench; "
        "print(json.dumps([time.perf_counter() - start, 'torch' in sys.modules, 'transformers' in sys.modules]))"
    )
    tries = []
    for _ in range(5):  # the quickest counts: another process on the machine is not our import
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        seconds, torch, transformers = json.loads(done.stdout)
        assert not torch and not transformers
        tries.append(seconds)
    assert min(tries) < 0.3, tries


def test_no_file_is_too_long_to_read() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in project_files()
        if path.suffix in SOURCES and not is_generated(path)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
    }
    assert not long, f"split by subject: {long}"


def test_no_private_paths() -> None:
    """A path of somebody's machine in the project is a mistake, and works nowhere else."""
    homes = "|".join(("root", "work", r"home/\w+", r"Users/\w+"))
    private = re.compile(rf"(?<![\w.:/\-\])}}*])/(?:{homes})/[\w.\-]")
    found = []
    for path in project_files():
        content = path.read_bytes()
        if b"\0" in content or is_generated(path):
            continue
        for number, line in enumerate(content.decode("utf-8").splitlines(), 1):
            if private.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert not found, "\n".join(found)


def test_the_citation_names_the_version() -> None:
    found = re.search(
        r'^__version__ = "(.+)"$', (ROOT / "workbench" / "__init__.py").read_text(), re.MULTILINE
    )
    assert found is not None
    assert re.search(rf"^version: {re.escape(found[1])}$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "name",
    [
        "workbench/labextension/package.json",
        "workbench/static/widget.js",
        "workbench/jupyter_server_config.json",
        "extension/install.json",
        "data/demo/config.json",
    ],
)
def test_the_wheel_finds_what_it_carries(name: str) -> None:
    """hatchling leaves out a missing source without a word."""
    assert (ROOT / name).is_file()


def test_every_script_is_strict() -> None:
    for path in sorted((ROOT / "scripts").iterdir()):
        if path.suffix == ".py" or path.name == "common.sh":
            continue
        text = path.read_text()
        assert text.startswith("#!/usr/bin/env bash\n"), path.name
        assert 'source "$(dirname "${BASH_SOURCE[0]}")/common.sh"\n' in text, path.name
        assert path.stat().st_mode & 0o111, f"{path.name} is not executable"
    assert "set -euo pipefail\n" in (ROOT / "scripts" / "common.sh").read_text()
