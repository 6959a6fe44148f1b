"""Kernels and pages: a notebook's bench, a busy kernel, reload, restart, the inline view, a kernel without workbench."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PROMPT = "The capital of France is Paris"
OPEN = "import workbench as wb\nbench = wb.open(store=':memory:')\nprint('ready')"
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def write_notebook(lab: Any, name: str, cells: list[str]) -> None:
    made = [
        {
            "cell_type": "code",
            "id": f"c{n}",
            "metadata": {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for n, source in enumerate(cells)
    ]
    (lab.folder / name).write_text(
        json.dumps({"cells": made, "metadata": KERNEL, "nbformat": 4, "nbformat_minor": 5})
    )


def open_notebook(page: Any, lab: Any, name: str, cells: list[str]) -> None:
    write_notebook(lab, name, cells)
    page.evaluate(
        """async path => {
            const panel = await window.jupyterapp.commands.execute('docmanager:open', { path });
            await panel.context.ready;
            await panel.sessionContext.ready;
            await panel.sessionContext.session.kernel.info;
        }""",
        name,
    )


def run_cell(page: Any, number: int) -> Any:
    """Starts a cell; returns its output area."""
    cell = page.locator(".jp-CodeCell").nth(number)
    cell.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    return cell.locator(".jp-OutputArea-output")


def run_prompt(page: Any, panel: Any, idle: Callable[[Any], None]) -> None:
    panel.locator("[data-wb-prompt]").fill(PROMPT)
    page.keyboard.press("Enter")
    idle(panel)


def test_a_panel_borrows_the_notebooks_kernel(
    page: Any, lab: Any, idle: Callable[[Any], None], shot: Callable[[str], None]
) -> None:
    open_notebook(
        page, lab, "borrow.ipynb", [OPEN, "import time\nfor n in range(40): time.sleep(0.2)\nprint('slept')"]
    )
    page.locator(".jp-Notebook").click()
    page.keyboard.press("Control+Alt+w")
    panel = page.locator("[data-wb-panel]")
    panel.get_by_text("No bench in this kernel yet").wait_for()
    shot("no-bench")
    run_cell(page, 0).get_by_text("ready").wait_for()
    panel.locator("[data-wb-prompt]").wait_for()
    idle(panel)
    run_prompt(page, panel, idle)
    shot("borrowed")

    out = run_cell(page, 1)
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="busy"]', state="attached")
    plan = panel.locator("[data-wb-plan]")
    before = plan.get_attribute("data-wb-plan")
    took = page.evaluate(
        """() => new Promise(done => {
            const plan = document.querySelector('[data-wb-plan]');
            const start = performance.now();
            new MutationObserver(() => requestAnimationFrame(() => done(performance.now() - start)))
              .observe(plan, { attributes: true, attributeFilter: ['data-wb-plan'] });
            document.querySelector('[data-wb-state="chosen"] [data-wb-action="ban"]').click();
        })"""
    )
    assert plan.get_attribute("data-wb-plan") != before
    assert out.get_by_text("slept").count() == 0, "the cell still runs"
    print(f"click to repaint while a cell runs: {took:.0f} ms")
    assert took < 2000, "answered while the cell runs, not after it"
    assert panel.locator('[data-wb-state="banned"]').count() == 1
    assert panel.get_attribute("data-wb-busy") == "true", "the forward pass waits for the cell, and says so"
    out.get_by_text("slept").wait_for()
    idle(panel)
    assert panel.locator("[data-wb-next] tbody tr td").nth(1).inner_text() != "–"

    page.locator('.jp-NotebookPanel-toolbar [data-jp-item-name="workbench"] jp-button, '
                 '.jp-NotebookPanel-toolbar [data-jp-item-name="workbench"] button').first.click()  # fmt: skip
    page.wait_for_timeout(500)
    assert page.locator("[data-wb-panel]").count() == 1, "the button finds the panel that is there"


def test_the_inline_view_and_the_panel_agree(
    page: Any, lab: Any, idle: Callable[[Any], None], shot: Callable[[str], None]
) -> None:
    open_notebook(page, lab, "inline.ipynb", [OPEN, "bench.panel()"])
    run_cell(page, 0).get_by_text("ready").wait_for()
    run_cell(page, 1)
    inline = page.locator(".jp-OutputArea [data-wb-panel]")
    inline.locator("[data-wb-prompt]").wait_for()
    idle(inline)
    run_prompt(page, inline, idle)
    inline.locator('[data-wb-state="chosen"] [data-wb-action="ban"]').first.click()
    idle(inline)
    assert inline.locator("[data-wb-edit]").count() == 1
    shot("inline")
    cells = page.locator(".jp-CodeCell").count()
    inline.locator(".wb-map-canvas").focus()
    page.keyboard.press("b")
    assert page.locator(".jp-CodeCell").count() == cells, "keys in the view are not commands of the notebook"
    page.evaluate("window.jupyterapp.commands.execute('workbench:open-notebook').then(() => 0)")
    panel = page.locator(".wb-host [data-wb-panel]")
    panel.locator("[data-wb-prompt]").wait_for()
    idle(panel)
    for attribute in ("data-wb-plan", "data-wb-run", "data-wb-cell"):
        one, other = (view.locator(f"[{attribute}]").get_attribute(attribute) for view in (inline, panel))
        assert one == other
    panel.locator('[data-wb-action="undo"]').click()
    idle(panel)
    inline.locator("[data-wb-edit]").wait_for(state="detached")


def test_the_panel_comes_back_after_a_reload_and_after_a_restart(
    page: Any, card: Callable[[], Any], idle: Callable[[Any], None]
) -> None:
    panel = card()
    run_prompt(page, panel, idle)
    panel.locator('[data-wb-state="chosen"] [data-wb-action="ban"]').first.click()
    idle(panel)
    plan = panel.locator("[data-wb-plan]").get_attribute("data-wb-plan")
    run = panel.locator("[data-wb-run]").get_attribute("data-wb-run")
    page.wait_for_timeout(1500)  # JupyterLab saves its layout a second after a change
    page.reload()
    panel = page.locator("[data-wb-panel]")
    panel.locator("[data-wb-run]").wait_for()
    idle(panel)
    assert panel.locator("[data-wb-run]").get_attribute("data-wb-run") == run, (
        "the kernel had kept everything"
    )
    assert panel.locator("[data-wb-plan]").get_attribute("data-wb-plan") == plan
    assert panel.locator("[data-wb-prompt]").input_value() == PROMPT
    assert page.locator("[data-wb-panel]").count() == 1

    page.locator(
        '.wb-host [data-jp-item-name="restart"] jp-button, .wb-host [data-jp-item-name="restart"] button'
    ).first.click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    page.locator(f'[data-wb-run]:not([data-wb-run="{run}"])').wait_for()
    idle(panel)
    assert panel.locator("[data-wb-plan]").get_attribute("data-wb-plan") == plan, (
        "a new kernel takes up the plan"
    )
    assert (
        panel.locator("[data-wb-edit]").count() == 1
        and panel.locator("[data-wb-prompt]").input_value() == PROMPT
    )
    assert panel.locator("[data-wb-next] tbody tr td").nth(1).inner_text() != "–"


def test_a_kernel_without_workbench_says_what_to_install(
    page: Any, lab: Any, shot: Callable[[str], None]
) -> None:
    blocked = "import sys\nsys.modules['workbench'] = None\nprint('blocked')"
    open_notebook(page, lab, "without.ipynb", [blocked, "del sys.modules['workbench']\nprint('freed')"])
    run_cell(page, 0).get_by_text("blocked").wait_for()
    page.evaluate("window.jupyterapp.commands.execute('workbench:open-notebook').then(() => 0)")
    error = page.locator("[data-wb-error]")
    error.wait_for()
    assert (
        "could not load the workbench" in error.get_attribute("data-wb-error")
        and "Install" in error.inner_text()
    )
    shot("no-workbench")
    run_cell(page, 1).get_by_text("freed").wait_for()
    error.locator('[data-wb-action="retry"]').click()
    page.locator("[data-wb-panel]").get_by_text("No bench in this kernel yet").wait_for()


def test_the_palette_opens_it_and_a_second_panel_has_a_kernel_of_its_own(
    page: Any, idle: Callable[[Any], None]
) -> None:
    for number in (1, 2):
        page.keyboard.press("Control+Shift+c")
        page.locator(
            ".lm-CommandPalette-input, .jp-CommandPalette-input input, #modal-command-palette input"
        ).first.fill("Open the Routing Workbench")
        page.keyboard.press("Enter")
        panel = page.locator("[data-wb-panel]").nth(number - 1)
        panel.locator("[data-wb-prompt]").wait_for()
        idle(panel)
    kernels = page.evaluate(
        "[...window.jupyterapp.serviceManager.sessions.running()].map(session => session.kernel.id)"
    )
    assert len(set(kernels)) == 2
