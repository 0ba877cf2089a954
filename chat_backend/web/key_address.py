"""What is at the address where an identity provider publishes its keys, fetched in bounded time and size."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

MOST_BYTES = 1024 * 1024


def fetch(url: str, *, seconds: float) -> bytes:
    """Return what is at an address; no redirect is followed.

    Raises TimeoutError after so many seconds, whatever the address does, and OSError, HTTPException or ValueError for
    what can't be fetched.
    """
    call = _Call()
    fetched: Future[bytes] = Future()
    # The timeout of a socket is one for each read: it holds neither for bytes that drip nor for a name looked up.
    threading.Thread(target=_read, args=(url, call, seconds, fetched), name="key-fetch", daemon=True).start()
    try:
        return fetched.result(timeout=seconds)
    finally:
        call.hang_up()


def _read(url: str, call: _Call, seconds: float, fetched: Future[bytes]) -> None:
    try:
        with build_opener(call, _NoRedirect).open(url, timeout=seconds) as response:
            body: bytes = response.read(MOST_BYTES + 1)
        if len(body) > MOST_BYTES:
            raise ValueError("The keys are too long.")
        fetched.set_result(body)
    except HTTPError as error:
        error.close()  # it is a response too
        fetched.set_exception(error)
    except Exception as error:  # it is for who waits for the future
        fetched.set_exception(error)


class _Call(HTTPHandler, HTTPSHandler):
    """Opens connections that another thread can end."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[socket.socket] = []
        self._ended = False
        self._lock = threading.Lock()

    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(self._connecting(_Connection), req)

    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(self._connecting(_SecureConnection), req)

    def _connecting(self, kind: type[_Connection]) -> Any:
        def connection(host: str, **how: Any) -> HTTPConnection:
            made = kind(host, **how)
            made.connected = self._hold
            return made

        return connection

    def _hold(self, line: socket.socket) -> None:
        with self._lock:
            if self._ended:
                raise TimeoutError
            # TLS takes the socket away, and a response outlives it: a second handle ends the connection of both.
            self._lines.append(line.dup())

    def hang_up(self) -> None:
        """End what is connected, and what would be: whoever reads there finds the end, or an error."""
        with self._lock:
            self._ended = True
            for line in self._lines:
                with suppress(OSError):  # the other side was first
                    line.shutdown(socket.SHUT_RDWR)
                line.close()


class _Connection(HTTPConnection):
    connected: Callable[[socket.socket], None]

    def connect(self) -> None:
        super().connect()
        self.connected(self.sock)


class _SecureConnection(HTTPSConnection, _Connection):
    """Is held before TLS begins, which connects like the other."""


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow nothing: who may say what the keys are is who was named in the settings."""
