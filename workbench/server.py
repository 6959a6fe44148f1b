"""A Jupyter Server extension that makes clicks fast: no delay on the websockets of kernels.

The stock websocket leaves Nagle's algorithm on, which holds a small message back for up to 40 ms. The panel works
without this extension too, only slower. Nothing of the workbench is imported here: the server may live in another
environment than the kernel.
"""

from __future__ import annotations

from typing import Any

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection

_SETTING = "kernel_websocket_connection_class"


class NoDelayWebsocketConnection(ZMQChannelsWebsocketConnection):
    """The stock connection with TCP_NODELAY set."""

    def connect(self) -> Any:
        self.websocket_handler.set_nodelay(True)
        return super().connect()


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "workbench.server"}]


def _load_jupyter_server_extension(app: Any) -> None:
    settings = app.web_app.settings
    if (
        settings.get(_SETTING) is ZMQChannelsWebsocketConnection
    ):  # a gateway's or another extension's class stays
        settings[_SETTING] = NoDelayWebsocketConnection
