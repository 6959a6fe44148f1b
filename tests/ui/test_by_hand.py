"""What a hand does on the panel beside clicking: point, drag, mark rows, take pictures, pass on a query; and less motion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PROMPT = "The capital of France is Paris, and the capital of Germany is"


@pytest.fixture(scope="module")
def page(new_page: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
    """One page for this file: its tests share a kernel."""
    with new_page() as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield page


@pytest.fixture
def ran(page: Any, card: Callable[[], Any], idle: Callable[[Any], None]) -> Any:
    """The panel after the prompt has run."""
    panel = card()
    panel.locator("[data-wb-prompt]").fill(PROMPT)
    page.keyboard.press("Enter")
    idle(panel)
    return panel


def act(panel: Any, action: str, idle: Callable[[Any], None]) -> None:
    panel.locator(f'[data-wb-action="{action}"]:visible').first.click()
    idle(panel)


def edits(panel: Any) -> list[str]:
    return [text.strip() for text in panel.locator("[data-wb-edit] .wb-edit").all_inner_texts()]


def cell(panel: Any) -> tuple[int, int]:
    layer, token = panel.locator("[data-wb-cell]").get_attribute("data-wb-cell").split(",")
    return int(layer), int(token)


def test_a_weight_is_dragged_and_a_token_is_routed_like_another(
    page: Any, ran: Any, idle: Callable[[Any], None]
) -> None:
    layer, token = cell(ran)
    ran.get_by_label("Clicks act on").select_option("token")
    row = ran.locator('[data-wb-expert][data-wb-state="chosen"]').first
    expert = row.get_attribute("data-wb-expert")
    slider = row.locator('input[type="range"]')
    before = float(slider.input_value())
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.95, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    idle(ran)
    (text,) = edits(ran)
    assert f"weight of expert {expert}" in text and text.endswith(f"in layer {layer}, token {token}")
    row = ran.locator(f'[data-wb-expert="{expert}"]')
    assert float(row.locator('input[type="range"]').input_value()) > before
    act(ran, "undo", idle)
    assert edits(ran) == []
    ran.locator('[data-wb-action="imitate"]').locator("xpath=following::input[1]").fill("2")
    act(ran, "imitate", idle)
    chosen = {node.get_attribute("data-wb-expert") for node in ran.locator('[data-wb-chosen="true"]').all()}
    assert len(edits(ran)) == 2 and all(text.startswith("Force expert") for text in edits(ran))
    ran.locator(".wb-strip > *").nth(2).click()
    idle(ran)
    assert cell(ran) == (layer, 2)
    assert chosen == {
        node.get_attribute("data-wb-expert") for node in ran.locator('[data-wb-chosen="true"]').all()
    }


def test_the_base_runs_routes_are_replayed_where_the_plan_leaves_room(
    page: Any, ran: Any, idle: Callable[[Any], None]
) -> None:
    layer, _ = cell(ran)
    ran.locator('[data-wb-state="chosen"] [data-wb-action="ban"]').first.click()
    idle(ran)
    replay = ran.locator('[data-wb-action="replay"]')
    assert replay.is_disabled() and "take out “ban expert" in replay.get_attribute("title")
    ran.locator(".wb-map-canvas").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    idle(ran)
    assert cell(ran)[0] == layer + 1
    act(ran, "replay", idle)
    assert edits(ran)[1].startswith("Replay the routes of run") and f"in layer {layer + 1}" in edits(ran)[1]
    assert ran.locator("[data-wb-error]").count() == 0


def test_pointing_tells_and_labels_mark_rows_and_columns(
    page: Any, ran: Any, idle: Callable[[Any], None]
) -> None:
    chart = ran.locator("[data-wb-map]")
    tokens, layers = int(chart.get_attribute("data-wb-tokens")), int(chart.get_attribute("data-wb-layers"))
    box = ran.locator(".wb-map-canvas").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + box["height"] - 60)
    page.wait_for_timeout(200)
    assert (
        "token" in ran.locator(".wb-readout").inner_text()
        and "margin" in ran.locator(".wb-readout").inner_text()
    )
    page.mouse.click(box["x"] + 20, box["y"] + box["height"] - 14)
    idle(ran)
    assert chart.get_attribute("data-wb-box") == f"{layers - 1}-{layers - 1},0-{tokens - 1}"
    assert f"layer {layers - 1}, tokens 0 to {tokens - 1}" in ran.locator("[data-wb-cell]").inner_text()
    act(ran, "unmark", idle)
    page.mouse.click(box["x"] + 130, box["y"] + 8)
    idle(ran)
    marked, column = chart.get_attribute("data-wb-box").split(",")
    first, last = column.split("-")
    assert marked == f"0-{layers - 1}" and first == last
    ran.locator('[data-wb-expert] [data-wb-action="force"]').first.click()
    idle(ran)
    (text,) = edits(ran)
    assert f"in layers {', '.join(map(str, range(layers)))}, token {first}" in text
    act(ran, "undo", idle)
    assert edits(ran) == []


def test_pictures_and_a_query_to_pass_on(page: Any, ran: Any, idle: Callable[[Any], None], lab: Any) -> None:
    with page.expect_download() as picture:
        ran.locator('[data-wb-action="picture"]').click()
    assert Path(picture.value.path()).read_bytes().startswith(b"\x89PNG")
    ran.locator('[data-wb-tab="charts"]').click()
    chart = ran.locator('[data-wb-chart="load"][data-wb-drawn]')
    with page.expect_download() as drawn:
        chart.locator('[data-wb-action="figure"]').click()
    assert Path(drawn.value.path()).read_text().startswith("<svg")
    ran.locator('[data-wb-tab="sql"]').click()
    idle(ran)
    ran.locator("[data-wb-query]").fill('SELECT 42 AS "answer & more"')
    act(ran, "link", idle)
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(lab.url)
    other = page.context.new_page()
    other.goto(link)
    query = other.locator("[data-wb-query]")
    query.wait_for()
    assert query.input_value() == 'SELECT 42 AS "answer & more"'
    other.wait_for_function("document.querySelector('[data-wb-panel]').dataset.wbBusy === 'false'")
    assert other.locator("[data-wb-answer]:visible").count() == 0, "it is not asked by itself"
    other.close()


def test_who_asks_for_less_motion_gets_less(page: Any, ran: Any) -> None:
    moving = """() => {
      const run = document.querySelector('[data-wb-action="run"]');
      run.classList.add('wb-working');
      const name = getComputedStyle(run, '::after').animationName;
      run.classList.remove('wb-working');
      return name;
    }"""
    assert page.evaluate(moving) != "none"
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moving) == "none"
    page.emulate_media(reduced_motion="no-preference")


def test_the_tab_key_reaches_every_control(page: Any, ran: Any, idle: Callable[[Any], None]) -> None:
    ran.locator('[data-wb-state="chosen"] [data-wb-action="ban"]').first.click()
    idle(ran)
    act(ran, "heads", idle)
    act(ran, "form", idle)
    wanted = page.evaluate(
        """() => [...document.querySelectorAll('.wb-panel :is(button, select, input, textarea, canvas, summary)')]
          .filter(node => !node.disabled && node.tabIndex >= 0 && node.checkVisibility() && node.type !== 'file')
          .map((node, number) => (node.dataset.reach = String(number)))"""
    )
    ran.locator("[data-wb-prompt]").focus()
    seen = set()
    for _ in range(len(wanted) + 60):
        seen.add(page.evaluate("document.activeElement.dataset.reach ?? ''"))
        page.keyboard.press("Tab")
    ran.locator("[data-wb-prompt]").focus()
    for _ in range(20):  # what stands before the prompt
        page.keyboard.press("Shift+Tab")
        seen.add(page.evaluate("document.activeElement.dataset.reach ?? ''"))
    missed = sorted(set(wanted) - seen)
    assert len(wanted) > 70
    assert [
        page.locator(f'[data-reach="{number}"]').evaluate("node => node.outerHTML.slice(0, 150)")
        for number in missed
    ] == []
