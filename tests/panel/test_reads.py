"""Reading the store from a page: runs, comparisons, queries, charts, profiles, forms; and what is refused."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from workbench.errors import SqlError
from workbench.interventions import Plan
from workbench.panel import questions
from workbench.panel.charts import CHARTS, LAYER
from workbench.panel.reader import Reading
from workbench.store import Store

LONG = "SELECT sum(a.range * b.range) FROM range(1000000) AS a, range(1000000) AS b"
ATTACK = "<img src=x onerror=alert(1)>"


def query(driver: Any, sql: str) -> Any:
    driver.view.clear()
    driver.control("query", sql=sql)
    return driver.view.last("table") if "table" in driver.view.kinds() else driver.view.last("error")


def test_runs_are_listed_newest_first_and_found_by_text(driver: Any) -> None:
    driver.compute("run", prompt="alpha beta gamma")
    driver.control("add", edit={"kind": "reroute.ban", "layers": [1], "experts": [2]})
    driver.compute("recompute")
    driver.compute("run", prompt=f"delta {ATTACK}")
    driver.control("runs_of", text="", before=None)
    listed = driver.view.last("runs")
    numbers = [int(row["id"]) for row in listed["rows"]]
    assert numbers == sorted(numbers, reverse=True) and len(numbers) == 4 and not listed["more"]
    edited = listed["rows"][0]
    assert edited["edits"] == ["ban expert 2 in layer 1, all tokens"] and edited["text"] == f"delta {ATTACK}"
    assert (
        edited["labels"] == {"language": "en"}
        and edited["loss"] == pytest.approx(2.0)
        and edited["tokens"] == 4
    )
    driver.control("runs_of", text="ALPHA", before=None)
    assert {row["text"] for row in driver.view.last("runs")["rows"]} == {"alpha beta gamma"}
    driver.control("runs_of", text="", before=listed["rows"][1]["id"])
    assert [int(row["id"]) for row in driver.view.last("runs")["rows"]] == numbers[2:]


def test_two_runs_are_compared(driver: Any, fake_bench: Any) -> None:
    driver.compute("run", prompt="alpha beta gamma delta")
    driver.control("add", edit={"kind": "reroute.ban", "layers": [1], "experts": [0, 1, 2, 3]})
    driver.compute("recompute")
    base, run = driver.state["base"]["id"], driver.state["edited"]["id"]
    driver.control("compare", base=base, run=run)
    told = driver.view.last("comparison")
    flips = fake_bench.sql("SELECT layer, position, cause FROM flips(?, ?)", [int(base), int(run)]).fetchall()
    assert told["flips"] == len(flips) > 0 and told["causes"] == {"edit": len(flips)}
    assert {(row["layer"], row["position"]) for row in told["rows"]} == {(a, b) for a, b, _ in flips}
    assert told["pieces"] == [{"side": "both", "text": "alphabetagammadelta"}] and told["aligned"] == 4
    assert told["kl"] > 0 and told["first"] == told["rows"][0]
    assert sum(row["flips"] for row in told["layers"]) == told["flips"]
    driver.control("clear")
    driver.compute("run", prompt="alpha beta other")
    driver.control("compare", base=base, run=driver.state["base"]["id"])
    told = driver.view.last("comparison")
    assert told["kl"] is None, "the store keeps no logits"
    driver.control("compare", base=base, run="5")
    assert "no tokens" in driver.view.last("error")["problem"]


def test_a_query_answers_with_typed_rows(driver: Any) -> None:
    driver.compute("run", prompt="alpha beta gamma")
    run = int(driver.state["base"]["id"])
    told = query(driver, f"FROM expert_load({run}) ORDER BY ALL")
    assert [column["name"] for column in told["columns"]][:2] == ["layer", "expert"]
    assert told["rows"][0][:2] == [1, 0] and not told["more"] and told["seconds"] >= 0
    told = query(
        driver,
        "SELECT run, 'NaN'::DOUBLE AS bad, NULL AS nothing, [1, 2] AS list, true AS yes, text FROM run, "
        "(SELECT '<b>' AS extra) LIMIT 1",
    )
    assert told["rows"] == [[str(run), "nan", None, "[1, 2]", True, "alpha beta gamma"]], (
        "63 bits travel as text"
    )
    told = query(driver, "SELECT * FROM range(5000)")
    assert len(told["rows"]) == questions.ROWS and told["more"]
    assert query(driver, f"SELECT '{ATTACK}' AS \"{ATTACK}\"")["rows"] == [[ATTACK]]


@pytest.mark.slow
@pytest.mark.parametrize("sql, words", [
    ("", "empty"), ("SELEC 1", "near \"SELEC\""), ("SELECT nope FROM run", "nope"), ("DELETE FROM run", "DELETE"),
    ("SELECT * FROM read_csv('/etc/passwd')", "read_csv"), ("SELECT 1; SELECT 2", "2 statements"),
    ("SELECT getenv('HOME')", "getenv"), ("FROM '/etc/passwd'", "/etc/passwd"),
])  # fmt: skip
def test_what_a_query_box_does_not_run(driver: Any, sql: str, words: str) -> None:
    told = query(driver, sql)
    assert told["type"] == "error" and words in told["problem"] and told["remedy"]
    for kind in ("csv", "parquet"):
        driver.control("export", sql=sql, format=kind)
        assert words in driver.view.last("error")["problem"] and "file" not in driver.view.kinds()
    driver.control("plot", sql=sql, mark="bar", x="a", y="b", colour=None)
    assert words in driver.view.last("error")["problem"]


def test_a_long_query_is_stopped_by_hand_and_by_time(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.seq += 1
    driver.view.clear()
    stop = {"type": "cancel", "seq": 99, "request": driver.seq}
    threading.Timer(0.3, lambda: driver.connection.receive("control", stop)).start()
    driver.connection.receive("control", {"type": "query", "seq": driver.seq, "sql": LONG})
    driver.connection.settle()
    assert driver.view.last("error")["problem"] == "The query was stopped."
    assert driver.view.last("error")["seq"] == driver.seq
    monkeypatch.setattr(questions, "SECONDS", 0.2)
    assert "more than" in query(driver, LONG)["problem"]
    assert query(driver, "SELECT 1 AS one")["rows"] == [[1]], "the next one is answered"


def test_a_query_that_is_stopped_before_it_has_begun_is_stopped() -> None:
    with Store.open(":memory:") as store, store.cursor() as cursor:
        with pytest.raises(SqlError, match="The query was stopped"):
            questions.answer(cursor, Reading(1, stopped=True), LONG)
        assert questions.answer(cursor, Reading(2), "SELECT 1 AS one").rows == [[1]]


def test_answers_go_into_files(driver: Any) -> None:
    import pyarrow.parquet

    driver.compute("run", prompt="alpha beta gamma")
    for sql in (
        "SELECT position, text, [position] AS at FROM token ORDER BY position;  ",
        "FROM token -- all",
    ):
        driver.control("export", sql=sql, format="parquet")
    driver.control("export", sql="SELECT position, text FROM token ORDER BY position -- all", format="csv")
    files = [n for n, kind in enumerate(driver.view.kinds()) if kind == "file"]
    first, _, last = (driver.view.buffers[n][0] for n in files)
    table = pyarrow.parquet.read_table(io.BytesIO(first)).to_pydict()
    assert table == {"position": [0, 1, 2], "text": ["alpha", "beta", "gamma"], "at": [[0], [1], [2]]}
    assert last.decode().splitlines() == ["position,text", "0,alpha", "1,beta", "2,gamma"]
    assert driver.view.last("file") == {"type": "file", "name": "answer.csv", "mime": "text/csv"}


def test_the_view_becomes_one_page(driver: Any, tmp_path: Any) -> None:
    from workbench.store.export import read_page

    driver.control("export", sql="", format="html")
    assert "prompt" in driver.view.last("error")["problem"]
    driver.compute("run", prompt=f"alpha {ATTACK} </script>")
    driver.control("add", edit={"kind": "reroute.ban", "layers": [1], "experts": [2]})
    driver.compute("recompute")
    driver.control("export", sql="", format="html")
    n = driver.view.kinds().index("file")
    page = tmp_path / "page.html"
    page.write_bytes(driver.view.buffers[n][0])
    numbers = [driver.state[side]["id"] for side in ("base", "edited")]
    assert [str(run["run"]["run"]) for run in read_page(page)["runs"]] == numbers
    assert ATTACK not in page.read_text()


def test_the_catalogue_names_what_can_be_asked(driver: Any) -> None:
    driver.control("catalogue_of")
    told = driver.view.last("catalogue")
    macros = {macro["name"]: macro for macro in told["macros"]}
    assert macros["expert_load"]["arguments"] == "run, first := false" and macros["expert_load"]["answers"]
    tables = {table["name"]: [column["name"] for column in table["columns"]] for table in told["tables"]}
    assert tables["routing"][:3] == ["run", "step", "position"] and "macros" in tables


def spoken(part: Any) -> Iterator[Any]:
    """Whatever a chart's specification shows as words: titles, and the names of measures among its values."""
    if isinstance(part, list):
        for item in part:
            yield from spoken(item)
    elif isinstance(part, dict) and "$said" not in part:
        for name, value in part.items():
            if name in ("title", "measure") and value is not None:
                yield value
            yield from spoken(value)


