"""What leaves the store comes back the same, and a page of untrusted text runs none of it."""

from __future__ import annotations

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import duckdb
import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import sync_playwright

from workbench.errors import StoreError
from workbench.store import Store, open_parquet, read_page
from workbench.store.schema import TABLES

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NASTY = "</script><script>document.title='hit'</script><img src=x onerror=\"document.title='hit'\"> & \u2028 \u00e9"


@pytest.fixture
def filled(record):
    """Two recorded runs with tokens, a plan that names a blob, a router row with an edit, and nasty text."""
    recording = record(0)
    store, (first, second) = recording.store, recording.runs
    store.cursor().execute("DELETE FROM run")
    store.write("run", {"run": [first, second], "num_experts": 6, "top_k": 2, "model": "demo", "prompt": [NASTY, "b"],
                        "labels": [{"note": NASTY}, {}], "versions": {"duckdb": "1.5"}})  # fmt: skip
    for run in recording.runs:
        store.write("token", {"run": run, "step": 0, "position": np.arange(17), "token": np.arange(17), "text": NASTY,
                              "part": "prompt", "logprob": [None, *np.linspace(-3, 0, 16)]})  # fmt: skip
    store.write(
        "plan", {"plan": ["p1", "p2"], "json": [{"edits": [{"vector": "b1", "name": NASTY}]}, {"edits": []}]}
    )
    store.write(
        "blob",
        {"blob": ["b1", "b2"], "dtype": "float32", "shape": [[2], [2]], "data": [b"12345678", b"87654321"]},
    )
    store.write("run_plan", {"run": [first, second], "step": 0, "plan": ["p1", "p2"]})
    store.write("router", {"run": first, "step": 0, "position": 3, "layer": 1, "margin": 0.5, "entropy": 1.25, "tie": False,
                           "edited": True, "native": [[4, 5]], "native_weights": [[0.5, 0.25]]})  # fmt: skip
    store.flush()
    return recording


def rows_of(connection, table: str, runs: list[int] | None = None) -> list[tuple]:
    where = "" if runs is None else f"WHERE run IN ({', '.join(map(str, runs))})"
    return connection.sql(f'SELECT * FROM "{table}" {where} ORDER BY ALL').fetchall()


@pytest.mark.slow
def test_parquet_comes_back_as_it_was(filled, tmp_path):
    target = filled.store.export(tmp_path / "out.parquet")
    assert target == tmp_path / "out.parquet" and list(tmp_path.iterdir()) == [target]
    first, second = filled.runs
    assert sorted(p.name for p in (target / "routing").iterdir()) == [f"run={first}", f"run={second}"]
    with open_parquet(target) as back:
        for table in TABLES:
            assert rows_of(back, table) == rows_of(filled.store, table)
            assert back.sql(f'FROM "{table}"').types == filled.store.sql(f'FROM "{table}"').types
        for query in (f"FROM expert_load([{first}, {second}])", f"FROM routing_map({first})", "FROM macros"):
            pd.testing.assert_frame_equal(back.sql(query).df(), filled.store.sql(query).df())


