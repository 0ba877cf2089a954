"""The socket that the WebSocket library is given: its writes go through the outbox, its reads are bounded.

As it comes the library writes from its reading thread without a lock, and reads on however much is
unread: one viewer could garble its own frames, or fill the process's memory.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from sys import getsizeof
from typing import Any

from chat_backend.web.websocket.flood import FrameRate
from chat_backend.web.websocket.frames import says_goodbye
from chat_backend.web.websocket.outbox import SocketOutbox

MAX_UNREAD_FRAMES = 64
MAX_UNREAD_BYTES = 1024 * 1024
DISCARD_BYTES = 65536
POLL_SECONDS = 0.02
# A frame of the largest size comes in some 64 pieces, over a slow line in more.
PIECES_PER_FRAME = 100
_KEYS = ("gunicorn.socket", "werkzeug.socket")


class ViewerSocket:
    """Stands in for a connected socket."""

    def __init__(self, sock: Any, *, frames_per_second: float) -> None:
        self._sock = sock
        self.outbox = SocketOutbox(sock)
        # Frames that the library has read and nobody has taken yet.
        self.unread: list[str | bytes] = []
        # Before there is a connection that could be told why, nothing more is read.
        self.flooded: Callable[[], None] = self.end_reading
        self.wake: Callable[[], None] = lambda: None
        self.closed = False
        self._taken = threading.Event()
        self._ended = False
        # What the library says by itself answers a viewer's pings: these may be a flood as well.
        self._rate = FrameRate(frames_per_second)
        self._empty_rate = FrameRate(frames_per_second)
        self._piece_rate = FrameRate(frames_per_second * PIECES_PER_FRAME)

    def send(self, data: bytes) -> int:
        if not self._rate.allows():
            self.flooded()
        self.outbox.push_bytes(data, is_last=says_goodbye(data))
        return len(data)

    def recv(self, size: int) -> bytes:
        while self._is_full() and not self._ended:
            self._taken.clear()
            self._taken.wait(1)
        if self._ended:
            return b""
        # Under gevent nobody else runs while what has come is read: a viewer that never pauses would hold up all.
        time.sleep(0)
        data: bytes = self._sock.recv(size)
        self.outbox.heard()
        return data

    def _is_full(self) -> bool:
        # What they take in memory: of a text that is up to four times what came. A copy, for another thread takes them.
        frames = self.unread[:]
        return len(frames) > MAX_UNREAD_FRAMES or sum(map(getsizeof, frames)) > MAX_UNREAD_BYTES

    def counted(self, events: Callable[[], Iterator[Any]]) -> Callable[[], Iterator[Any]]:
        """Return the library's reader of what came, which ends with what is a flood.

        Much of what a client may say never gets to whoever counts frames: pongs that nobody asked for, and the
        empty pieces of a message without an end.
        """

        def read() -> Iterator[Any]:
            for event in events():
                if not self._within_rates(event):
                    self.flooded()
                    return
                yield event

        return read

    def _within_rates(self, event: Any) -> bool:
        carries_data = bool(getattr(event, "data", None))
        return self._piece_rate.allows() and (carries_data or self._empty_rate.allows())

    def taken(self) -> None:
        """A frame was read: there is room for more."""
        self._taken.set()

    def close(self) -> None:
        """The library's thread has ended: wake who waits for frames. The web server closes what it opened.

        Where a frame is too large the library wakes that one before it says that all is over, and never again.
        """
        self.closed = True
        self.wake()

    def fileno(self) -> int:
        fileno: int = self._sock.fileno()
        return fileno

    def end_reading(self) -> None:
        """Let the library's thread go: nobody takes frames any more."""
        self._ended = True
        self._taken.set()

    def linger(self, seconds: float) -> None:
        """Send what waits and wait until the viewer has closed its side too, at most so long.

        A socket that is closed with something unread in it resets the connection, and the viewer
        never learns why it ended.
        """
        deadline = time.monotonic() + seconds
        while not self.outbox.idle and time.monotonic() < deadline:
            self.outbox.pump()
            time.sleep(POLL_SECONDS)
        try:
            self._sock.shutdown(socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0:
                self._sock.settimeout(left)
                if not self._sock.recv(DISCARD_BYTES):
                    return
        except OSError:
            return  # it is closed, or its time is up


def stand_in(environ: dict[str, Any], *, frames_per_second: float) -> None:
    """Put a ViewerSocket in the place of a request's socket, and offer the library no compression.

    A compressed frame of a few bytes may unpack to gigabytes.
    """
    environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)
    environ.pop("HTTP_SEC_WEBSOCKET_PROTOCOL", None)  # none is offered, and the library stumbles over some
    for key in _KEYS:
        if key in environ:
            environ[key] = ViewerSocket(environ[key], frames_per_second=frames_per_second)
