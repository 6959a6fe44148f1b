"""What the options mean, seen on a bench that only notes how it was called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

import workbench as wb
from workbench import cli, console
from workbench.errors import PlanError

ROOT = Path(__file__).resolve().parents[2]


class NotedBench:
    """Notes every call; runs nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.opened = (args, kwargs)
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.closed = False
        self.store = SimpleNamespace(path="somewhere.duckdb")

    def __enter__(self) -> NotedBench:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def run(self, prompt: str, **keywords: Any) -> SimpleNamespace:
        self.calls.append(("run", prompt, keywords))
        return SimpleNamespace(id=2**60 + 1)

    def generate(self, prompt: str, on_step: Any, **keywords: Any) -> SimpleNamespace:
        self.calls.append(("generate", prompt, keywords))
        for text in (" upon", " a"):
            on_step(SimpleNamespace(text=text))
        return SimpleNamespace(id=2**60 + 1)


@pytest.fixture
def benches(monkeypatch: pytest.MonkeyPatch) -> list[NotedBench]:
    made: list[NotedBench] = []

    def note(*args: Any, **kwargs: Any) -> NotedBench:
        made.append(NotedBench(*args, **kwargs))
        return made[-1]

    monkeypatch.setitem(vars(wb), "open", note)
    monkeypatch.setattr(console, "print_run", lambda *_: None)
    return made


def test_defaults_are_those_of_python(call: Any, benches: list[NotedBench]) -> None:
    assert call("run", "Hello").exit_code == 0
    (bench,) = benches
    assert bench.opened == (
        (None,),
        {"store": None, "device": None, "dtype": None, "revision": None, "kernels": "auto"},
    )
    assert bench.calls == [("run", "Hello", {"plan": None})]
    assert bench.closed


def test_where_to_open_is_passed_on(call: Any, benches: list[NotedBench]) -> None:
    words = "-m some/model -s a.duckdb --device cuda:1 --dtype bfloat16 --revision v2 --kernels model"
    call("run", "Hello", *words.split())
    assert benches[0].opened == (
        ("some/model",),
        {"store": "a.duckdb", "device": "cuda:1", "dtype": "bfloat16", "revision": "v2", "kernels": "model"},
    )


def test_options_become_the_edits_of_a_plan(call: Any, benches: list[NotedBench], folder: Path) -> None:
    (folder / "plan.json").write_text(wb.Plan([wb.skip.block(layers=1)]).to_json())
    call(
        *("run", "Hello", "--plan", "plan.json", "--ban", "3:5", "--ban", "all:0,1", "--force", "3-4:7=0.25"),
        *("--bias", "2:1,2=-1.5", "--replay", str(2**60 + 1), "--skip", "8,9", "--heads", "2:0,3"),
    )
    expected = [
        wb.skip.block(layers=1),
        wb.reroute.ban(layers=3, experts=[5]),
        wb.reroute.ban(layers="all", experts=[0, 1]),
        wb.reroute.force(layers=[3, 4], experts=[7], weight=0.25),
        wb.reroute.bias(layers=2, delta={1: -1.5, 2: -1.5}),
        wb.reroute.replay(run=2**60 + 1),
        wb.skip.block(layers=[8, 9]),
        wb.mask.heads(layers=2, heads=[0, 3]),
    ]
    assert list(benches[0].calls[0][2]["plan"].edits) == expected


def test_generate_prints_the_prompt_and_each_token_as_it_comes(call: Any, benches: list[NotedBench]) -> None:
    result = call("generate", "Once", "-n", "2", "--ban", "0:1")
    assert result.stdout == "Once upon a\n"
    assert str(2**60 + 1) in result.stderr
    name, prompt, keywords = benches[0].calls[0]
    assert (name, prompt, keywords["max_new_tokens"]) == ("generate", "Once", 2)
    assert keywords["plan"] == wb.Plan([wb.reroute.ban(layers=0, experts=[1])])


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--ban", "3"),
        ("--ban", "3:"),
        ("--ban", "x:5"),
        ("--ban", "3:5=1"),
        ("--ban", "-1:5"),
        ("--force", "3:5=much"),
        ("--bias", "3:5"),
        ("--skip", "a"),
        ("--skip", ""),
        ("--heads", "2"),
    ],
)
def test_what_cannot_be_read_is_refused_before_a_model_is_opened(
    call: Any, benches: list[NotedBench], option: str, text: str
) -> None:
    result = call("run", "Hello", f"{option}={text}")
    assert result.exit_code == 1
    problem, remedy = result.stderr.splitlines()
    assert option in problem and text in problem
    assert remedy.startswith("Write it as")
    assert not benches


