"""``workbench import`` from file to replay: what another engine wrote becomes a run that SQL sees and a command re-runs."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # every command opens the model anew

PROMPT = "a b c d e"


def _ok(result: Any) -> str:
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def _sql(call: Any, query: str) -> list[dict[str, Any]]:
    return list(json.loads(_ok(call("sql", query, "-s", "runs.duckdb", "--format", "json"))))


@pytest.fixture
def recorded(call: Any, moe_folder: Path) -> tuple[list[int], np.ndarray[Any, Any], list[dict[str, Any]]]:
    """Tokens, routes [tokens, layers, k] and next tokens of a run in which every router's best expert was left out."""
    Path("plan.json").write_text('{"edits": [{"kind": "reroute.rank_offset", "shift": 1}]}', encoding="utf-8")
    given = ("-m", str(moe_folder), "-s", "runs.duckdb", "--plan", "plan.json", "--json")
    printed = json.loads(_ok(call("run", PROMPT, *given)))
    tokens = [token["token"] for token in printed["tokens"]]
    routes = np.full((len(tokens), 3, 2), -1, np.int64)
    for row in _sql(call, f"SELECT position, layer, slot, expert FROM routing WHERE run = {printed['run']}"):
        routes[row["position"], row["layer"], row["slot"]] = row["expert"]
    assert (routes >= 0).all()
    return tokens, routes, printed["next"]


def _import(call: Any, model: Path, *given: str) -> int:
    return int(_ok(call("import", *given, "-m", str(model), "-s", "runs.duckdb")))


@pytest.mark.parametrize("source", ["vllm", "sglang", "megatron"])
def test_routes_of_a_file_are_queried_and_replayed(
    call: Any, moe_folder: Path, recorded: Any, source: str
) -> None:
    tokens, routes, expected = recorded
    if source == "vllm":
        np.savez("routes.npz", tokens=np.array(tokens), routes=routes.astype(np.int16))
        given = ["routes.npz"]
    elif source == "sglang":
        data = base64.b64encode(routes.astype(np.int32).tobytes()).decode()
        reply = {"input_ids": tokens, "output_ids": [], "meta_info": {"routed_experts": data}}
        Path("routes.json").write_text(json.dumps(reply), encoding="utf-8")
        given = ["routes.json"]
    else:
        layers = [routes[:, layer].tolist() for layer in range(3)]
        Path("routes.json").write_text(json.dumps({"tokens": tokens, "routes": layers}), encoding="utf-8")
        given = ["routes.json", "--source", "megatron"]
    run = _import(call, moe_folder, *given)
    (about,) = _sql(call, f"SELECT kind, tokens, labels ->> 'source' AS source FROM run WHERE run = {run}")
    assert about == {"kind": "import", "tokens": len(tokens), "source": source}
    cells = _sql(call, f"SELECT count(*) AS n, sum(expert)::INT AS s FROM routing WHERE run = {run}")
    assert cells == [{"n": routes.size, "s": int(routes.sum())}]
    options = ("-m", str(moe_folder), "-s", "runs.duckdb", "--replay", str(run), "--json")
    again = json.loads(_ok(call("run", PROMPT, *options)))
    assert [one["token"] for one in again["next"]] == [one["token"] for one in expected]
    for one, other in zip(again["next"], expected, strict=True):
        assert one["probability"] == pytest.approx(other["probability"], rel=1e-4)


def test_a_generation_without_its_last_token_sentinels_and_missing_layers(
    call: Any, moe_folder: Path, recorded: Any
) -> None:
    tokens, routes, _ = recorded
    known = routes[:-1, [0, 2]].astype(np.int64)
    known[1, 0, 1] = -1
    known[2, 1] = -1
    fields = {
        "tokens": tokens,
        "routes": known.tolist(),
        "layers": [0, 2],
        "prompt_tokens": 5,
        "source": "vllm",
    }
    Path("part.json").write_text(json.dumps(fields), encoding="utf-8")
    run = _import(call, moe_folder, "part.json")
    found = _sql(
        call,
        f"SELECT layer, count(*) AS n, max(position) AS last, max(step) AS step FROM routing WHERE run = {run} "
        "GROUP BY layer ORDER BY layer",
    )
    full = 2 * (len(tokens) - 1)
    last = {"last": len(tokens) - 2, "step": len(tokens) - 6}
    assert found == [{"layer": 0, "n": full - 1, **last}, {"layer": 2, "n": full - 2, **last}]


def test_files_that_do_not_fit_are_refused_in_two_sentences(call: Any, moe_folder: Path) -> None:
    tokens = [1, 2, 3]
    for fields, says in (
        ({"tokens": tokens, "routes": [[[0, 1]] * 3]}, "rows of routes"),
        ({"tokens": tokens, "routes": [[[0, 9]] * 3] * 3}, "name expert 9"),
        ({"tokens": tokens, "routes": [[[0, 1]] * 2] * 3}, "with experts"),
        ({"tokens": tokens, "experts": []}, "not tokens and routes"),
        ({"tokens": tokens, "routes": [[[0, 1]] * 3] * 3, "source": "llama.cpp"}, "no import from"),
    ):
        Path("bad.json").write_text(json.dumps(fields), encoding="utf-8")
        result = call("import", "bad.json", "-m", str(moe_folder), "-s", "runs.duckdb")
        assert result.exit_code == 1 and "Traceback" not in result.output
        problem, remedy = result.stderr.splitlines()
        assert says in problem and remedy