@pytest.mark.slow
@pytest.mark.parametrize("chart", sorted(CHARTS))
def test_charts_are_drawn_or_say_why_not(driver: Any, chart: str) -> None:
    driver.compute("run", prompt="alpha beta gamma delta")
    driver.control("draw", chart=chart, run=driver.state["base"]["id"], layer=2)
    told = driver.view.last("chart")
    if chart in ("rank", "sparsity"):
        assert told["spec"] is None and "recorded" in told["note"]
        return
    assert told["spec"]["$schema"].endswith("v6.4.1.json") or "vega-lite/v6" in told["spec"]["$schema"]
    if chart != "affinity":
        assert {"name": LAYER, "value": 2} in told["spec"]["params"]
    values = [value for rows in told["spec"]["datasets"].values() for value in rows]
    assert values and all("layer" in value or "next_expert" in value for value in values)
    sent = driver.view.raw("chart")["spec"]
    titles = list(spoken(sent))
    assert len(titles) > 3 and all(title.keys() == {"$said"} for title in titles), "for a view to translate"
    driver.control("draw", chart="nonsense", run=driver.state["base"]["id"], layer=2)
    assert "no chart" in driver.view.last("error")["problem"]


def test_an_answer_is_plotted_whatever_its_columns_are_called(driver: Any) -> None:
    driver.compute("run", prompt="alpha beta gamma")
    hostile = f'SELECT position AS "a.b[0]:Q\'", text AS "{ATTACK}" FROM token'
    driver.control("plot", sql=hostile, mark="bar", x=ATTACK, y="a.b[0]:Q'", colour=None)
    spec = driver.view.last("chart")["spec"]
    assert spec["encoding"]["x"] == {"field": "c0", "title": ATTACK, "type": "ordinal"}
    assert spec["encoding"]["y"]["field"] == "c1" and spec["encoding"]["y"]["type"] == "quantitative"
    (rows,) = spec["datasets"].values()
    assert {"c0": "beta", "c1": 1} in rows
    driver.control("plot", sql=hostile, mark="bar", x="nope", y=ATTACK, colour=None)
    assert "nope" in driver.view.last("error")["problem"]
    driver.control(
        "plot", sql="SELECT range AS x, range AS y FROM range(9000)", mark="point", x="x", y="y", colour="x"
    )
    assert "9,000 rows" in driver.view.last("error")["problem"]