def test_numbers() -> None:
    assert cli._numbers("3", "--skip 3", "7") == [3]
    assert cli._numbers("0-2, 7", "--skip 0-2, 7", "7") == [0, 1, 2, 7]
    with pytest.raises(PlanError, match="nothing is not a number"):
        cli._numbers("3,", "--skip 3,", "7")


@pytest.mark.parametrize(("uid", "extra"), [(0, ["--allow-root"]), (1000, [])])
def test_lab_starts_this_python_and_passes_arguments_on(
    monkeypatch: pytest.MonkeyPatch, uid: int, extra: list[str]
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "theirs")
    monkeypatch.setattr(os, "execv", lambda path, command: started.append([path, *command]))
    result = CliRunner().invoke(cli.app, ["lab", "--no-browser", "--port", "8890", "notebooks"])
    assert result.exit_code == 0, result.output
    (command,) = started
    assert command[:4] == [sys.executable, sys.executable, "-m", "jupyterlab"]
    # Nothing asks the network.
    assert {"--LabApp.news_url=None", "--LabApp.extension_manager=readonly"} <= set(command)
    assert command[-3 - len(extra) :] == [*extra, "--port", "8890", "notebooks"]
    assert "--no-browser" in command
    ours, theirs = os.environ["JUPYTER_CONFIG_PATH"].split(os.pathsep)
    assert theirs == "theirs"
    settings = json.loads((Path(ours) / "labconfig" / "default_setting_overrides.json").read_text())
    assert settings["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"


def test_version(call: Any) -> None:
    assert call("--version").stdout == f"{wb.__version__}\n"


def test_help_names_every_command(call: Any) -> None:
    text = call("--help").stdout
    for name in ("lab", "demo", "run", "generate", "sql", "diff", "doctor"):
        assert f" {name} " in text


def test_help_is_quick_and_brings_no_torch() -> None:
    code = (
        "import json, sys\nfrom workbench.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(json.dumps(sorted({'torch', 'transformers', 'duckdb', 'pandas', 'pydantic'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_macros_are_listed_and_explained(call: Any) -> None:
    listed = call("macros").stdout
    assert "expert_load(run" in listed and "coactivation" in listed
    one = call("macros", "expert_load").stdout
    assert "load(l, e) = choices(l, e)" in one and "Source: f_i of Switch Transformers" in one
    none = call("macros", "nothing")
    assert none.exit_code == 1 and "There is no macro 'nothing'" in none.output


@pytest.mark.slow
def test_export_writes_what_the_suffix_says(call: Any, folder: Path) -> None:
    from workbench.store import Store, connect

    with Store.open("runs.duckdb", share=False) as store:
        choice = {"step": 0, "position": 1, "layer": 0, "slot": 0, "weight": 1.0, "rank": 0}
        store.write("routing", {"run": [1, 2], "expert": [3, 4], **choice})
        store.write("run", {"run": [1, 2]})
    done = call("export", "all.parquet", "-s", "runs.duckdb")
    assert done.exit_code == 0 and done.stdout.strip() == str(folder / "all.parquet")
    assert call("export", "one.duckdb", "-s", "runs.duckdb", "--run", "2").exit_code == 0
    with connect("all.parquet") as every, connect("one.duckdb") as one:
        assert every.sql("SELECT run FROM run ORDER BY run").fetchall() == [(1,), (2,)]
        assert one.sql("SELECT run, expert FROM routing").fetchall() == [(2, 4)]
    again = call("export", "all.parquet", "-s", "runs.duckdb")
    assert again.exit_code == 1 and "There is a file at" in again.output
    missing = call("export", "x.parquet", "-s", "absent.duckdb")
    assert missing.exit_code == 1 and "There is no store at" in missing.output
