"""Bad input on the command line: two lines that say what is wrong and what to do, status 1, and nothing is lost."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from workbench.cli import app

PROMPT = "a b c d"
CAP_DAC_OVERRIDE = 1


def refusal(result: Result) -> list[str]:
    """The two lines of a refused command: what is wrong, what to do."""
    assert result.exit_code == 1, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 2, result.stderr
    assert "Traceback" not in result.output
    return lines


@contextmanager
def file_modes_hold() -> Iterator[None]:
    """Let file modes bind root too: the thread gives up CAP_DAC_OVERRIDE and takes it back at the end."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    assert libc.capget(header, sets) == 0
    before = sets[0]
    sets[0] = before & ~(1 << CAP_DAC_OVERRIDE)
    assert libc.capset(header, sets) == 0
    try:
        yield
    finally:
        sets[0] = before
        assert libc.capset(header, sets) == 0


@pytest.fixture(scope="module")
def good_store(moe_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store with one good run."""
    path = tmp_path_factory.mktemp("good") / "runs.duckdb"
    arguments = ["run", PROMPT, "-m", str(moe_folder), "-s", str(path), "--json"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return path, str(json.loads(result.stdout)["run"])


@pytest.fixture
def recorded(folder: Path, good_store: tuple[Path, str]) -> str:
    """The good run, in runs.duckdb of the working folder; a bad command must leave it as it is."""
    path, run = good_store
    shutil.copy(path, folder / "runs.duckdb")
    return run


def runs(call: Any) -> list[str]:
    result = call("sql", "SELECT run FROM run ORDER BY run", "-s", "runs.duckdb", "--format", "csv")
    assert result.exit_code == 0, result.output
    return list(result.stdout.split()[1:])


def test_an_unknown_model(call: Any, folder: Path) -> None:
    problem, remedy = refusal(call("run", PROMPT, "-m", "nobody/no-such-model"))
    assert "nobody/no-such-model" in problem
    assert "demo" in remedy or "folder" in remedy
    assert not list(folder.glob("*.duckdb*")), "a model that is not there leaves no store behind"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (["--ban", "9:0"], "9"),
        (["--ban", "0:99"], "99"),
        (["--force", "0:99"], "99"),
        (["--bias", "0:99=1"], "99"),
        (["--skip", "9"], "9"),
        (["--heads", "0:99"], "99"),
        (["--replay", "12345"], "12345"),
        (["--ban", "0:0-6"], "experts"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else None,
)
def test_an_edit_that_names_what_is_not_there(
    call: Any, moe_folder: Path, recorded: str, edit: list[str], named: str
) -> None:
    problem, remedy = refusal(call("run", PROMPT, "-m", str(moe_folder), "-s", "runs.duckdb", *edit))
    assert named in problem
    assert remedy
    assert runs(call) == [recorded]


def test_a_reroute_of_a_dense_model(call: Any, dense_folder: Path) -> None:
    problem, _ = refusal(call("run", PROMPT, "-m", str(dense_folder), "--ban", "0:1"))
    assert "router" in problem or "router_logits" in problem or "expert" in problem


def test_an_empty_prompt(call: Any, moe_folder: Path, recorded: str) -> None:
    problem, _ = refusal(call("run", "", "-m", str(moe_folder), "-s", "runs.duckdb"))
    assert "empty" in problem
    assert runs(call) == [recorded]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "generate"])
def test_a_prompt_longer_than_the_context(call: Any, moe_folder: Path, recorded: str, command: str) -> None:
    problem, remedy = refusal(call(command, "a " * 400, "-m", str(moe_folder), "-s", "runs.duckdb"))
    assert "context" in problem
    assert "horten" in remedy
    assert runs(call) == [recorded]


@pytest.mark.parametrize(
    "command", [["run", PROMPT], ["sql", "FROM run"], ["diff", "1", "2"]], ids=lambda c: c[0]
)
def test_a_store_that_is_not_duckdb(call: Any, folder: Path, moe_folder: Path, command: list[str]) -> None:
    (folder / "notes.duckdb").write_text("Dear diary. " * 500)
    model = ["-m", str(moe_folder)] if command[0] == "run" else []
    problem, _ = refusal(call(*command, *model, "-s", "notes.duckdb"))
    assert "notes.duckdb" in problem
    assert (folder / "notes.duckdb").read_text() == "Dear diary. " * 500


@pytest.mark.skipif(sys.platform != "linux", reason="binds root to file modes by Linux capabilities")
def test_a_read_only_store(call: Any, folder: Path, moe_folder: Path, recorded: str) -> None:
    (folder / "runs.duckdb").chmod(0o444)
    with file_modes_hold():
        problem, _ = refusal(call("run", PROMPT, "-m", str(moe_folder), "-s", "runs.duckdb"))
        assert "runs.duckdb" in problem
        assert runs(call) == [recorded]


def test_a_store_in_a_folder_that_is_not_there(call: Any, moe_folder: Path) -> None:
    problem, _ = refusal(call("run", PROMPT, "-m", str(moe_folder), "-s", "nowhere/runs.duckdb"))
    assert "nowhere" in problem


@pytest.mark.parametrize("command", [["sql", "FROM run"], ["diff", "1", "2"]], ids=lambda c: c[0])
def test_reading_makes_no_store(call: Any, folder: Path, command: list[str]) -> None:
    problem, _ = refusal(call(*command, "-s", "missing.duckdb"))
    assert "missing.duckdb" in problem
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"version": 1, "edits": [{"kind": "reroute.abolish", "layers": [0]}]}', "reroute.abolish"),
        (
            '{"version": 1, "edits": [{"kind": "reroute.ban", "layers": [0], "experts": [1], "why": 1}]}',
            "why",
        ),
        ('{"version": 1, "edits": [', "JSON"),
        ("[]", "JSON object"),
        (None, "plan.json"),
    ],
    ids=["unknown-edit", "unknown-field", "broken", "list", "missing"],
)
def test_a_plan_file_that_is_wrong(call: Any, folder: Path, text: str | None, named: str) -> None:
    if text is not None:
        (folder / "plan.json").write_text(text)
    problem, _ = refusal(call("run", PROMPT, "--plan", "plan.json"))
    assert named in problem


def test_a_query_that_is_wrong_or_writes(call: Any, recorded: str) -> None:
    for query, named in [
        ("SELECT nothing FROM nowhere", "nowhere"),
        ("FROM expert_loud(1)", "expert_loud"),
        ("DROP TABLE run", ""),
        ("DELETE FROM run", ""),
    ]:
        problem, _ = refusal(call("sql", query, "-s", "runs.duckdb"))
        assert named in problem
    assert runs(call) == [recorded]


def test_runs_that_are_not_there(call: Any, recorded: str) -> None:
    problem, _ = refusal(call("diff", recorded, "17", "-s", "runs.duckdb"))
    assert "17" in problem
