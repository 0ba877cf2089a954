"""What waits to be sent to one viewer: bounded, written by one writer at a time, never waited for."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

from chat_backend.web.websocket.frames import PING, Encoded, close_frame, websocket_frame

SSE_COMMENT = b": still here\n\n"
SSE_HEAD = b"retry: 2000\n\n"
# What a viewer has to read within one send timeout, not to be taken for one that does not read.
SSE_PIECE_BYTES = 64 * 1024
PINGS_UNANSWERED = 2
# What a kernel takes for a viewer that does not read. It has room for more, which is left for why the connection ends.
UNSENT_BYTES = 16 * 1024
NO_LIMIT = 0


class Outbox(Protocol):
    """Where a connection puts its frames. No method waits for the viewer."""

    @property
    def idle(self) -> bool:
        """Whether all has been sent."""
        ...

    @property
    def waiting_bytes(self) -> int: ...

    @property
    def blocked_since(self) -> float | None:
        """When the viewer stopped reading, by the monotonic clock."""
        ...

    def push(self, encoded: Encoded) -> None: ...

    def pump(self) -> None:
        """Send what the viewer takes now."""
        ...

    @property
    def gone(self) -> bool:
        """Whether the viewer has hung up, and nobody who reads from it will say so."""
        ...

    def keep_alive(self) -> bool:
        """Ask whether the viewer is there; False where it has not answered twice."""
        ...

    def finish(self, code: int, reason: str) -> None:
        """Send what waits, then say why it ends."""
        ...

    def cut(self, last: Encoded, code: int, reason: str) -> None:
        """Forget what waits, but for the frame that is half sent; send one more and say why it ends."""
        ...

    def drop(self) -> None:
        """Let go at once, sent or not."""
        ...


class SocketOutbox:
    """The one writer of a WebSocket: all bytes, the library's own too, pass here in order."""

    def __init__(self, sock: Any) -> None:
        # gevent's socket would wait for a full buffer; the one inside it does not.
        self._sock = getattr(sock, "_sock", sock)
        _limit_unsent(self._sock, UNSENT_BYTES)
        self._lock = threading.Lock()
        self._waiting: deque[memoryview] = deque()
        self._half_sent = False
        self._pings_unanswered = 0
        self._finished = False
        self.waiting_bytes = 0
        self.blocked_since: float | None = None

    @property
    def idle(self) -> bool:
        return not self._waiting

    def push(self, encoded: Encoded) -> None:
        self.push_bytes(encoded.websocket)

    def push_bytes(self, data: bytes, *, is_last: bool = False) -> None:
        """Append bytes of whole frames and send what goes; nothing may follow a close frame."""
        with self._lock:
            if not self._finished:
                self._finished = is_last
                self._append(data)

    def _append(self, data: bytes) -> None:
        self._waiting.append(memoryview(data))
        self.waiting_bytes += len(data)
        self._pump()

    def pump(self) -> None:
        with self._lock:
            self._pump()

    def _pump(self) -> None:
        try:
            while self._waiting:
                head = self._waiting[0]
                sent = self._sock.send(head, socket.MSG_DONTWAIT)
                self.waiting_bytes -= sent
                self.blocked_since = None
                self._half_sent = sent < len(head)
                if self._half_sent:
                    self._waiting[0] = head[sent:]
                else:
                    self._waiting.popleft()
        except BlockingIOError:
            self.blocked_since = self.blocked_since or time.monotonic()
        except OSError:
            # The viewer is gone: its reading side sees that too and ends the connection.
            self._discard()

    @property
    def gone(self) -> bool:
        return False  # who reads from the socket notices

    def keep_alive(self) -> bool:
        if self._pings_unanswered >= PINGS_UNANSWERED:
            return False
        self._pings_unanswered += 1
        self.push_bytes(websocket_frame(PING, b""))
        return True

    def heard(self) -> None:
        """Note that the viewer sent something: whatever it is, it is there."""
        self._pings_unanswered = 0

    def finish(self, code: int, reason: str) -> None:
        with self._lock:
            if not self._finished:
                _limit_unsent(self._sock, NO_LIMIT)
                self._append(close_frame(code, reason))
                self._finished = True

    def cut(self, last: Encoded, code: int, reason: str) -> None:
        with self._lock:
            if self._finished:
                return
            _limit_unsent(self._sock, NO_LIMIT)
            rest = [self._waiting[0]] if self._half_sent and self._waiting else []
            self._waiting = deque(rest)
            self.waiting_bytes = sum(map(len, rest))
            self._append(last.websocket + close_frame(code, reason))
            self._finished = True

    def drop(self) -> None:
        with self._lock:
            self._discard()
        shut(self._sock)

    def _discard(self) -> None:
        self._finished = True
        self._waiting.clear()
        self.waiting_bytes = 0


