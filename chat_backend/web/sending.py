"""Send responses: a client that does not read is disconnected, and what waits for such clients is bounded.

A request's place in its user's concurrency limit is given back when its response has been sent or its connection
ended.
"""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from flask import Flask

from chat_backend.config import Settings
from chat_backend.domain import limits
from chat_backend.web.turns import USER, give_back
from chat_backend.web.websocket.outbox import shut

log = logging.getLogger(__name__)

# A client has the send timeout for each piece, so this is also the lowest rate at which it may read.
PIECE_BYTES = 64 * 1024
CHECK_SECONDS = 0.1
# A response that waits longer than this may be given up for others, if too much waits.
BLOCKED_SECONDS = 0.2
# With a zero linger time the kernel forgets what it has not sent, and the client sees a reset.
_RESET = struct.pack("ii", 1, 0)

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def install(app: Flask, settings: Settings) -> None:
    """Send an app's responses in pieces, and watch them."""
    watch = Watch(
        settings.send_timeout_seconds,
        most_responses=limits.UNSENT_RESPONSES if settings.is_threaded else limits.UNSENT_RESPONSES_OF_GREENLETS,
    )
    app.extensions["sending"] = watch
    app.wsgi_app = sent_in_pieces(app.wsgi_app, watch)  # type: ignore[assignment, method-assign]


def sent_in_pieces(wsgi: Wsgi, watch: Watch) -> Wsgi:
    """Return an app whose responses are sent in pieces and watched."""

    def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        # The socket's route replaces it in the environment.
        sock = environ.get("gunicorn.socket", environ.get("werkzeug.socket"))
        body = None
        try:
            body = wsgi(environ, start_response)
        finally:
            if body is None or sock is None:
                give_back(environ)  # there is nothing to send, or no server that sends it
        return body if sock is None else _Sent(body, watch, environ, sock)

    return call


class _Sent:
    """A response's body. While the server sends a piece of it, the response is watched."""

    def __init__(self, body: Iterable[bytes], watch: Watch, environ: dict[str, Any], sock: Any) -> None:
        self._body = body
        self._chunks = iter(body)
        self._rest = memoryview(b"")
        self._watch = watch
        self._environ = environ
        # gevent's socket has the real one inside.
        self._sock = getattr(sock, "_sock", sock)
        self.user_id: str | None = environ.get(USER)
        self.size = 0
        self.since = 0.0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._watch.end(self)
        if not self._rest:
            chunk = next(self._chunks)
            self._rest, self.size = memoryview(chunk), len(chunk)
        piece, self._rest = bytes(self._rest[:PIECE_BYTES]), self._rest[PIECE_BYTES:]
        self.since = time.monotonic()
        self._watch.begin(self)
        return piece

    def close(self) -> None:
        self._watch.end(self)
        give_back(self._environ)
        close = getattr(self._body, "close", None)
        if close is not None:
            close()

    def cut(self) -> None:
        """End the connection; the thread that waits in a send sees a broken pipe."""
        with suppress(OSError):  # closed already
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        shut(self._sock)


class Watch:
    """Knows the responses that are being sent, and ends those whose clients do not read.

    One is ended when its client takes no piece within the send timeout. If too many wait, or too many bytes, those that
    have waited longest of the user for whom most waits are ended earlier.
    """

    def __init__(
        self,
        timeout_seconds: float,
        *,
        most_responses: int,
        most_bytes: int = limits.UNSENT_BYTES,
        most_bytes_of_user: int = limits.UNSENT_BYTES_OF_USER,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._most_responses = most_responses
        self._most_bytes = most_bytes
        self._most_bytes_of_user = most_bytes_of_user
        self._lock = threading.Lock()
        self._waiting: dict[_Sent, None] = {}
        self._any = threading.Event()
        self._started = False

    def begin(self, response: _Sent) -> None:
        """Watch a response while a piece of it is sent."""
        with self._lock:
            self._waiting[response] = None
            if not self._started:
                # Not before: a process may fork after its app was made.
                self._started = True
                threading.Thread(target=self._run, name="sending", daemon=True).start()
        if not self._any.is_set():
            self._any.set()

    def end(self, response: _Sent) -> None:
        """The piece was sent, or the connection ended."""
        with self._lock:
            self._waiting.pop(response, None)

    @property
    def waiting(self) -> int:
        """Return how many responses are being sent."""
        return len(self._waiting)

    def check(self) -> None:
        """End the responses that wait too long, or that are too many."""
        with self._lock:
            at = time.monotonic()
            overdue = [response for response in self._waiting if at - response.since > self._timeout_seconds]
            for response in overdue:
                self._cut(response)
            blocked = [response for response in self._waiting if at - response.since > BLOCKED_SECONDS]
            blocked.sort(key=lambda response: response.since)
            sizes: Counter[str | None] = Counter()
            for response in blocked:
                sizes[response.user_id] += response.size
            while blocked:
                user_id, size = sizes.most_common(1)[0]
                fits = size <= self._most_bytes_of_user and sizes.total() <= self._most_bytes
                if fits and len(blocked) <= self._most_responses:
                    return
                victim = next(response for response in blocked if response.user_id == user_id)
                blocked.remove(victim)
                sizes[user_id] -= victim.size
                self._cut(victim)

    def _cut(self, response: _Sent) -> None:
        self._waiting.pop(response)
        response.cut()
        log.info("disconnected a client that does not read", extra={"action": "send", "bytes": response.size})

    def _run(self) -> None:
        while True:
            self._any.wait()
            # Cleared before the look: what begins after it sets it again.
            self._any.clear()
            time.sleep(CHECK_SECONDS)
            try:
                self.check()
            except Exception:  # this thread serves everyone
                log.exception("unhandled error in the watch over responses", extra={"action": "send"})
            if self._waiting:
                self._any.set()
