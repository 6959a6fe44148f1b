"""The commands on real, tiny models, from the outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import workbench as wb

pytestmark = pytest.mark.slow  # processes of their own, and much of what `make test` runs anyway

PROMPT = "a b c d e"
ROOT = Path(__file__).resolve().parents[2]
# Another process finds this checkout as this one does.
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}


def ask(call: Any, query: str) -> list[dict[str, Any]]:
    result = call("sql", query, "-s", "runs.duckdb", "--format", "json")
    assert result.exit_code == 0, result.output
    return list(json.loads(result.stdout))


def run_json(call: Any, model: Path, *options: str) -> dict[str, Any]:
    result = call("run", PROMPT, "-m", str(model), "-s", "runs.duckdb", "--json", *options)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_run_prints_what_python_gives(call: Any, moe_folder: Path, folder: Path) -> None:
    printed = run_json(call, moe_folder)
    with wb.open(str(moe_folder), store=":memory:") as bench:
        run = bench.run(PROMPT)
        expected = bench.sql(
            "SELECT position, layer, list(expert ORDER BY rank) FROM routing GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    assert [token["token"] for token in printed["tokens"]] == run.tokens.tolist()
    assert printed["loss"] == run.loss
    assert printed["next"] == run.next_tokens(5)
    assert [(row["position"], row["layer"], row["experts"]) for row in printed["routing"]] == expected
    assert not any(row["edited"] for row in printed["routing"])
    assert ask(call, "SELECT run, tokens FROM run") == [{"run": printed["run"], "tokens": len(run.tokens)}]


def test_the_table_shows_each_token_with_its_experts(call: Any, moe_folder: Path) -> None:
    data = run_json(call, moe_folder)
    table = call("run", PROMPT, "-m", str(moe_folder), "-s", "runs.duckdb", "--layers", "1").stdout
    experts = [" ".join(map(str, row["experts"])) for row in data["routing"] if row["layer"] == 1]
    lines = table.splitlines()
    assert "layer 1" in lines[0] and "layer 0" not in lines[0]
    for line, token, chosen in zip(lines[2:], data["tokens"], experts, strict=False):
        assert repr(token["text"]) in line
        assert line.endswith(chosen)
    assert "1 of 3 routed layers" in table
    assert f"{data['loss']:.4f} nats" in table


def test_a_banned_expert_is_gone_and_marked(call: Any, moe_folder: Path) -> None:
    base = run_json(call, moe_folder)
    used = {expert for row in base["routing"] if row["layer"] == 0 for expert in row["experts"]}
    banned = min(used)
    edited = run_json(call, moe_folder, "--ban", f"0:{banned}")
    assert all(banned not in row["experts"] for row in edited["routing"] if row["layer"] == 0)
    marked = {row["position"] for row in edited["routing"] if row["layer"] == 0 and row["edited"]}
    assert marked == {r["position"] for r in base["routing"] if r["layer"] == 0 and banned in r["experts"]}
    table = call("run", PROMPT, "-m", str(moe_folder), "-s", "runs.duckdb", "--ban", f"0:{banned}").stdout
    assert "* differs from the model's own choice" in table

    result = call("diff", base["run"], edited["run"], "-s", "runs.duckdb", "--json")
    diff = json.loads(result.stdout)
    assert (diff["base"], diff["run"], diff["first_layer"]) == (base["run"], edited["run"], 0)
    assert {row["position"] for row in diff["flips"] if row["layer"] == 0} == marked
    routes = {(row["position"], row["layer"]): row["experts"] for row in edited["routing"]}
    for flip in diff["flips"]:
        assert sorted(flip["run_experts"]) == sorted(routes[flip["position"], flip["layer"]])
    assert "layer" in call("diff", base["run"], edited["run"], "-s", "runs.duckdb").stdout


def test_a_plan_file_does_what_the_option_does(call: Any, moe_folder: Path, folder: Path) -> None:
    (folder / "plan.json").write_text(wb.Plan([wb.reroute.ban(layers=0, experts=[3])]).to_json())
    by_file = run_json(call, moe_folder, "--plan", "plan.json")
    by_option = run_json(call, moe_folder, "--ban", "0:3")
    assert by_file["plan"] == by_option["plan"]
    assert by_file["routing"] == by_option["routing"]


def test_routes_are_replayed_by_the_id_as_printed(call: Any, moe_folder: Path) -> None:
    banned = run_json(call, moe_folder, "--ban", "1:2")
    replayed = run_json(call, moe_folder, "--replay", banned["run"])
    assert [row["experts"] for row in replayed["routing"]] == [row["experts"] for row in banned["routing"]]
    assert replayed["next"] == banned["next"]


def test_a_dense_model_says_that_it_has_no_router(call: Any, dense_folder: Path) -> None:
    result = call("run", PROMPT, "-m", str(dense_folder), "-s", "runs.duckdb", "--skip", "1")
    assert result.exit_code == 0, result.output
    assert "No layer of this run has a router." in result.stdout


def test_generate_streams_what_python_generates(call: Any, moe_folder: Path) -> None:
    result = call("generate", PROMPT, "-n", "6", "-m", str(moe_folder), "-s", "runs.duckdb", "--ban", "0:1")
    assert result.exit_code == 0, result.output
    with wb.open(str(moe_folder), store=":memory:") as bench:
        plan = wb.Plan([wb.reroute.ban(layers=0, experts=[1])])
        run = bench.generate(PROMPT, max_new_tokens=6, plan=plan)
    assert result.stdout == PROMPT + "".join(run.texts[run.prompt_tokens :]) + "\n"
    (row,) = ask(call, "SELECT run, kind FROM run")
    assert row["kind"] == "generate"
    assert f"run {row['run']}" in result.stderr


def test_sql_needs_no_torch_and_works_while_a_bench_records(moe_folder: Path, folder: Path) -> None:
    with wb.open(str(moe_folder), store=str(folder / "runs.duckdb")) as bench:
        run = bench.run(PROMPT)
        code = (
            "import sys; sys.modules['torch'] = None; from workbench.cli import app; "
            "app(['sql', 'SELECT sum(choices)::INT AS n FROM expert_load("
            f"{run.id}, first := true)', '-s', 'runs.duckdb', '--format', 'csv'])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.stdout == f"n\n{len(run.tokens) * 3 * 2}\n", done.stderr


def test_the_demo_asks_three_questions(call: Any, moe_folder: Path) -> None:
    result = call("demo", PROMPT, "-m", str(moe_folder), "-s", "runs.duckdb")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("?\n  SELECT") == 3
    assert "Ban expert" in result.stdout
    base, edited = ask(call, "SELECT run, tokens FROM run ORDER BY run")
    assert edited["run"] in result.stdout and base["run"] in result.stdout


def test_the_demo_refuses_a_dense_model(call: Any, dense_folder: Path) -> None:
    result = call("demo", "-m", str(dense_folder), "-s", "runs.duckdb")
    assert result.exit_code == 1
    assert "no router" in result.stderr.splitlines()[0]


def test_doctor_finds_what_is_there(call: Any, moe_folder: Path) -> None:
    result = call("doctor", "--json", "--model", str(moe_folder))
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    topics = {finding["topic"]: finding for finding in found["findings"]}
    assert {"python", "torch", "duckdb", "cpu", "kernel cpu", "kernel reference", "store sharing"} <= set(
        topics
    )
    assert sum("in use" in f["detail"] and f["topic"].startswith("kernel") for f in found["findings"]) >= 1
    model = found["model"]
    assert (model["layers"], [block["layers"] for block in model["blocks"]]) == (3, ["0-2"])
    assert model["blocks"][0]["experts"] == 8 and model["blocks"][0]["proved"] is True
    table = call("doctor", "--model", str(moe_folder)).stdout
    assert "0-2" in table and "python" in table


@pytest.mark.slow
def test_the_installed_command_starts(folder: Path) -> None:
    command = Path(sys.executable).with_name("workbench")
    if not command.exists():
        pytest.skip("the package is used from a folder, not installed")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == wb.__version__