@pytest.mark.slow
def test_parquet_of_one_run_holds_what_that_run_needs_and_folders_unite(filled, tmp_path):
    first, second = filled.runs
    one = filled.store.export(tmp_path / "one.parquet", runs=first)
    other = filled.store.export(tmp_path / "other.parquet", runs=[second])
    with open_parquet(one) as back:
        assert {row[0] for row in rows_of(back, "run")} == {first}
        assert [row[0] for row in rows_of(back, "plan")] == ["p1"]
        assert [row[0] for row in rows_of(back, "blob")] == ["b1"]
    with open_parquet(one, other) as back:
        assert rows_of(back, "routing") == rows_of(filled.store, "routing")
    plain = duckdb.connect().sql(f"SELECT count(*) FROM read_parquet('{one}/routing/*/*.parquet')").fetchall()
    assert plain == [(len(filled.routing) // 2,)]


def test_a_duckdb_file_with_some_runs_is_a_store(filled, tmp_path):
    first, second = filled.runs
    file = filled.store.export(tmp_path / "some.duckdb", runs=[second])
    with Store.open(file, share=False) as copy:
        assert rows_of(copy, "routing") == rows_of(filled.store, "routing", [second])
        assert [row[0] for row in rows_of(copy, "plan")] == ["p2"] and rows_of(copy, "blob") == []
        assert copy.sql("SELECT count(*) FROM expert_load(?)", [second]).fetchone() == (18,)


def test_a_page_holds_data_plans_and_environment(filled, tmp_path):
    first, second = filled.runs
    # A plan has a row for every time that it was used.
    filled.store.write("plan", {"plan": "p1", "json": [{"edits": [{"vector": "b1", "name": NASTY}]}]})
    file = filled.store.export(tmp_path / "page.html")
    page = file.read_text(encoding="utf-8")
    before, _, rest = page.partition('type="application/json">')
    payload, _, after = rest.partition("</script>")
    assert not re.search(r"https?:|src=|href=|url\(|@import|fetch\(|innerHTML", before + after)
    assert not re.search(r"[<>&\u2028]|/\*DATA\*/", payload)
    assert page.count("<script") == page.count("</script>") == 2
    data = read_page(file)
    assert [run["run"]["run"] for run in data["runs"]] == [str(first), str(second)]
    one = data["runs"][0]
    assert one["run"]["prompt"] == NASTY and one["run"]["labels"] == {"note": NASTY}
    assert one["run"]["versions"] == {"duckdb": "1.5"}
    assert one["plans"] == [{"step": 0, "plan": "p1", "edits": {"edits": [{"vector": "b1", "name": NASTY}]}}]
    assert one["tokens"][3][:4] == [3, 3, NASTY, "prompt"]
    for position, layer, experts, weights, *_ in one["cells"]:
        at = filled.routing
        rows = at[(at.run == first) & (at.position == position) & (at.layer == layer)]
        assert experts == list(rows.expert)
        assert np.array_equal(np.float32(weights), rows.weight.to_numpy()), "weights are exact"
    edited = next(cell for cell in one["cells"] if cell[6])
    assert edited[:2] == [3, 1] and edited[4:] == [0.5, 1.25, True, [4, 5]]


@pytest.mark.slow
def test_a_page_opens_offline_and_runs_none_of_its_text(filled, tmp_path):
    file = filled.store.export(tmp_path / "page.html")
    # In a thread of its own: the tests of the panel may hold a browser in this one, and a second is refused there.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_read_page, file, filled.routing).result()


def _read_page(file, routing):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        asked, wrong = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(file.as_uri())
        assert page.title() == "Recorded routing" and asked == [file.as_uri()] and wrong == []
        assert page.input_value("#run") == "1", "the newest run, which is the edited one of a view"
        page.select_option("#run", "0")
        assert page.inner_text("#text").count("onerror") == 17 and page.locator("img").count() == 0
        page.focus("#map")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        cell = routing.query("run == 101 and position == 0 and layer == 2")
        assert f"layer 2: experts {cell.expert.iloc[0]} (" in page.inner_text("#cell")
        for colour in ("weight", "entropy", "margin"):
            page.select_option("#colour", colour)
        page.select_option("#run", "1")
        assert "p2" in page.inner_text("#plans") and wrong == []
        drawn = page.evaluate(
            "[...document.querySelector('#map').getContext('2d').getImageData(40, 5, 8, 8).data]"
        )
        assert drawn[3] == 255
        browser.close()


def test_bad_requests_are_refused_and_leave_nothing(filled, tmp_path, monkeypatch):
    store = filled.store
    for path, runs, words in (
        ("out.csv", None, "suffixes"),
        ("there.html", None, "already"),
        ("out.html", 999, "Run 999 is not"),
        ("no/folder/out.parquet", None, "cannot be written"),
        ("no/folder/out.duckdb", None, "cannot be written"),
    ):
        (tmp_path / "there.html").touch()
        with pytest.raises(StoreError, match=words):
            store.export(tmp_path / path, runs)
    monkeypatch.setattr("workbench.store.export.LARGEST_PAGE", 10)
    with pytest.raises(StoreError, match="too large"):
        store.export(tmp_path / "out.html")
    assert [p.name for p in tmp_path.iterdir()] == ["there.html"]


def test_what_is_no_export_is_refused(tmp_path):
    (tmp_path / "page.html").write_text("<html></html>")
    with pytest.raises(StoreError, match="no exported page"):
        read_page(tmp_path / "page.html")
    with pytest.raises(StoreError, match="no exported folder"):
        open_parquet(tmp_path)
    with pytest.raises(StoreError, match="no folder"):
        open_parquet()
    (tmp_path / "store.json").write_text(json.dumps({"version": 99}))
    with pytest.raises(StoreError, match="version 99"):
        open_parquet(tmp_path)


def test_infinite_numbers_leave_a_page_readable(filled, tmp_path):
    filled.store.write("router", {"run": filled.runs[1], "step": 0, "position": 2, "layer": 1, "margin": float("inf"),
                                  "entropy": 0.5})  # fmt: skip
    cells = read_page(filled.store.export(tmp_path / "page.html", filled.runs[1]))["runs"][0]["cells"]
    assert next(cell for cell in cells if cell[:2] == [2, 1])[4:6] == [None, 0.5]


def test_an_empty_store_exports(store, tmp_path):
    assert read_page(store.export(tmp_path / "empty.html"))["runs"] == []
    with open_parquet(store.export(tmp_path / "empty.parquet")) as back:
        assert back.sql("SELECT count(*) FROM routing").fetchone() == (0,)
