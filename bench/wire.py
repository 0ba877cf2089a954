"""The client's side of the wire, cheaper than what it measures: no library between the socket and the check."""

from __future__ import annotations

import asyncio
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import orjson

# With a key of zeros the payload is masked by leaving it as it is.
_KEY = b"\0\0\0\0"
# What every browser offers; a server may decline.
_OFFER = "permessage-deflate; client_max_window_bits"
_DEFLATED, _FLUSHED = 0x40, b"\x00\x00\xff\xff"
_UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Extensions: {offer}\r\n{more}\r\n"
)
_ASK = (
    "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
    "Connection: close\r\n\r\n"
)
TEXT, _CLOSE, _PING, PONG = 0x1, 0x8, 0x9, 0xA

Receive = Callable[[bytes, int], None]


class WebSocket(asyncio.Protocol):
    """One WebSocket: every text goes to `receive`, with the nanosecond at which its bytes were read."""

    def __init__(self, url: str, receive: Receive, *, headers: Mapping[str, str] | None = None) -> None:
        self.receive = receive
        self._url = urlsplit(url)
        self._headers = headers or {}
        self._unread = b""
        self._upgraded = False
        self._inflate: Callable[[bytes], bytes] = zlib.decompressobj(-zlib.MAX_WBITS).decompress
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.close_code = 1006
        self.ended: Callable[[int], None] = lambda code: None

    async def open(self) -> WebSocket:
        """Connect and upgrade. Raises ConnectionError where the server does not want to."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, self._url.hostname, self._url.port)
        await self.opened
        return self

    def send(self, frame: dict[str, object]) -> int:
        """Send a frame and return the nanosecond at which that was begun."""
        at = time.monotonic_ns()
        self.write(TEXT, orjson.dumps(frame))
        return at

    def close(self) -> None:
        """Say goodbye and hang up."""
        if not self._transport.is_closing():
            self.write(_CLOSE, struct.pack("!H", 1000))
            self._transport.close()

    def write(self, opcode: int, payload: bytes) -> None:
        """Send one frame of any kind."""
        size = len(payload)
        if size < 126:
            length = bytes((0x80 | size,))
        else:
            length = b"\xfe" + struct.pack("!H", size) if size < 65536 else b"\xff" + struct.pack("!Q", size)
        self._transport.write(bytes((0x80 | opcode,)) + length + _KEY + payload)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        path = f"{self._url.path}?{self._url.query}"
        more = "".join(f"{name}: {value}\r\n" for name, value in self._headers.items())
        transport.write(_UPGRADE.format(path=path, host=self._url.netloc, offer=_OFFER, more=more).encode())

    def connection_lost(self, error: Exception | None) -> None:
        if not self.opened.done():
            said = self._unread[:300].decode(errors="replace")
            self.opened.set_exception(ConnectionError(f"no upgrade: {said.splitlines()[0] if said else 'closed'}"))
            self.opened.exception()  # whoever waits is told; nobody has to
        if not self.closed.done():
            self.closed.set_result(self.close_code)
        self.ended(self.close_code)

    def data_received(self, data: bytes) -> None:
        at = time.monotonic_ns()
        self._unread = self._unread + data if self._unread else data
        if not self._upgraded:
            head, found, rest = self._unread.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._transport.close()
                return
            self._upgraded, self._unread = True, rest
            self.opened.set_result(None)
        self._read_frames(at)

    def _read_frames(self, at: int) -> None:
        data, start, end = self._unread, 0, len(self._unread)
        while end - start >= 2:
            size, body = data[start + 1], start + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                if end - body < width:
                    break
                size = int.from_bytes(data[body : body + width], "big")
                body += width
            if end - body < size:
                break
            payload = data[body : body + size]
            if data[start] & _DEFLATED:
                payload = self._inflate(payload + _FLUSHED)
            self._take(data[start] & 0x0F, payload, at)
            start = body + size
        self._unread = data[start:]

    def _take(self, opcode: int, payload: bytes, at: int) -> None:
        if opcode == TEXT:
            self.receive(payload, at)
        elif opcode == _PING:
            self.write(PONG, payload)
        elif opcode == _CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big")
            self._transport.close()


class EventStream(asyncio.Protocol):
    """One streamed answer of the stub, read without anything between: every event goes to `receive`."""

    def __init__(self, url: str, body: bytes, receive: Receive) -> None:
        self._url = urlsplit(url)
        self._body = body
        self._receive = receive
        self._unread = b""
        self.asked_at = 0

    async def open(self) -> EventStream:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, self._url.hostname, self._url.port)
        return self

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        head = _ASK.format(path=self._url.path, host=self._url.netloc, length=len(self._body))
        self.asked_at = time.monotonic_ns()
        transport.write(head.encode() + self._body)

    def data_received(self, data: bytes) -> None:
        at = time.monotonic_ns()
        # Chunk sizes stand between the events, on lines of their own.
        *events, self._unread = (self._unread + data).split(b"\n\n")
        for event in events:
            self._receive(event.partition(b"data: ")[2], at)