class StreamOutbox:
    """What an SSE response sends; its generator is the one writer."""

    def __init__(self, sock: Any = None, *, comment_seconds: float) -> None:
        # Ids have the form of what the client came with: clients of old expect numbers.
        self.sends_cursors = False
        # gevent's socket would wait for something to read; the one inside it does not.
        self._sock = getattr(sock, "_sock", sock)
        self._comment_seconds = comment_seconds
        self._ready = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._finished = False
        self.waiting_bytes = 0
        self.blocked_since: float | None = None

    @property
    def idle(self) -> bool:
        return not self._waiting

    def push(self, encoded: Encoded) -> None:
        with self._ready:
            if self._finished:
                return
            data = encoded.sse_with_cursor if self.sends_cursors else encoded.sse
            self._waiting.append(data)
            self.waiting_bytes += len(data)
            self._ready.notify()

    def pump(self) -> None:
        """Nothing to do: the generator takes what waits as fast as its viewer reads."""

    @property
    def gone(self) -> bool:
        return self._sock is not None and _has_hung_up(self._sock)

    def keep_alive(self) -> bool:
        """Nothing to do: the generator comments by itself."""
        return True

    def finish(self, code: int, reason: str) -> None:
        with self._ready:
            self._finished = True
            self._ready.notify()

    def cut(self, last: Encoded, code: int, reason: str) -> None:
        self.drop()

    def drop(self) -> None:
        with self._ready:
            self._finished = True
            self._waiting.clear()
            self.waiting_bytes = 0
            self._ready.notify()
        # The generator may hang in a send that its viewer never reads.
        if self._sock is not None and self.blocked_since is not None:
            shut(self._sock)

    def stream(self, replay: Iterator[None]) -> Iterator[bytes]:
        """Yield what is pushed until finished, and a comment when nothing is.

        `replay` is asked for more of the past whenever what came of it before is read.
        """
        yield SSE_HEAD
        for _ in replay:
            yield from self._in_pieces(self._take())
        while True:
            with self._ready:
                if not self._waiting and not self._finished:
                    self._ready.wait(self._comment_seconds)
                finished = self._finished
            data = self._take()
            if data or not finished:
                yield from self._in_pieces(data or SSE_COMMENT)
            if finished:
                return

    def _take(self) -> bytes:
        with self._ready:
            data = b"".join(self._waiting)
            self._waiting.clear()
            self.waiting_bytes = 0
            return data

    def _in_pieces(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), SSE_PIECE_BYTES):
            # Until it comes back for more, the server hangs in a send.
            self.blocked_since = time.monotonic()
            yield data[start : start + SSE_PIECE_BYTES]
            self.blocked_since = None


def _limit_unsent(sock: Any, size: int) -> None:
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)
    except OSError:
        return  # not TCP, or closed already


def _has_hung_up(sock: Any) -> bool:
    """Say whether the other side has closed; what it may have sent is left where it is."""
    try:
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def shut(sock: Any) -> None:
    """End both ways of a socket; who reads or writes on it in another thread notices."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it was closed already
