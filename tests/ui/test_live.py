"""Live generation, trials and the plan's tools, as a user goes through them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PROMPT = "The capital of France is Paris, and the capital of Germany is"


@pytest.fixture(scope="module")
def page(new_page: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
    """One page for this file: its tests share a kernel, so that only the first waits for a model to load."""
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


def press(panel: Any, action: str, idle: Callable[[Any], None]) -> None:
    panel.locator(f'[data-wb-action="{action}"]').first.click()
    idle(panel)


def generated(panel: Any) -> int:
    return int(panel.locator("[data-wb-live]").get_attribute("data-wb-generated"))


def text(panel: Any, side: str) -> list[str]:
    return panel.locator(f'[data-wb-text="{side}"] > span').all_inner_texts()


def audit(page: Any) -> list[Any]:
    """What axe finds wrong in the panel."""
    from axe_playwright_python.sync_playwright import Axe

    found = (
        Axe().run(page, context=".wb-panel", options={"resultTypes": ["violations"]}).response["violations"]
    )
    return [
        (v["id"], [n["html"][:160] for n in v["nodes"][:3]], v["nodes"][0]["failureSummary"]) for v in found
    ]


def test_generate_pause_edit_rewind_and_branch(
    page: Any, ran: Any, idle: Callable[[Any], None], shot: Callable[[str], None]
) -> None:
    live = ran.locator("[data-wb-live]")
    start = int(ran.locator("[data-wb-map]").get_attribute("data-wb-tokens"))
    press(ran, "step", idle)
    press(ran, "step", idle)
    assert generated(ran) == 2 and live.get_attribute("data-wb-live") == "paused"
    assert int(ran.locator("[data-wb-map]").get_attribute("data-wb-tokens")) == start + 2
    assert len(text(ran, "base")) == 2 and ran.locator('[data-wb-text="edited"]').count() == 0

    ran.locator('[data-wb-action="generate"]').click()
    page.wait_for_function("Number(document.querySelector('[data-wb-live]').dataset.wbGenerated) >= 5")
    assert live.get_attribute("data-wb-live") == "running"
    assert ran.get_attribute("data-wb-busy") == "true"
    # While tokens come, the plan is edited: the kernel answers between two tokens.
    ran.locator('[data-wb-expert][data-wb-native="true"] [data-wb-action="ban"]').first.click()
    ran.locator('[data-wb-text="edited"]').wait_for()
    page.wait_for_function("document.querySelector('[data-wb-live]').dataset.wbDiverged || "
                           "Number(document.querySelector('[data-wb-live]').dataset.wbGenerated) >= 30")  # fmt: skip
    if ran.locator('[data-wb-action="pause"]').is_visible():
        ran.locator('[data-wb-action="pause"]').click()
    idle(ran)
    count = generated(ran)
    assert live.get_attribute("data-wb-live") in ("paused", "ended") and count >= 5
    label = ran.locator("[data-wb-run]")
    assert label.get_attribute("data-wb-base") != label.get_attribute("data-wb-run")
    base, edited = text(ran, "base"), text(ran, "edited")
    parted = live.get_attribute("data-wb-diverged")
    wanted = next((n for n, pair in enumerate(zip(base, edited, strict=False)) if len(set(pair)) > 1), None)
    assert parted == (None if wanted is None else str(start + wanted))
    assert ran.locator(".wb-diverged").count() == (0 if parted is None else 2)
    shot("live")

    ran.locator('[data-wb-tab="compare"]').click()
    idle(ran)
    assert "still being generated" in ran.locator('[data-wb-view="compare"]').inner_text()
    assert (
        ran.locator("[data-wb-error]").count() == 0
        and ran.locator('[data-wb-action="compare-view"]').is_disabled()
    )
    ran.locator('[data-wb-tab="map"]').click()
    ran.locator('[data-wb-text="edited"] > span').nth(1).click()
    idle(ran)
    press(ran, "rewind", idle)
    assert generated(ran) == 2 and live.get_attribute("data-wb-live") == "paused"
    press(ran, "branch", idle)
    press(ran, "step", idle)
    branches = ran.get_by_label("Branch in view")
    assert branches.locator("option").all_inner_texts() == ["branch 1 · 2 tokens", "branch 2 · 3 tokens"]
    branches.select_option("0")
    idle(ran)
    assert generated(ran) == 2 and live.get_attribute("data-wb-live") == "paused"

    ran.locator('[data-wb-action="step"]').focus()
    page.keyboard.press("Enter")
    idle(ran)
    assert generated(ran) == 3, "by keyboard as well"
    press(ran, "run", idle)
    assert live.get_attribute("data-wb-live") == "" and generated(ran) == 0
    assert int(ran.locator("[data-wb-map]").get_attribute("data-wb-tokens")) == start


def test_every_expert_is_tried_and_the_best_goes_into_the_plan(
    page: Any, ran: Any, idle: Callable[[Any], None], shot: Callable[[str], None]
) -> None:
    press(ran, "try", idle)
    cell = ran.locator("[data-wb-cell]").get_attribute("data-wb-cell")
    assert ran.locator("[data-wb-trials]").get_attribute("data-wb-trials") == cell
    chosen = ran.locator('[data-wb-expert][data-wb-chosen="true"]').count()
    experts = ran.locator("[data-wb-expert]").count()
    trials = ran.locator("[data-wb-trial]")
    assert trials.count() == chosen * (experts - chosen)
    amounts = [row.locator(".wb-number").nth(1).inner_text() for row in trials.all()]
    values = [float(amount.replace("−", "-")) for amount in amounts]
    assert values == sorted(values, reverse=True) and values[0] > values[-1]
    removed, entered = trials.first.get_attribute("data-wb-trial").split(",")
    trials.first.locator("button").focus()
    page.keyboard.press("Enter")
    idle(ran)
    shot("trials")
    assert ran.locator("[data-wb-edit]").count() == 2
    assert ran.locator(f'[data-wb-expert="{removed}"]').get_attribute("data-wb-chosen") == "false"
    assert ran.locator(f'[data-wb-expert="{entered}"]').get_attribute("data-wb-chosen") == "true"
    press(ran, "undo", idle)
    assert ran.locator("[data-wb-edit]").count() == 0
    press(ran, "close", idle)
    assert not ran.locator("[data-wb-trials]").is_visible()


def test_boost_reorder_copy_save_and_load(
    page: Any, ran: Any, idle: Callable[[Any], None], tmp_path: Any
) -> None:
    row = ran.locator('[data-wb-expert][data-wb-chosen="false"]').first
    number = row.get_attribute("data-wb-expert")
    row = ran.locator(f'[data-wb-expert="{number}"]')
    for _ in range(2):
        row.locator('[data-wb-action="boost"]').click()
        idle(ran)
    assert ran.locator('[data-wb-edit="reroute.bias"]').count() == 1
    assert re.search(rf"expert {number} by \+2", ran.locator("[data-wb-edit]").inner_text())
    row.locator('[data-wb-action="boost"]').click(modifiers=["Shift"])
    idle(ran)
    assert re.search(rf"expert {number} by \+1", ran.locator("[data-wb-edit]").inner_text())
    ran.locator('[data-wb-expert][data-wb-state="chosen"] [data-wb-action="ban"]').first.click()
    idle(ran)
    kinds = [edit.get_attribute("data-wb-edit") for edit in ran.locator("[data-wb-edit]").all()]
    ran.locator("[data-wb-edit]").first.locator('[data-wb-action="down"]').click()
    idle(ran)
    moved = [edit.get_attribute("data-wb-edit") for edit in ran.locator("[data-wb-edit]").all()]
    assert moved == kinds[::-1] == ["reroute.ban", "reroute.bias"]
    plan = ran.locator("[data-wb-plan]").get_attribute("data-wb-plan")

    press(ran, "copy", idle)
    code = page.evaluate("navigator.clipboard.readText()")
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["plan"].hash == plan, code
    with page.expect_download() as saving:
        ran.locator('[data-wb-action="save"]').click()
    file = tmp_path / saving.value.suggested_filename
    saving.value.save_as(file)
    assert [edit["kind"] for edit in json.loads(file.read_text())["edits"]] == moved
    press(ran, "clear", idle)
    ran.get_by_label("Plan file").set_input_files(file)
    ran.locator("[data-wb-edit]").nth(1).wait_for()
    idle(ran)
    assert ran.locator("[data-wb-plan]").get_attribute("data-wb-plan") == plan
    file.write_text('{"version": 1, "edits": [{"kind": "reroute.<b>wish</b>", "layers": [1]}]}')
    ran.get_by_label("Plan file").set_input_files(file)
    ran.locator("[data-wb-error]").wait_for()
    idle(ran)
    assert "unknown kind" in ran.locator("[data-wb-error]").get_attribute("data-wb-error")
    assert ran.locator("[data-wb-error] b").count() == 0
    assert ran.locator("[data-wb-plan]").get_attribute("data-wb-plan") == plan


def test_one_key_flips_the_map(page: Any, ran: Any, idle: Callable[[Any], None]) -> None:
    chart = ran.locator("[data-wb-map]")
    page.keyboard.press("b")
    idle(ran)
    assert ran.locator("[data-wb-prompt]").input_value() == PROMPT + "b", "in a text field it is a letter"
    ran.locator('[data-wb-expert][data-wb-state="chosen"] [data-wb-action="ban"]').first.click()
    idle(ran)
    assert chart.get_attribute("data-wb-side") == "edited"
    ran.locator(".wb-map-canvas").focus()
    edited = ran.locator(".wb-map-canvas").screenshot()
    for side in ("base", "edited"):
        page.keyboard.press("b")
        idle(ran)
        assert chart.get_attribute("data-wb-side") == side
        assert (ran.locator(".wb-map-canvas").screenshot() == edited) == (side == "edited")
    press(ran, "side", idle)
    assert chart.get_attribute("data-wb-side") == "base"


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_live_and_trials_are_accessible_in_both_themes(
    page: Any, ran: Any, idle: Callable[[Any], None], shot: Callable[[str], None], theme: str
) -> None:
    page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    page.wait_for_timeout(1500)
    press(ran, "try", idle)
    ran.locator('[data-wb-expert][data-wb-state="chosen"] [data-wb-action="ban"]').first.click()
    idle(ran)
    for _ in range(4):
        press(ran, "step", idle)
    shot(f"live-{theme.split()[1].lower()}")
    assert audit(page) == []
    page.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})")
    page.wait_for_timeout(1500)
