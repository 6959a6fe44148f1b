"""What is skipped and masked by a click, experiments while they run, a panel that nobody sees, and pictures against rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

README = Path(__file__).resolve().parents[2] / "extension/README.md"
PROMPT = "The capital of France is Paris, and the capital of Germany is"
# A sweep that waits after its fifth run until a file exists: the panel, which asks from time to time, sees it running.
SWEEP = """
import itertools, pathlib, time
import workbench as wb
from workbench.experiments import sweep
ran, run = itertools.count(1), bench.run
def waiting(*prompt, **options):
    while next(ran) > 5 and not pathlib.Path({go!r}).exists():
        time.sleep(0.05)
    return run(*prompt, **options)
bench.run = waiting
plans = {{"<b>ban</b>": wb.Plan([wb.reroute.ban(1, [2])]), "skip": wb.Plan([wb.skip.block(2)])}}
sweep(bench, ["One two three four", "The capital of France is", "Once upon a time"], plans, name="<i>sweep</i>", controls=2)
del bench.run
"""
# Colours of the cells on the map's canvas, beside the number in each: [layer][token] as [r, g, b].
_PIXELS = """([layers, tokens]) => {
  const canvas = document.querySelector('.wb-map-canvas');
  const scale = canvas.width / canvas.clientWidth;
  const [gutter, tail, height] = [34, 34, 24];
  const room = document.querySelector('.wb-map-scroll').clientWidth - gutter - tail;
  const width = Math.max(13, Math.min(44, room / tokens));
  const head = canvas.clientHeight - layers * height - 2;
  const context = canvas.getContext('2d');
  const at = (layer, token) => {
    const x = Math.round((gutter + (token + 0.5) * width - 5) * scale);
    const y = Math.round((head + (layer + 0.5) * height + 6) * scale);
    return [...context.getImageData(x, y, 1, 1).data].slice(0, 3);
  };
  return [...Array(layers).keys()].map(layer => [...Array(tokens).keys()].map(token => at(layer, token)));
}"""
_OVERFLOWS = """() => [...document.querySelectorAll('.wb-panel *')].filter(node => {
  const style = getComputedStyle(node);
  const panel = node.closest('.wb-panel').getBoundingClientRect();
  const box = node.getBoundingClientRect();
  if (box.width === 0 || style.position === 'absolute' || (box.right <= panel.right + 1 && box.left >= panel.left - 1)) {
    return false;
  }
  for (let up = node; !up.matches('.wb-panel'); up = up.parentElement) {
    if (getComputedStyle(up).overflowX !== 'visible') {
      return false;
    }
  }
  return true;
}).map(node => node.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def page(new_page: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
    """One page for this file: its tests share a kernel."""
    with new_page() as page:
        yield page


def act(panel: Any, action: str) -> Any:
    return panel.locator(f'[data-wb-action="{action}"]:visible').first


def kernel(page: Any, code: str, wait: bool) -> None:
    """Run code in the panel's own kernel."""
    page.evaluate(
        """async ([code, wait]) => {
          const panel = [...window.jupyterapp.shell.widgets('main')].find(widget => widget.app && widget.session);
          const future = panel.session.session.kernel.requestExecute({ code, store_history: false });
          if (wait) { await future.done; }
        }""",
        [code, wait],
    )


def ran(page: Any, card: Callable[[], Any], idle: Callable[[Any], None]) -> Any:
    panel = card()
    panel.locator("[data-wb-prompt]").fill(PROMPT)
    page.keyboard.press("Enter")
    idle(panel)
    return panel


def test_sublayers_neurons_and_contributions(
    page: Any, card: Callable[[], Any], idle: Callable[[Any], None], shot: Callable[[str], None]
) -> None:
    panel = ran(page, card, idle)
    act(panel, "contributions").click()
    idle(panel)
    cell = panel.locator("[data-wb-cell]")
    assert cell.get_attribute("data-wb-contributions") == cell.get_attribute("data-wb-cell")
    chosen = panel.locator('[data-wb-chosen="true"]')
    effects = [float(row.get_attribute("data-wb-effect")) for row in chosen.all()]
    assert len(effects) == 2 and all(abs(effect) < 100 for effect in effects)
    assert panel.locator('[data-wb-chosen="false"][data-wb-effect]').count() == 0
    assert "Act on" in cell.inner_text() and "for all tokens" in cell.inner_text(), (
        "the scope is said in words"
    )

    layer, token = map(int, cell.get_attribute("data-wb-cell").split(","))
    tokens = int(panel.locator("[data-wb-map]").get_attribute("data-wb-tokens"))
    panel.get_by_label("Clicks act on").select_option("token")
    assert f"in layer {layer} for token {token} alone" in cell.inner_text()
    act(panel, "skip-attention").click()
    idle(panel)
    panel.get_by_label("Clicks act on").select_option("all")
    act(panel, "skip-mlp").click()
    idle(panel)
    act(panel, "mask-neurons").focus()
    page.keyboard.press("Enter")
    idle(panel)
    kinds = [edit.get_attribute("data-wb-edit") for edit in panel.locator("[data-wb-edit]").all()]
    assert kinds == ["skip.attention", "skip.mlp", "mask.neurons"]
    assert f"token {token}" in panel.locator('[data-wb-edit="skip.attention"]').inner_text()
    assert act(panel, "skip-mlp").get_attribute("aria-pressed") == "true"
    assert act(panel, "skip-attention").get_attribute("aria-pressed") == "false", "another scope"
    panel.get_by_label("Colour by").select_option("depth")
    idle(panel)
    assert panel.locator("[data-wb-map]").get_attribute("data-wb-color") == "depth"
    assert "attention skipped, MLP skipped" in cell.inner_text()
    panel.get_by_text("The map as a table").click()
    row = panel.locator(".wb-map-table tbody tr").nth(layer).locator("td")
    row.nth(tokens - 1).wait_for()
    table = row.all_inner_texts()
    assert table == ["MLP skipped"] * token + ["attention skipped"] + ["MLP skipped"] * (
        len(table) - token - 1
    )
    shot("depth")
    for action in ("skip-mlp", "mask-neurons"):
        act(panel, action).click()
        idle(panel)
    assert panel.locator("[data-wb-edit]").count() == 1, "the same click takes it back"

    # The least active neurons have to be measured first: on this prompt, or on what has been recorded.
    assert not panel.get_by_label("Activity measured on").is_visible()
    panel.get_by_label("Which neurons").select_option("activation")
    for texts, words in (
        ("prompt", f"Measured on the {tokens} tokens of the prompt"),
        ("runs", "texts of the store"),
    ):
        panel.get_by_label("Activity measured on").select_option(texts)
        assert "Mask first reads" in cell.inner_text()
        act(panel, "mask-neurons").click()
        panel.locator('[data-wb-edit="mask.neurons"]').wait_for()
        idle(panel)
        assert "by activation" in panel.locator('[data-wb-edit="mask.neurons"]').inner_text()
        assert words in cell.inner_text()
        shot(f"mask-by-activation-{texts}")
        act(panel, "mask-neurons").click()
        idle(panel)
        assert panel.locator('[data-wb-edit="mask.neurons"]').count() == 0


def test_the_picture_is_of_the_rows(page: Any, card: Callable[[], Any], idle: Callable[[Any], None]) -> None:
    """Every cell's colour on the canvas, against the table beside it: one colour an expert, another for another."""
    panel = ran(page, card, idle)
    page.mouse.move(5, 5)
    panel.get_by_text("The map as a table").click()
    panel.locator(".wb-map-table tbody tr").first.wait_for()
    rows = [row.locator("td").all_inner_texts() for row in panel.locator(".wb-map-table tbody tr").all()]
    chart = panel.locator("[data-wb-map]")
    tokens, layers = int(chart.get_attribute("data-wb-tokens")), int(chart.get_attribute("data-wb-layers"))
    assert len(rows) == layers and len(rows[0]) == tokens
    colours: dict[str, set[tuple[int, ...]]] = {}
    for row, pixels in zip(rows, page.evaluate(_PIXELS, [layers, tokens]), strict=True):
        for text, pixel in zip(row, pixels, strict=True):
            colours.setdefault(text.split()[0], set()).add(tuple(pixel))
    assert len(colours) > 8 and all(len(found) == 1 for found in colours.values()), colours
    assert len({colour for found in colours.values() for colour in found}) == len(colours)


def test_an_experiment_is_followed_while_it_runs(
    page: Any,
    card: Callable[[], Any],
    idle: Callable[[Any], None],
    shot: Callable[[str], None],
    tmp_path: Path,
) -> None:
    panel = ran(page, card, idle)
    panel.locator('[data-wb-tab="experiments"]').click()
    go = tmp_path / "go"
    kernel(page, SWEEP.format(go=str(go)), wait=False)
    one = panel.locator("[data-wb-experiment]").first
    one.and_(page.locator('[data-wb-running="true"]')).wait_for()
    begun = int(one.get_attribute("data-wb-done"))
    assert begun <= 5
    go.touch()
    page.wait_for_function(
        "done => Number(document.querySelector('[data-wb-experiment]').dataset.wbDone) > done", arg=begun
    )
    shot("experiment-running")
    page.wait_for_function("() => document.querySelector('[data-wb-experiment]').dataset.wbDone === '21'")
    one.get_by_text("complete").wait_for()
    assert one.get_attribute("data-wb-running") == "false"
    assert "<i>sweep</i>" in one.inner_text() and "<b>ban</b>, random controls" in one.inner_text()
    assert panel.locator("i, b").count() == 0
    act(panel, "experiment-runs").click()
    idle(panel)
    assert panel.locator("[data-wb-run-row]").count() == 21
    panel.get_by_label("Find runs").fill("capital of Germany")
    page.wait_for_timeout(400)
    idle(panel)
    act(panel, "replay-run").click()
    idle(panel)
    assert panel.locator('[data-wb-edit="reroute.replay"]').count() == 1
    panel.get_by_label("Colour by").select_option("flip")
    assert " 0 of " in f" {panel.locator('.wb-legend').inner_text()}", "a run's own routes change nothing"


def test_a_panel_that_nobody_sees_is_sent_nothing(
    page: Any, card: Callable[[], Any], idle: Callable[[Any], None]
) -> None:
    panel = ran(page, card, idle)
    kernel(page, "pass", wait=True)  # behind a kernel's first cell its panels are told which benches it has
    page.evaluate("() => window.jupyterapp.commands.execute('launcher:create', {})")
    page.wait_for_function("() => document.querySelector('[data-wb-panel]').offsetParent === null")
    page.wait_for_timeout(500)
    page.evaluate(
        """() => {
          const panel = [...window.jupyterapp.shell.widgets('main')].find(widget => widget.app && widget.session);
          const { stream } = panel.channel;
          const own = stream.onMsg;
          window.told = [];
          stream.onMsg = post => {
            window.told.push(...post.content.data.messages.map(message => message.type));
            own(post);
          };
        }"""
    )
    code = """
from workbench.panel import comms
session = next(iter(comms._served.benches.find().values())).session
for _ in range(3): session.step()
"""
    kernel(page, code, wait=True)
    assert page.evaluate("window.told") == []
    page.evaluate("() => window.jupyterapp.shell.activateById(document.querySelector('.wb-host').id)")
    panel.locator('[data-wb-live][data-wb-generated="3"]').wait_for()
    idle(panel)
    assert {"state", "map", "cell", "next"} <= set(page.evaluate("window.told")), (
        "and catches up when it is seen again"
    )


def test_nothing_sticks_out_at_any_width(
    page: Any, card: Callable[[], Any], idle: Callable[[Any], None]
) -> None:
    """Every view in a wide window, in a narrow one, and in a strip beside a notebook."""
    panel = ran(page, card, idle)
    found = {}
    for width in (1500, 1000, 700):
        page.set_viewport_size({"width": width, "height": 900})
        for tab in ("map", "charts", "compare", "runs", "experiments", "sql"):
            panel.locator(f'[data-wb-tab="{tab}"]').click()
            idle(panel)
            found[width, tab] = page.evaluate(_OVERFLOWS)
    page.set_viewport_size({"width": 1400, "height": 950})
    assert found == dict.fromkeys(found, [])


def test_every_button_is_documented_and_named(
    page: Any, card: Callable[[], Any], idle: Callable[[Any], None]
) -> None:
    """What tools press stands in the table of the extension's README, and has a name to be read out."""
    panel = ran(page, card, idle)
    act(panel, "form").click()
    act(panel, "heads").click()
    act(panel, "try").click()
    idle(panel)
    readme = README.read_text()
    buttons = page.evaluate(
        """() => [...document.querySelectorAll('.wb-panel [data-wb-action]')].map(node =>
             [node.dataset.wbAction, node.getAttribute('aria-label') || node.textContent.trim() || node.title])"""
    )
    assert len(buttons) > 80 and [action for action, _ in buttons if f"`{action}`" not in readme] == []
    assert [action for action, name in buttons if not name.strip()] == []
    act(panel, "cancel").click()
