"""The panel's own time, in a real JupyterLab and Chromium on this machine; prints JSON.

Click to repaint of plan and inspector (idle, while a cell computes, and while a cell generates 30 tokens a second into the
panel), how many of 30 steps a second are drawn, what a hidden panel is sent, first paint of the largest map (32,000 tokens,
48 layers, 128 experts) and of its zoomed views.

A click has two times: until what was asked for stands in plan and inspector, marked as pending, and until the kernel has
taken it up and both show that. Times run from the event in the page to the end of the frame in which the change is painted.
Beside the second stands Jupyter's own part of it: a bare comm message to the kernel and its answer, over comms like the
panel's. Of the model there is no pass in either: the kernel answers a click before the new plan is run, so that nothing is
to be subtracted; what a running cell or generation costs a click by keeping cores and interpreter busy is in it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT), str(ROOT / "kernels")]

from figures import figure, publish
from lab import Panel, chromium, jupyterlab
from synthetic_run import write_synthetic_run

# Click, then wait until the change stands in the plan as asked for, and until its hash on the page is another one. What is
# posted in a frame's callback comes after that frame has been painted.
_CLICK = """selector => new Promise((done, fail) => {
  const plan = document.querySelector('[data-wb-plan]');
  const before = plan.dataset.wbPlan;
  const start = performance.now();
  const painted = then => requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => then(performance.now() - start);
    channel.port2.postMessage(null);
  });
  const times = {};
  const note = name => painted(time => {
    times[name] ??= time;
    if ('asked' in times && 'confirmed' in times) { done(times); }
  });
  const seen = new MutationObserver(() => {
    if (plan.dataset.wbPlan !== before) {
      seen.disconnect();
      note('asked');
      note('confirmed');
    } else if (plan.dataset.wbPending) {
      note('asked');
    }
  });
  seen.observe(plan, { attributes: true });
  setTimeout(() => fail(new Error('no answer')), 30000);
  document.querySelector(selector).click();
})"""
# From an action until every tile in sight is there and drawn.
_PAINTED = """action => new Promise((done, fail) => {
  const start = performance.now();
  eval(action);
  const map = () => document.querySelector('[data-wb-map]');
  const look = () => {
    const node = map();
    if (node && node.dataset.wbTokens === '32000' && node.dataset.wbMissing === '0') {
      requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
    } else {
      requestAnimationFrame(look);
    }
  };
  setTimeout(() => fail(new Error('not painted')), 60000);
  requestAnimationFrame(() => requestAnimationFrame(look));
})"""
# Turn to the list of runs and, as soon as the one is there (among those whose model has that name), open it.
_SHOW = """document.querySelector('[data-wb-tab="runs"]').click();
const search = document.querySelector('[data-wb-view="runs"] input[type="search"]');
search.value = 'synthetic';
search.dispatchEvent(new Event('input'));
const timer = setInterval(() => {
  const row = document.querySelector('[data-wb-run-row="RUN"] [data-wb-action="show"]');
  if (row) {
    clearInterval(timer);
    window.shown = performance.now();
    row.click();
  }
}, 5)"""
LARGEST = (32_000, 48, 128, 8)
"""Tokens, layers, experts and choices of the largest map."""


def clicks(panel: Panel, repeats: int, settle: bool) -> dict[str, list[float]]:
    """Milliseconds from a click on Ban and on Undo until it is painted as ``asked``, and as ``confirmed``."""
    times: dict[str, list[float]] = {"asked": [], "confirmed": []}
    for _ in range(repeats):
        for button in ('[data-wb-state="chosen"] [data-wb-action="ban"]', '[data-wb-action="undo"]'):
            panel.page.locator(button).first.wait_for()  # a growing text redraws the inspector on the way
            for name, value in panel.page.evaluate(_CLICK, button).items():
                times[name].append(float(value))
            panel.idle() if settle else panel.page.wait_for_timeout(300)
    return times


def hidden(panel: Panel, folder: Path) -> tuple[int, int]:
    """Messages that the panel is sent while it is behind another tab and a cell generates, and the tokens generated."""
    panel.page.evaluate("() => window.jupyterapp.shell.activateById(document.querySelector('.wb-host').id)")
    panel.page.evaluate("() => window.jupyterapp.commands.execute('launcher:create', {})")
    panel.page.wait_for_function("() => document.querySelector('[data-wb-panel]').offsetParent === null")
    panel.page.wait_for_timeout(500)
    panel.count()
    panel.stream(90, 60, 30, wait=True)
    panel.page.wait_for_timeout(300)
    told, _ = panel.counted()
    panel.page.evaluate("() => window.jupyterapp.shell.activateById(document.querySelector('.wb-host').id)")
    panel.idle()
    return told, int((folder / "streamed").read_text().split()[0])


def streamed(panel: Panel, folder: Path, seconds: float) -> tuple[float, float]:
    """Steps a second of a cell that generates at most 30 of them, and how many a second are drawn."""
    panel.count()
    panel.stream(100_000, seconds, 30, wait=True)
    panel.idle()
    steps, took = map(float, (folder / "streamed").read_text().split())
    return steps / took, panel.counted()[1] / took


def summary(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "median_ms": round(statistics.median(ordered), 1),
        "p90_ms": round(ordered[int(0.9 * (len(ordered) - 1))], 1),
        "worst_ms": round(ordered[-1], 1),
        "count": len(ordered),
    }


def measure(repeats: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All figures, and the times behind them."""
    from workbench.store import Store

    told: dict[str, Any] = {}
    figures: list[dict[str, Any]] = []

    def timed(name: str, what: str, setting: str, times: list[float], budget: str | None) -> None:
        told[name] = summary(times)
        figures.append(figure(what, setting, statistics.median(times), "ms", budget))

    with jupyterlab() as (url, folder), chromium() as browser:
        with Store.open(folder / "workbench.duckdb", share=False) as store:
            run = write_synthetic_run(store, *LARGEST)
        panel = Panel(browser, url)
        panel.run("The capital of France is Paris and the capital of Spain is Madrid")
        clicks(panel, 2, settle=True)
        demo = "demo model"

        def clicked(name: str, setting: str, times: dict[str, list[float]], echo: list[float]) -> None:
            asked = "click to repaint of plan and inspector as asked for, median"
            timed(f"{name}_asked", asked, setting, times["asked"], "<= 50")
            confirmed = "click to repaint of plan and inspector as confirmed by the kernel, median"
            told[f"{name}_echo"] = summary(echo)
            beside = f"{setting}; {statistics.median(echo):.0f} ms of it a bare comm message and its answer"
            timed(f"{name}_confirmed", confirmed, beside, times["confirmed"], "<= 50")

        panel.open_echo()
        panel.echo(3)
        clicked(
            "click_idle", f"{demo}, kernel idle", clicks(panel, repeats, settle=True), panel.echo(2 * repeats)
        )
        panel.cell(
            f"import time\nstop = time.time() + {2 * repeats}\nwhile time.time() < stop: sum(range(1000))"
        )
        panel.page.wait_for_timeout(500)
        times, echo = clicks(panel, repeats, settle=False), panel.echo(repeats)
        clicked("click_while_a_cell_computes", f"{demo}, while a cell computes", times, echo)
        panel.idle()
        made, drawn = streamed(panel, folder, 6)
        told["steps_a_second_of_one_text"] = round(made, 1)
        figures.append(
            figure("steps drawn of 30 a second", f"{demo}, one text generated", drawn, "a second", ">= 29")
        )
        panel.count()
        panel.stream(100_000, 2 * repeats, 30)
        panel.page.wait_for_timeout(500)
        times, echo = clicks(panel, repeats, settle=False), panel.echo(repeats)
        panel.page.wait_for_timeout(1000)
        panel.idle()
        steps, seconds = map(float, (folder / "streamed").read_text().split())
        told["steps_a_second"] = round(steps / seconds, 1)
        told["steps_drawn"] = panel.counted()[1]
        rate = f"{steps / seconds:.2g} tokens a second"
        clicked(
            "click_while_frames_stream",
            f"{demo}, while it generates {rate} with and without the plan",
            times,
            echo,
        )
        messages, unseen = hidden(panel, folder)
        unseen_setting = f"{demo}, {unseen} tokens generated"
        figures.append(figure("sent to a hidden panel", unseen_setting, messages, "messages", "<= 0"))
        size = "{:,} tokens x {} layers x {} experts".format(*LARGEST[:3])
        panel.page.evaluate(_PAINTED, _SHOW.replace("RUN", str(run)))
        first = float(panel.page.evaluate("() => performance.now() - window.shown"))
        timed("largest_map_first_paint", "first paint of the map", size, [first], "<= 1000")
        panel.idle()
        zoom = "document.querySelector('[data-wb-action=\"zoom-in\"]').click()"
        zooms = [float(panel.page.evaluate(_PAINTED, zoom)) for _ in range(14)]
        timed("largest_map_zoom", "a zoom until all of the map in sight is there, median", size, zooms, None)
        pan = "const s = document.querySelector('.wb-map-scroll'); s.scrollLeft += s.clientWidth"
        pans = [float(panel.page.evaluate(_PAINTED, pan)) for _ in range(10)]
        timed(
            "largest_map_pan",
            "a window further until all of the map in sight is there, median",
            size,
            pans,
            None,
        )
    return figures, told


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15, help="clicks on Ban, and on Undo, in each setting")
    found, details = measure(parser.parse_args().repeats)
    publish("panel", found, times=details)
