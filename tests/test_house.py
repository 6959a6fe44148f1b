"""What holds for the house as a whole."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GENERATED = (
    *("workbench/labextension/", "workbench/static/", "extension/yarn.lock"),
    *("extension/src/view/protocol.ts", "extension/src/view/plan.ts"),
)
SOURCES = {".py", ".ts", ".tsx", ".js", ".sh", ".c", ".h", ".sql", ".css"}
LONGEST = 600
# Imported, and always there with what is declared: jupyterlab's server, typer's parser.
BROUGHT_BY_OTHERS = {
    "jupyter_core",
    "jupyter_server",
    "tornado",
    "traitlets",
    "comm",
    "IPython",
    "pydantic_core",
}
# Declared for what they install: a command, JupyterLab's widgets, a renderer, a weight format, a DuckDB extension.
NOT_IMPORTED = {
    *("jupyterlab", "ipykernel", "ipywidgets", "anywidget", "altair", "vl-convert-python"),
    *("safetensors", "duckdb-extension-quack", "duckdb-extension-httpfs", "pytz"),
}


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


@pytest.mark.slow
def test_what_is_imported_is_depended_on_and_the_other_way_round() -> None:
    """Lazy imports count. A dependency may also be there for what it installs, not for what it is called."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names_of(requirements: list[str]) -> set[str]:
        return {re.split(r"[<>=~\[]", text)[0].lower().replace("_", "-") for text in requirements}

    declared = names_of(project["dependencies"])
    optional = names_of(project["optional-dependencies"]["triton"])
    known = packages_distributions()
    imported = set()
    for package in (ROOT / "workbench", ROOT / "kernels" / "routing_kernels"):
        for path in package.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [str(node.module)]
                imported |= {name.split(".")[0] for name in names}
    foreign = imported - set(sys.stdlib_module_names) - {"workbench", "routing_kernels"}
    distributions = {
        name: {one.lower().replace("_", "-") for one in known.get(name, [name])} for name in foreign
    }
    undeclared = {name for name, owners in distributions.items() if not owners & (declared | optional)}
    assert undeclared <= BROUGHT_BY_OTHERS, f"declare in pyproject.toml: {undeclared - BROUGHT_BY_OTHERS}"
    unused = declared - set().union(*distributions.values())
    assert unused <= NOT_IMPORTED, f"nothing imports: {unused - NOT_IMPORTED}"


def test_every_script_is_strict() -> None:
    for path in sorted((ROOT / "scripts").iterdir()):
        if path.suffix in (".py", ".txt") or path.name == "common.sh":
            continue
        text = path.read_text()
        assert text.startswith("#!/usr/bin/env bash\n"), path.name
        assert 'source "$(dirname "${BASH_SOURCE[0]}")/common.sh"\n' in text, path.name
        assert path.stat().st_mode & 0o111, f"{path.name} is not executable"
    assert "set -euo pipefail\n" in (ROOT / "scripts" / "common.sh").read_text()
