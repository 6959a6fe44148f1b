"""The panel's own time, in a real JupyterLab and Chromium on this machine; prints JSON.

Click to repaint of plan and inspector (idle, while a cell runs, and while a cell streams 30 frames a second), first paint of
the largest map (32,000 tokens, 48 layers, 128 experts) and of its zoomed views, and the page's memory while maps stream in.
Times run from the event in the page to the second animation frame after the last change, so that they include the paint.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

_ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--js-flags=--expose-gc", "--enable-precise-memory-info",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
_IDLE = "() => document.querySelector('[data-wb-panel]').dataset.wbBusy === 'false'"
# Click, then wait until the plan's hash on the page is another one and two frames have been drawn.
_CLICK = """selector => new Promise((done, fail) => {
  const plan = document.querySelector('[data-wb-plan]');
  const before = plan.dataset.wbPlan;
  const start = performance.now();
  const seen = new MutationObserver(() => {
    if (plan.dataset.wbPlan !== before) {
      seen.disconnect();
      requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
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
# Turn to the list of runs and, as soon as it has come, open one.
_SHOW = """document.querySelector('[data-wb-tab="runs"]').click();
const timer = setInterval(() => {
  const row = document.querySelector('[data-wb-run-row="RUN"] [data-wb-action="show"]');
  if (row) {
    clearInterval(timer);
    window.shown = performance.now();
    row.click();
  }
}, 5)"""
_STREAM = """
import threading, time
from workbench.panel import comms
def _stream(seconds=20, rate=30):
    session = next(iter(comms._served.benches.find().values())).session
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        for view in list(session.views):
            session._tell_map(view)
        time.sleep(1 / rate)
"""


@contextmanager
def jupyterlab() -> Iterator[tuple[str, Path]]:
    """JupyterLab on a free port with settings, workspaces and data of its own; its address and the folder it serves."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        folder = home / "files"
        folder.mkdir()
        (home / "share/labextensions").mkdir(parents=True)
        (home / "share/labextensions/workbench-lab").symlink_to(ROOT / "workbench/labextension")
        (home / "config/jupyter_server_config.d").mkdir(parents=True)
        shutil.copy(
            ROOT / "workbench/jupyter_server_config.json",
            home / "config/jupyter_server_config.d/workbench.json",
        )
        quiet = home / "settings/@jupyterlab/apputils-extension"
        quiet.mkdir(parents=True)
        (quiet / "notification.jupyterlab-settings").write_text(
            '{"fetchNews": "false", "checkForUpdates": false}'
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = os.environ | {
            "JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_PATH": str(home / "share"), "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]), "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        server = subprocess.Popen(
            [
                sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
                f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=",
                "--ServerApp.disable_check_xsrf=True", "--LabApp.expose_app_in_browser=True",
                f"--ServerApp.root_dir={folder}",
            ],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder,
        )  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        try:
            _await(f"{url}/api/status")
            yield url, folder
        finally:
            server.terminate()
            server.wait(30)


def _await(address: str) -> None:
    for _ in range(900):
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("JupyterLab did not start within 90 seconds.")


class Panel:
    """A page with the panel open on a notebook's kernel, so that cells can run beside it."""

    def __init__(self, browser: Any, url: str) -> None:
        self.page = browser.new_context(viewport={"width": 1600, "height": 1000}).new_page()
        self.page.set_default_timeout(120_000)
        self.page.goto(f"{url}/lab/workspaces/bench{time.time_ns()}")
        self.page.wait_for_selector(".jp-LauncherCard")
        self.page.evaluate(
            "() => window.jupyterapp.commands.execute('notebook:create-new', {kernelName: 'python3', activate: true})"
        )
        self.page.wait_for_selector(".jp-Notebook .cm-content")
        self.cell("import workbench as wb\nbench = wb.open()", wait=True)
        self.page.evaluate("() => window.jupyterapp.commands.execute('workbench:open-notebook')")
        self.page.wait_for_selector("[data-wb-panel]")
        self.idle()

    def cell(self, code: str, wait: bool = False) -> None:
        """Run ``code`` in the notebook's kernel, beside the panel."""
        self.page.evaluate(
            """async ([code, wait]) => {
              const widgets = [...window.jupyterapp.shell.widgets('main')];
              const notebook = widgets.find(widget => widget.sessionContext && widget.context);
              await notebook.sessionContext.ready;
              const future = notebook.sessionContext.session.kernel.requestExecute({code, store_history: false});
              if (wait) { await future.done; }
            }""",
            [code, wait],
        )

    def idle(self) -> None:
        self.page.wait_for_function(_IDLE)
        self.page.wait_for_timeout(250)

    def run(self, prompt: str) -> None:
        self.page.locator("[data-wb-prompt]").fill(prompt)
        self.page.keyboard.press("Enter")
        self.idle()

    def clicks(self, repeats: int, settle: bool) -> list[float]:
        """Milliseconds from a click on Ban and on Undo until plan and inspector are painted."""
        times = []
        for _ in range(repeats):
            times.append(self.page.evaluate(_CLICK, '[data-wb-state="chosen"] [data-wb-action="ban"]'))
            self.idle() if settle else self.page.wait_for_timeout(300)
            times.append(self.page.evaluate(_CLICK, '[data-wb-action="undo"]'))
            self.idle() if settle else self.page.wait_for_timeout(300)
        return times

    def memory(self) -> float:
        """Megabytes of the page's heap after a collection."""
        return float(
            self.page.evaluate("() => { window.gc?.(); return performance.memory.usedJSHeapSize / 2 ** 20; }")
        )


def summary(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "median_ms": round(statistics.median(ordered), 1),
        "p90_ms": round(ordered[int(0.9 * (len(ordered) - 1))], 1),
        "worst_ms": round(ordered[-1], 1),
        "count": len(ordered),
    }


def measure(repeats: int, stream_seconds: int) -> dict[str, Any]:
    """All figures."""
    from playwright.sync_api import sync_playwright
    from synthetic_run import write_synthetic_run

    from workbench.store import Store

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise SystemExit("Chromium was not found; install it.")
    found: dict[str, Any] = {}
    with jupyterlab() as (url, folder), sync_playwright() as playwright:
        with Store.open(folder / "workbench.duckdb", share=False) as store:
            run = write_synthetic_run(store, 32_000, 48, 128, 8)
        browser = playwright.chromium.launch(executable_path=chromium, args=list(_ARGUMENTS))
        panel = Panel(browser, url)
        panel.run("The capital of France is Paris and the capital of Spain is Madrid")
        panel.clicks(2, settle=True)
        found["click_idle"] = summary(panel.clicks(repeats, settle=True))
        panel.cell("import time\nstop = time.time() + 25\nwhile time.time() < stop: sum(range(1000))")
        panel.page.wait_for_timeout(500)
        found["click_while_a_cell_computes"] = summary(panel.clicks(repeats, settle=False))
        panel.idle()
        panel.cell(_STREAM, wait=True)
        before = panel.memory()
        panel.cell(f"_stream({stream_seconds}, 30)")
        panel.page.wait_for_timeout(500)
        found["click_while_30_frames_stream"] = summary(panel.clicks(repeats, settle=False))
        panel.idle()
        found["heap_mb_before_and_after_streaming"] = [round(before, 1), round(panel.memory(), 1)]
        show = _SHOW.replace("RUN", str(run))
        panel.page.evaluate(_PAINTED, show)
        found["largest_map_first_paint_ms"] = round(
            panel.page.evaluate("() => performance.now() - window.shown"), 1
        )
        panel.idle()
        zooms = []
        for _ in range(14):
            zooms.append(
                panel.page.evaluate(
                    _PAINTED, "document.querySelector('[data-wb-action=\"zoom-in\"]').click()"
                )
            )
        found["largest_map_zoom_until_complete"] = summary(zooms)
        pan = "const s = document.querySelector('.wb-map-scroll'); s.scrollLeft += s.clientWidth"
        found["largest_map_pan_until_complete"] = summary(
            [panel.page.evaluate(_PAINTED, pan) for _ in range(10)]
        )
        browser.close()
    return {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
        },
        **found,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--stream-seconds", type=int, default=30)
    options = parser.parse_args()
    print(json.dumps(measure(options.repeats, options.stream_seconds), indent=1))
