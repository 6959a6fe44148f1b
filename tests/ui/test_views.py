"""The views beside the map as a person uses them, and a map too large to send."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PROMPT = "The capital of France is Paris, and the capital of Germany is"
ATTACK = "<img src=x onerror=window.hacked=1>"
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def page(new_page: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
    """One page for this file: its tests share a kernel."""
    with new_page() as page:
        yield page


def act(panel: Any, action: str, nth: int = 0) -> None:
    panel.locator(f'[data-wb-action="{action}"]:visible').nth(nth).click()


def turn_to(panel: Any, tab: str, idle: Callable[[Any], None]) -> Any:
    panel.locator(f'[data-wb-tab="{tab}"]').click()
    idle(panel)
    return panel.locator(f'[data-wb-view="{tab}"]')


def edits(panel: Any) -> list[str]:
    return [text.strip() for text in panel.locator("[data-wb-edit] .wb-edit").all_inner_texts()]


def in_kernel(page: Any, code: str) -> None:
    """Run code in the panel's own kernel."""
    page.evaluate(
        """async code => {
          const kernel = window.jupyterapp.shell.currentWidget.session.session.kernel;
          await kernel.requestExecute({ code, store_history: false }).done;
        }""",
        code,
    )


def violations(page: Any) -> list[Any]:
    from axe_playwright_python.sync_playwright import Axe

    found = (
        Axe().run(page, context=".wb-panel", options={"resultTypes": ["violations"]}).response["violations"]
    )
    return [
        (v["id"], [n["html"][:160] for n in v["nodes"][:3]], v["nodes"][0]["failureSummary"]) for v in found
    ]


def test_a_box_a_form_and_the_effect_of_each_edit(
    page: Any, card: Callable[[], Any], idle: Callable[[Any], None], shot: Callable[[str], None]
) -> None:
    panel = card()
    panel.locator("[data-wb-prompt]").fill(PROMPT)
    page.keyboard.press("Enter")
    idle(panel)
    chart = panel.locator("[data-wb-map]")
    canvas = panel.locator(".wb-map-canvas")
    canvas.focus()
    for key in ("PageUp", "Home", "ArrowDown", "Shift+ArrowDown", "Shift+ArrowRight", "Shift+ArrowRight"):
        page.keyboard.press(key)
    assert chart.get_attribute("data-wb-box") == "1-2,0-2"
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + box["height"] - 8)
    page.mouse.down()
    page.mouse.move(box["x"] + 180, box["y"] + box["height"] - 60, steps=4)
    page.mouse.up()
    layers, tokens = (
        list(map(int, part.split("-"))) for part in chart.get_attribute("data-wb-box").split(",")
    )
    assert layers[1] == 5 > layers[0] and tokens[1] > tokens[0] >= 1
    assert panel.get_by_label("Clicks act on").input_value() == "box"
    panel.locator('[data-wb-expert] [data-wb-action="ban"]').first.click()
    idle(panel)
    (edit,) = edits(panel)
    assert f"tokens {tokens[0]} to {tokens[1]}" in edit and str(layers[0]) in edit
    act(panel, "edit-box")
    form = panel.locator("[data-wb-form]")
    form.get_by_label("Kind of edit").select_option("mask.attention")
    assert form.locator("[name]").first.get_attribute("name") == "pattern", (
        "what has to be filled in comes first"
    )
    block = form.locator('select[name="block"]')
    assert block.input_value() == "64" and block.locator("option").all_inner_texts() == [
        "16",
        "32",
        "64",
        "128",
    ]
    form.get_by_text("More about it and its fields").click()
    meanings = form.locator(".wb-meanings dt").all_inner_texts()
    fields = {node.get_attribute("name") for node in form.locator("[name]").all()}
    assert (
        set(meanings) >= fields and "first keys that always stay" in form.locator(".wb-meanings").inner_text()
    )
    form.get_by_label("Kind of edit").select_option("reroute.temperature")
    form.locator('input[name="tau"]').fill("0")
    preview = form.locator("[data-wb-preview]")
    preview.and_(page.locator('[data-wb-preview="refused"]')).wait_for()
    form.locator('input[name="tau"]').fill("2.5")
    preview.and_(page.locator('[data-wb-preview="ready"]')).wait_for()
    assert preview.inner_text().startswith("Will ") and f"tokens {tokens[0]}" in preview.inner_text()
    shot("form")
    page.keyboard.press("Enter")
    idle(panel)
    assert len(edits(panel)) == 2 and not form.is_visible()
    act(panel, "change", 1)
    form.locator('input[name="tau"]').fill("3")
    preview.and_(page.locator('[data-wb-preview="ready"]')).wait_for()
    act(panel, "add")
    idle(panel)
    assert "3" in edits(panel)[1]
    act(panel, "effects")
    idle(panel)
    effects = [float(node.get_attribute("data-wb-effect")) for node in panel.locator("[data-wb-edit]").all()]
    assert len(effects) == 2 and max(effects) > 0
    panel.get_by_label("Name to keep the plan under").fill("two edits")
    act(panel, "keep")
    idle(panel)
    act(panel, "clear")
    idle(panel)
    assert edits(panel) == []
    panel.get_by_label("Kept plans").select_option("two edits")
    idle(panel)
    assert len(edits(panel)) == 2
    act(panel, "heads")
    idle(panel)
    panel.locator('[data-wb-head="1"] [data-wb-action="mask-head"]').click()
    idle(panel)
    assert panel.locator('[data-wb-edit="mask.heads"]').count() == 1
    assert panel.locator('[data-wb-head="1"]').get_attribute("data-wb-masked") == "true"
    panel.locator('[data-wb-expert] [data-wb-action="profile"]').first.click()
    panel.locator("[data-wb-profile]").wait_for()
    shot("inspector")


