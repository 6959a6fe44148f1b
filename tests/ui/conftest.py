"""A real JupyterLab with this checkout's panel, in a real Chromium; nothing installed is touched."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SCREENSHOTS = Path(__file__).parent / "screenshots"
WAIT = 60_000
_ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: its address and the folder it serves."""

    url: str
    folder: Path


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab on a free port with settings, workspaces and data of its own."""
    home = tmp_path_factory.mktemp("lab")
    folder = home / "files"
    folder.mkdir()
    (home / "share/labextensions").mkdir(parents=True)
    (home / "share/labextensions/workbench-lab").symlink_to(ROOT / "workbench/labextension")
    (home / "config/jupyter_server_config.d").mkdir(parents=True)
    shutil.copy(
        ROOT / "workbench/jupyter_server_config.json", home / "config/jupyter_server_config.d/workbench.json"
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
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_PATH": str(home / "share"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]),
        "HF_HUB_OFFLINE": "1",
    }
    log = (home / "log").open("w")
    server = subprocess.Popen(
        [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=",
            "--ServerApp.disable_check_xsrf=True", "--LabApp.expose_app_in_browser=True",
            f"--ServerApp.root_dir={folder}",
        ],
        env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=folder,
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        _await_server(server, f"{url}/api/status", home / "log")
        yield Lab(url, folder)
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def _await_server(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"JupyterLab did not answer within a minute:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, which can resolve no name but loopback."""
    if CHROMIUM is None:
        pytest.fail(
            "Chromium was not found; install it (Debian: apt-get install chromium fonts-dejavu-core)."
        )
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def new_page(browser: Any, lab: Lab) -> Callable[[], AbstractContextManager[Any]]:
    """Opens JupyterLab with an empty workspace; on leaving, fails if a request left the machine or a script threw."""

    @contextmanager
    def opened() -> Iterator[Any]:
        context = browser.new_context(viewport={"width": 1400, "height": 950})
        page = context.new_page()
        page.set_default_timeout(WAIT)
        requests: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("websocket", lambda socket: requests.append(socket.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{lab.url}/lab/workspaces/test{time.time_ns()}")
        page.wait_for_selector(".jp-LauncherCard")
        yield page
        context.close()
        allowed = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:", "about:")
        assert requests and [url for url in requests if not url.startswith(allowed)] == []
        assert errors == []
        for session in json.load(urllib.request.urlopen(f"{lab.url}/api/sessions")):
            end = urllib.request.Request(f"{lab.url}/api/sessions/{session['id']}", method="DELETE")
            urllib.request.urlopen(end).close()

    return opened


@pytest.fixture
def page(new_page: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
    """JupyterLab's page, with nothing open."""
    with new_page() as page:
        yield page


@pytest.fixture
def idle() -> Callable[[Any], None]:
    """Waits until a view has drawn the answer to everything that was asked of it."""

    def wait(panel: Any) -> None:
        panel.page.wait_for_function("node => node.dataset.wbBusy === 'false'", arg=panel.element_handle())
        panel.page.evaluate(
            "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    return wait


@pytest.fixture
def card(page: Any, idle: Callable[[Any], None]) -> Callable[[], Any]:
    """Opens the panel by its card in the launcher, and waits for the model; an open one is put back to its start."""

    def click() -> Any:
        panel = page.locator("[data-wb-panel]")
        if not panel.count():
            page.locator(".jp-LauncherCard", has_text="Workbench").click()
            panel.locator("[data-wb-prompt]").wait_for()
            idle(panel)
            return panel
        if panel.locator('[data-wb-action="dismiss"]').count():
            panel.locator('[data-wb-action="dismiss"]').click()
        if panel.locator('[data-wb-action="clear"]').is_enabled():
            panel.locator('[data-wb-action="clear"]').click()
        if panel.get_by_label("Clicks act on").is_visible():
            panel.get_by_label("Clicks act on").select_option("all")
        if panel.locator("details[open]:visible").count():
            panel.locator("details[open]:visible > summary").click()
        panel.get_by_role("tab", name="Map").click()
        colours = panel.get_by_label("Colour by")
        if colours.locator('option[value="expert"]').count():
            colours.select_option("expert")
        panel.locator("[data-wb-prompt]").fill("")
        idle(panel)
        return panel

    return click


@pytest.fixture
def shot(page: Any, request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Keeps a picture for people in ``screenshots/`` (which git ignores)."""

    def take(name: str) -> None:
        SCREENSHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"{name}.png")

    return take


@pytest.fixture(scope="session")
def dense_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a tokenizer of words, as a folder that transformers loads."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "one", "two", "three", "four", "five", *(f"word{n}" for n in range(26))]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    config = AutoConfig.for_model(
        "llama", vocab_size=32, hidden_size=32, intermediate_size=48, num_hidden_layers=5, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    folder = tmp_path_factory.mktemp("models") / "dense"
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)
    return folder
