"""The live side of the web process, put together: the hub, the socket, the event stream, and who waits for a reply."""

from __future__ import annotations

from flask import Flask

from chat_backend.realtime.publisher import Publisher
from chat_backend.web.api.events import install_events
from chat_backend.web.waiting import Waiting
from chat_backend.web.websocket.endpoint import install_socket
from chat_backend.web.websocket.hub import Hub


def install(app: Flask) -> None:
    """Give an app its hub, its socket and its event stream."""
    backend = app.extensions["backend"]
    hub = app.extensions["chat_hub"] = Hub(backend, Publisher(backend.settings))
    app.extensions["chat_waiting"] = Waiting(hub, backend)
    install_socket(app)
    install_events(app)