def test_charts_difference_runs_and_questions(
    page: Any, card: Callable[[], Any], idle: Callable[[Any], None], shot: Callable[[str], None]
) -> None:
    panel = card()
    panel.locator("[data-wb-prompt]").fill(f"{PROMPT} zanzibar {ATTACK}")
    page.keyboard.press("Enter")
    idle(panel)
    panel.locator('[data-wb-state="chosen"] [data-wb-action="ban"]').first.click()
    idle(panel)
    run = panel.locator("[data-wb-run]").get_attribute("data-wb-run")
    charts = turn_to(panel, "charts", idle)
    for name in ("load", "contribution", "rank", "sparsity", "entropy", "affinity"):
        charts.locator(f'[data-wb-chart="{name}"][data-wb-drawn]').wait_for()
    marks = charts.locator('[data-wb-chart="load"] .mark-rect path')
    assert marks.count() == 6 * 16 + 1  # the cells, and the frame of the layer that is selected
    marks.nth(5 * 16 + 3).click()
    idle(panel)
    assert charts.get_attribute("data-wb-layer") == "5"
    assert panel.locator("[data-wb-cell]").get_attribute("data-wb-cell").startswith("5,")
    shot("charts")
    compare = turn_to(panel, "compare", idle)
    assert (
        int(compare.get_attribute("data-wb-flips")) > 0
        and ATTACK in compare.locator(".wb-diff-text").inner_text()
    )
    shot("compare")
    listed = turn_to(panel, "runs", idle)
    listed.get_by_label("Find runs").fill("zanzibar")
    page.wait_for_timeout(400)
    idle(panel)
    found = listed.locator("[data-wb-run-row]")
    assert found.count() == 2 and found.first.get_attribute("data-wb-run-row") == run
    for n in range(2):
        found.nth(n).locator("input").check()
    shot("runs")
    act(panel, "compare")
    idle(panel)
    assert panel.locator('[data-wb-view="compare"]').get_attribute("data-wb-compare").endswith(run)
    act(panel, "show-pair")
    idle(panel)
    assert panel.locator("[data-wb-run]").get_attribute("data-wb-run") == run
    assert "from the store" in panel.locator("[data-wb-run]").inner_text()
    sql = turn_to(panel, "sql", idle)
    sql.locator("[data-wb-query]").fill(f'SELECT text, position AS "{ATTACK}" FROM token WHERE run = $run')
    page.keyboard.press("Control+Enter")
    idle(panel)
    assert int(sql.locator("[data-wb-answer]").get_attribute("data-wb-answer")) > 10
    assert ATTACK in sql.locator("thead").inner_text() and page.evaluate("window.hacked") is None
    act(panel, "plot")
    sql.locator('[data-wb-chart="query"][data-wb-drawn]').wait_for()
    shot("sql")
    with page.expect_download() as download:
        act(panel, "csv")
    assert Path(download.value.path()).read_text().startswith("text,")
    sql.locator("[data-wb-query]").fill("DELETE FROM run")
    act(panel, "ask")
    idle(panel)
    assert "DELETE" in sql.locator("[data-wb-error]").inner_text()
    with page.expect_download() as download:
        act(panel, "page")
    content = Path(download.value.path()).read_text()
    assert run in content and ATTACK not in content
    assert panel.locator("img, script, b").count() == 0 and page.evaluate("window.hacked") is None
    page.evaluate("window.hacked = undefined")


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_every_view_is_accessible(
    page: Any, card: Callable[[], Any], idle: Callable[[Any], None], shot: Callable[[str], None], theme: str
) -> None:
    panel = card()
    page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    page.wait_for_timeout(1500)
    panel.locator("[data-wb-prompt]").fill(PROMPT)
    page.keyboard.press("Enter")
    idle(panel)
    panel.locator('[data-wb-state="chosen"] [data-wb-action="ban"]').first.click()
    idle(panel)
    act(panel, "form")
    idle(panel)
    act(panel, "help")
    found = {"help": violations(page)}
    act(panel, "help-next")
    assert panel.locator("[data-wb-help]").get_attribute("data-wb-help") == "1"
    page.keyboard.press("Escape")
    for tab in ("charts", "compare", "runs", "sql"):
        turn_to(panel, tab, idle)
        if tab == "charts":
            panel.locator('[data-wb-chart="affinity"][data-wb-drawn]').wait_for()
        if tab == "sql":
            panel.locator("[data-wb-query]").fill("FROM expert_load($run)")
            act(panel, "ask")
            idle(panel)
        found[tab] = violations(page)
        shot(f"{tab}-{theme.split()[1].lower()}")
    turn_to(panel, "map", idle)
    act(panel, "cancel")
    assert found == dict.fromkeys(found, [])


