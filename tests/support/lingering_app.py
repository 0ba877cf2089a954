"""A WSGI app whose one page lasts until its hub is shut down: what an open socket is to a server."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any


class Hub:
    """Stands where the real hub does, and blocks as it may."""

    def __init__(self) -> None:
        self._over = threading.Event()

    def shut_down(self) -> None:
        """Let every page end."""
        with threading.Lock():
            print("hub is shut down", file=sys.stderr, flush=True)
        self._over.set()

    def wait(self) -> None:
        """Last as long as a socket that nobody closes."""
        self._over.wait(60)


class LingeringApp:
    """`/linger` answers when the hub is shut down, everything else at once."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.extensions = {"chat_hub": self.hub}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"hello\n"
        if environ["PATH_INFO"] == "/linger":
            self.hub.wait()
            yield b"goodbye\n"


app = LingeringApp()