def test_a_profile_tells_what_an_expert_gets(driver: Any, fake_bench: Any) -> None:
    for prompt in ("alpha beta alpha gamma", f"{ATTACK} beta"):
        driver.compute("run", prompt=prompt)
    driver.control("profile_of", layer=1, expert=2)
    told = driver.view.last("profile")
    got = fake_bench.sql(
        "SELECT t.text, count(*) FROM routing AS r JOIN token AS t USING (run, position) WHERE layer = 1 AND expert = 2 "
        "GROUP BY ALL"
    ).fetchall()
    assert {(row["text"], row["count"]) for row in told["tokens"]} == set(got)
    assert told["count"] == sum(count for _, count in got)
    ((peer, shared),) = fake_bench.sql(
        "SELECT b.expert, count(*) FROM routing AS a JOIN routing AS b USING (run, position, layer) WHERE a.layer = 1 AND "
        "a.expert = 2 AND b.expert <> 2 GROUP BY ALL ORDER BY 2 DESC, 1 LIMIT 1"
    ).fetchall()
    assert told["peers"][0]["expert"] == peer
    assert told["peers"][0]["share"] == pytest.approx(shared / told["count"])
    everything = fake_bench.sql("SELECT count(*) FROM routing WHERE layer = 1").fetchone()[0]
    assert told["share"] == pytest.approx(told["count"] / everything)


def test_every_kind_of_edit_has_a_form(driver: Any) -> None:
    driver.control("forms_of")
    told = driver.view.last("forms")
    definitions = Plan.json_schema()["$defs"].values()
    kinds = {d["properties"]["kind"]["const"] for d in definitions if "kind" in d.get("properties", {})}
    assert {form["kind"] for form in told["kinds"]} == kinds
    ban = next(form for form in told["kinds"] if form["kind"] == "reroute.ban")
    assert {"experts", "at", "layers", "tokens", "phase"} <= set(ban["parameters"]["properties"])
    assert not {"kind", "enabled"} & set(ban["parameters"]["properties"])
    assert ban["parameters"]["required"] == ["experts"] and "Span" in told["definitions"]
    assert ban["about"][0].startswith("Never choose experts") and len(ban["about"]) == 2
    assert ban["hints"]["at"].startswith("scores: weights stay")
    sent = driver.view.raw("forms")["kinds"]
    for form in told["kinds"]:
        assert set(form["hints"]) == set(form["parameters"]["properties"]), (
            f"{form['kind']} explains its fields"
        )
    said = [text for form in sent for text in [*form["about"], *form["hints"].values()]]
    assert all(
        text["values"] == [] and text["text"] and not re.search("---|``|:`", text["text"]) for text in said
    )
    pattern = next(form for form in told["kinds"] if form["kind"] == "mask.attention")["hints"][
        "pattern"
    ].splitlines()
    assert len(pattern) == 10 and all(point.startswith("• ") for point in pattern)