def test_what_is_drawn_takes_on_the_colours_of_a_new_theme(
    page: Any, card: Callable[[], Any], idle: Callable[[Any], None]
) -> None:
    """JupyterLab hides itself for a frame when the theme changes: nothing may be drawn in that one, and all after it."""
    panel = card()
    panel.locator("[data-wb-prompt]").fill(PROMPT)
    page.keyboard.press("Enter")
    idle(panel)

    def picture() -> str:
        page.wait_for_timeout(200)
        return page.evaluate("document.querySelector('.wb-map-canvas').toDataURL()")

    def redrawn() -> str:
        for colour in ("entropy", "expert"):
            panel.get_by_label("Colour by").select_option(colour)
            page.wait_for_timeout(200)
        return picture()

    def change(theme: str) -> None:
        page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
        page.wait_for_timeout(1500)

    light = picture()
    change("JupyterLab Dark")
    dark = picture()
    assert dark not in (light, "data:,") and dark == redrawn(), "as if it had been drawn in this theme"
    charts = turn_to(panel, "charts", idle)
    chart = charts.locator('[data-wb-chart="load"][data-wb-drawn]')
    chart.wait_for()
    wide = chart.locator("svg").bounding_box()["width"]
    change("JupyterLab Light")
    chart.wait_for()
    idle(panel)
    assert chart.locator("svg").bounding_box()["width"] == wide > 150
    titles = charts.locator(".role-title-text text").all()
    assert titles and all(
        title.bounding_box()["x"] + title.bounding_box()["width"]
        <= charts.bounding_box()["x"] + charts.bounding_box()["width"]
        for title in titles
    )
    turn_to(panel, "map", idle)
    assert picture() == redrawn()


def test_a_map_too_large_to_send(
    page: Any, card: Callable[[], Any], idle: Callable[[Any], None], shot: Callable[[str], None]
) -> None:
    panel = card()
    code = f"""
import sys
sys.path.insert(0, {str(BENCHMARKS)!r})
from synthetic_run import write_synthetic_run
one = write_synthetic_run(bench.store, 12000, 24, 32, 4)
two = write_synthetic_run(bench.store, 12000, 24, 32, 4, flips_of=one)
"""
    in_kernel(page, code)
    listed = turn_to(panel, "runs", idle)
    listed.get_by_label("Find runs").fill("synthetic")
    page.wait_for_timeout(400)
    idle(panel)
    assert listed.locator("[data-wb-run-row]").count() == 2
    act(panel, "show-parent")
    idle(panel)
    chart = panel.locator("[data-wb-map]")
    assert chart.get_attribute("data-wb-tokens") == "12000" and chart.get_attribute("data-wb-layers") == "24"

    def complete() -> None:
        page.wait_for_function("() => document.querySelector('[data-wb-map]').dataset.wbMissing === '0'")
        idle(panel)

    pictures = set()
    for colour in ("expert", "entropy", "flip"):
        panel.get_by_label("Colour by").select_option(colour)
        complete()
        pictures.add(panel.locator(".wb-map-canvas").screenshot())
    shot("large")
    panel.get_by_label("Rows of the map").select_option("lanes")
    complete()
    for _ in range(30):
        act(panel, "zoom-in")
    complete()
    pictures.add(panel.locator(".wb-map-canvas").screenshot())
    assert len(pictures) == 4
    panel.locator(".wb-map-canvas").click(position={"x": 300, "y": 120})
    idle(panel)
    layer, token = map(int, panel.locator("[data-wb-cell]").get_attribute("data-wb-cell").split(","))
    chosen = {
        int(node.get_attribute("data-wb-expert")) for node in panel.locator('[data-wb-chosen="true"]').all()
    }
    assert 0 <= layer < 24 and token < 12000 and len(chosen) == 4
    assert "synthetic" in panel.locator("[data-wb-cell]").inner_text(), (
        "another model's run is looked at, not edited"
    )
    assert panel.locator('[data-wb-expert] [data-wb-action="ban"]').first.is_disabled()
    assert (
        panel.locator('[data-wb-action="generate"]').is_disabled()
        and "another model" in panel.locator("[data-wb-live]").inner_text()
    )
    panel.get_by_label("Rows of the map").select_option("layers")
    panel.locator('[data-wb-action="run"]').click()
    idle(panel)
    assert json.loads(panel.locator("[data-wb-map]").get_attribute("data-wb-tokens")) < 20
