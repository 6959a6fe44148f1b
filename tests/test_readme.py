"""What the README shows works as it stands there, on the demo model."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

import workbench as wb
from workbench.cli import app
from workbench.store.sharing import load_extensions

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


SQL_PAGE = (ROOT / "docs" / "sql.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def command(line: str) -> str:
    result = CliRunner().invoke(app, shlex.split(line, comments=True)[1:], catch_exceptions=False)
    assert result.exit_code == 0, f"{line}\n{result.output}"
    return result.stdout


@pytest.mark.slow
def test_python_then_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert "flip" in capsys.readouterr().out
    names["bench"].close()
    runs = {"RUN1": str(names["base"].id), "RUN2": str(names["edited"].id)}

    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("workbench ")]
    assert {line.split()[1] for line in lines} == {"sql", "run", "generate", "diff", "doctor"}
    for line in lines:
        for name, run in runs.items():
            line = line.replace(name, run)
        assert command(line).strip()


@pytest.mark.slow
def test_the_page_on_sql_works_beside_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reader, magics = blocks("python", SQL_PAGE)
    (attach,) = blocks("sql", SQL_PAGE)
    with wb.open("demo") as bench:
        bench.run("x = 1", labels={"kind": "code"})
        names: dict[str, Any] = {}
        exec(compile(reader, "sql.md", "exec"), names)
        for line in magics.splitlines()[2:]:  # as the magic asks it
            cursor = names["conn"].cursor()
            cursor.execute(line.removeprefix("%sql "))
            assert len(cursor.fetchmany(5)) == 1
        shell = re.search(r"`(workbench sql [^`]+)`", SQL_PAGE)
        assert shell and command(shell[1]).strip()

        owner = json.loads((tmp_path / "workbench.duckdb.owner").read_text())
        client = duckdb.connect()
        load_extensions(client)
        opened, asked = (
            attach.replace("<port>", str(owner["port"])).replace("<token>", owner["token"]).split(";\n")[:2]
        )
        client.execute(opened)
        loads = client.execute(asked).fetchall()
        listed = re.search(r"`(FROM expert_load\(\(SELECT list[^`]+)`", SQL_PAGE)
        assert listed and loads == bench.sql(listed[1]).fetchall() != []
        assert bench.sql("FROM macros").fetchall()


def test_the_make_targets_it_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"(?m)(?:^|`)make (\w+)\b", README + (ROOT / "CONTRIBUTING.md").read_text()))
    targets = set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    assert {"lab", "demo", "check", "test", "matrix"} <= named & targets
    assert named <= targets


def test_figures_come_from_scripts_alone() -> None:
    begin, end = "<!-- figures: begin", "<!-- figures: end -->"
    assert README.count(begin) == README.count(end) == 1
    assert README.index(begin) < README.index(end)
    done = subprocess.run(
        [sys.executable, "benchmarks/readme_table.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_kernels_figures_name_their_instruction_set() -> None:
    results = [
        json.loads(path.read_text()) for path in (ROOT / "benchmarks" / "results").glob("kernels*.json")
    ]
    assert {result["isa"] for result in results} == {"avx2", "avx512"}
    for result in results:
        heading = f"<summary><code>benchmarks/kernels.py</code>: [^<]*{result['isa']}, [^<]*</summary>"
        assert len(re.findall(heading, README)) == 1