def test_a_preview_says_in_words_what_an_edit_would_do(driver: Any) -> None:
    seq = driver.control(
        "preview", edit={"kind": "reroute.ban", "layers": [1], "experts": [2], "tokens": [3]}
    )
    assert driver.view.last("previewed") == {
        "type": "previewed", "seq": seq, "text": "ban expert 2 in layer 1, token 3", "refused": []
    }  # fmt: skip
    driver.control("preview", edit={"kind": "reroute.ban", "layers": [1], "experts": [9]})
    assert any("9" in line for line in driver.view.last("previewed")["refused"])
    driver.control("preview", edit={"kind": "reroute.ban", "layers": [1]})
    told = driver.view.last("previewed")
    assert any("experts" in line for line in told["refused"]) and told["text"] is None
    assert driver.state["plan"]["edits"] == []


def test_plans_are_kept_under_a_name(driver: Any) -> None:
    driver.compute("run", prompt="alpha beta gamma")
    driver.control("add", edit={"kind": "skip.block", "layers": [2]})
    driver.control("keep", name="  half ")
    driver.control("clear")
    assert driver.state["plan"]["kept"] == ["half"]
    driver.control("recall", name="half")
    assert [e["kind"] for e in driver.state["plan"]["edits"]] == ["skip.block"]
    driver.control("undo")
    assert driver.state["plan"]["edits"] == []
    driver.control("forget", name="half")
    assert driver.state["plan"]["kept"] == []
    for kind, name in (("keep", " "), ("recall", "half")):
        driver.control(kind, name=name)
        assert driver.view.last("error")["remedy"]


def test_a_cell_takes_the_route_of_another_token(driver: Any, fake_bench: Any) -> None:
    driver.compute("run", prompt="alpha beta gamma delta")
    run = int(driver.state["base"]["id"])
    route = fake_bench.sql(
        "SELECT expert, weight FROM routing WHERE run = ? AND layer = 2 AND position = 0 ORDER BY weight DESC",
        [run],
    ).fetchall()
    driver.control("imitate", layer=2, position=3, source=0)
    edits = json.loads(driver.state["plan"]["text"])["edits"]
    assert [(e["kind"], e["experts"], e["tokens"]) for e in edits] == [
        ("reroute.force", [expert], [3]) for expert, _ in route
    ]
    assert [e["weight"] for e in edits] == [weight for _, weight in route]
    driver.control("imitate", layer=0, position=3, source=0)
    assert "no route" in driver.view.last("error")["problem"]


def test_the_machine_lists_its_models(driver: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    for name, kind, weights in (
        ("a--b", "FooForCausalLM", True),
        ("a--c", "BertModel", True),
        ("a--d", "XForCausalLM", False),
    ):
        folder = tmp_path / f"models--{name}" / "snapshots" / "1"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"architectures": [kind], "model_type": "foo"}))
        if weights:
            (folder / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    driver.control("models_of")
    rows = driver.view.raw("models")["rows"]
    assert [row["name"] for row in rows] == ["demo", "a/b"] and rows[1]["note"] == {
        "text": "foo",
        "values": None,
    }


def test_the_effect_of_each_edit_is_what_leaving_it_out_changes(driver: Any, fake_bench: Any) -> None:
    driver.compute("effects_of")
    assert "No prompt" in driver.view.last("error")["problem"]
    driver.compute("run", prompt="alpha beta gamma")
    driver.compute("effects_of")
    assert "no enabled edit" in driver.view.last("error")["problem"]
    driver.control("add", edit={"kind": "reroute.ban", "layers": [1], "experts": [0, 1, 2, 3]})
    driver.compute("recompute")
    driver.view.clear()
    driver.compute("effects_of")
    (row,) = driver.view.last("effects")["rows"]
    session = next(iter(driver.benches.find().values())).session
    base, edited = (getattr(session, f"_{side}").logits.astype(np.float64) for side in ("base", "edited"))
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (edited, base))
    kl = (p * np.log(p / q)).sum(-1)
    assert (
        row["index"] == 0 and row["kl"] == pytest.approx(kl.mean()) and row["last"] == pytest.approx(kl[-1])
    )
    assert row["changed"] == (p[-1].argmax() != q[-1].argmax())
