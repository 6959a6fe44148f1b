"""The Jupyter Server extension: quick websockets, and nothing else touched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection

from workbench import server

ROOT = Path(__file__).resolve().parents[2]
SETTING = "kernel_websocket_connection_class"


def load(kind: type | None) -> Any:
    app = SimpleNamespace(web_app=SimpleNamespace(settings={} if kind is None else {SETTING: kind}))
    server._load_jupyter_server_extension(app)
    return app.web_app.settings.get(SETTING)


def test_the_stock_websocket_is_replaced_and_no_other() -> None:
    class Gateway(ZMQChannelsWebsocketConnection):
        pass

    assert load(ZMQChannelsWebsocketConnection) is server.NoDelayWebsocketConnection
    assert load(Gateway) is Gateway and load(None) is None


def test_connecting_switches_the_delay_off_first(monkeypatch: Any) -> None:
    calls: list[Any] = []

    def connect(self: Any) -> str:
        calls.append("connect")
        return "connected"

    monkeypatch.setattr(ZMQChannelsWebsocketConnection, "connect", connect)
    connection = server.NoDelayWebsocketConnection.__new__(server.NoDelayWebsocketConnection)
    handler = SimpleNamespace(set_nodelay=calls.append)
    monkeypatch.setattr(server.NoDelayWebsocketConnection, "websocket_handler", handler, raising=False)
    assert connection.connect() == "connected"
    assert calls == [True, "connect"]


def test_the_server_finds_it_and_it_brings_no_torch() -> None:
    config = json.loads((ROOT / "workbench/jupyter_server_config.json").read_text())
    assert config["ServerApp"]["jpserver_extensions"] == {"workbench.server": True}
    assert server._jupyter_server_extension_points() == [{"module": "workbench.server"}]
    code = "import sys, workbench.server; print({'torch', 'duckdb', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
