"""A JupyterLab of this checkout with settings of its own, a Chromium, and the panel open in it beside a notebook."""

from __future__ import annotations

import os
import shutil
import socket
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
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--js-flags=--expose-gc", "--enable-precise-memory-info",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
_IDLE = "() => document.querySelector('[data-wb-panel]').dataset.wbBusy === 'false'"
# Counts what the kernel tells the panel, and how often a generation has grown on the page.
_COUNT = """() => {
  const panel = [...window.jupyterapp.shell.widgets('main')].find(widget => widget.app && widget.session);
  const stream = panel.channel.stream;
  const own = stream.onMsg;
  window.told = 0;
  window.drawn = 0;
  stream.onMsg = message => { window.told += 1; own(message); };
  new MutationObserver(() => { window.drawn += 1; }).observe(
    document.querySelector('[data-wb-live]'), { attributes: true, attributeFilter: ['data-wb-generated'] });
}"""
# Kernel and page pass one number to and fro over comms like the panel's own: what is left is Jupyter's.
_ECHO_KERNEL = """
def _echoes(register):
    out = []
    def answer(comm, _message):
        comm.on_msg(lambda message: out[-1].send(data=message["content"]["data"]))
    register("echo.control", answer)
    register("echo.stream", lambda comm, _message: out.append(comm))
_echoes(get_ipython().kernel.comm_manager.register_target)
"""
_ECHO_PAGE = """async () => {
  const panel = [...window.jupyterapp.shell.widgets('main')].find(widget => widget.app && widget.session);
  const kernel = panel.session.session.kernel;
  const make = (target, like) => {
    const comm = kernel.createComm(target);
    comm.commsOverSubshells = like.commsOverSubshells;
    return comm;
  };
  const stream = make('echo.stream', panel.channel.stream);
  const control = make('echo.control', panel.channel.comms.control);
  stream.open({});
  await Promise.race([control.subshellStarted, new Promise(done => setTimeout(done, 500))]);
  control.open({});
  window.echo = async count => {
    const times = [];
    for (let n = 0; n < count; n++) {
      const start = performance.now();
      const answered = new Promise(done => { stream.onMsg = () => done(); });
      control.send({ n });
      await answered;
      times.push(performance.now() - start);
      await new Promise(done => setTimeout(done, 150));
    }
    return times;
  };
}"""
# Goes on generating as a panel does, with a real step of the model for every frame; at the end of its room it rewinds.
_STREAM = """
import time as _time
from workbench.panel import comms as _comms, requests as _requests
def _stream(steps, seconds, rate, room=48):
    session = next(iter(_comms._served.benches.find().values())).session
    start, done = _time.monotonic(), 0
    while done < steps and _time.monotonic() < start + seconds:
        lines = session._lines
        if lines is not None and (lines.now.main.ended or len(lines.now.main.tokens) - lines.now.main.prompt_tokens >= room):
            position = lines.now.main.prompt_tokens - 1
            session.handle(_requests.Rewind(type="rewind", seq=0, position=position), None)
        session.step()
        done += 1
        if rate:
            _time.sleep(max(0.0, start + done / rate - _time.monotonic()))
    open("streamed", "w").write(f"{done} {_time.monotonic() - start}")
"""


@contextmanager
def chromium() -> Iterator[Any]:
    """The machine's Chromium, which can resolve no name but loopback."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise SystemExit("Chromium was not found; install it.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        yield browser
        browser.close()


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

    def count(self) -> None:
        """Count from now on; see :meth:`counted`."""
        self.page.evaluate(_COUNT)

    def counted(self) -> tuple[int, int]:
        """Messages from the kernel, and steps of a generation that were drawn, since :meth:`count`."""
        told, drawn = self.page.evaluate("() => [window.told, window.drawn]")
        return int(told), int(drawn)

    def stream(self, steps: int, seconds: float, rate: float, wait: bool = False) -> None:
        """Let a cell generate ``steps`` tokens, or as many as in ``seconds``, at most ``rate`` a second (0: no limit)."""
        self.cell(f"{_STREAM}\n_stream({steps}, {seconds}, {rate})", wait=wait)

    def open_echo(self) -> None:
        """Have the kernel answer what :meth:`echo` sends."""
        self.cell(_ECHO_KERNEL, wait=True)
        self.page.evaluate(_ECHO_PAGE)

    def echo(self, count: int) -> list[float]:
        """Milliseconds from a message of the page until the kernel's answer is there: Jupyter's own part of a click."""
        return [float(time) for time in self.page.evaluate("count => window.echo(count)", count)]

    def memory(self) -> float:
        """Megabytes of the page's heap after a collection."""
        return float(
            self.page.evaluate("() => { window.gc?.(); return performance.memory.usedJSHeapSize / 2 ** 20; }")
        )
