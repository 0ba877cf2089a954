"""The socket that the WebSocket library is given: its writes go through the outbox, its reads are bounded.

As it comes the library writes from its reading thread without a lock, and reads on however much is
unread: one viewer could garble its own frames, or fill the process's memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from chat_backend.web.websocket.outbox import SocketOutbox

MAX_UNREAD_FRAMES = 64
_KEYS = ("gunicorn.socket", "werkzeug.socket")


class ViewerSocket:
    """Stands in for a connected socket."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self.outbox = SocketOutbox(sock)
        self.unread: Callable[[], int] = lambda: 0
        self._taken = threading.Event()

    def send(self, data: bytes) -> int:
        self.outbox.push_bytes(data)
        return len(data)

    def recv(self, size: int) -> bytes:
        while self.unread() > MAX_UNREAD_FRAMES:
            self._taken.clear()
            self._taken.wait(1)
        data: bytes = self._sock.recv(size)
        self.outbox.heard()
        return data

    def taken(self) -> None:
        """A frame was read: there is room for more."""
        self._taken.set()

    def close(self) -> None:
        """Nothing to do: the web server closes what it opened."""

    def fileno(self) -> int:
        fileno: int = self._sock.fileno()
        return fileno


def stand_in(environ: dict[str, Any]) -> None:
    """Put a ViewerSocket in the place of a request's socket, and offer the library no compression.

    A compressed frame of a few bytes may unpack to gigabytes.
    """
    environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)
    for key in _KEYS:
        if key in environ:
            environ[key] = ViewerSocket(environ[key])
