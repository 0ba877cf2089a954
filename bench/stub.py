"""A provider to measure against: OpenAI-compatible streaming over real HTTP, as cheap as it can be.

    python -m bench.stub --port 9100

The model's name says what comes: `bench:tokens=200,delay_ms=20`. Every token is a text of its own, its number and
the moment it was sent: `17:123456789012345 `, nanoseconds of the monotonic clock, which all processes of a machine
share. `hold_ms` waits after the last token before the end, `pad` makes each token so many characters longer.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from dataclasses import dataclass, fields

import orjson
import uvloop

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
MODELS = b'{"object":"list","data":[{"id":"bench","object":"model"}]}'
_BEFORE = b'data: {"id":"b","object":"chat.completion.chunk","created":1,"model":"bench","choices":[{"index":0,"delta":'
_TOKEN = _BEFORE + b'{"content":"%d:%d%s "},"finish_reason":null}]}\n\n'
_FINISH = _BEFORE + b'{},"finish_reason":"stop"}]}\n\n'
_USAGE = (
    b'data: {"id":"b","object":"chat.completion.chunk","created":1,"model":"bench","choices":[],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":%d,"total_tokens":%d}}\n\n'
)
_DONE = b"data: [DONE]\n\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Course:
    """How a reply goes. Times are milliseconds."""

    tokens: int = 200
    delay_ms: float = 20.0
    hold_ms: float = 0.0
    pad: int = 0

    @property
    def model(self) -> str:
        """The model's name that asks for it."""
        return "bench:" + ",".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))

    @classmethod
    def of(cls, model: str) -> Course:
        """Read a model's name; what it does not say is as by default."""
        words = dict(word.split("=") for word in model.partition(":")[2].split(",") if "=" in word)
        kinds = {"tokens": int, "pad": int}
        return cls(**{name: kinds.get(name, float)(value) for name, value in words.items()})


class Connection(asyncio.Protocol):
    """One client's connection: a request, its answer, and again."""

    def __init__(self) -> None:
        self._received = b""
        self._course = Course()
        self._number = 0
        self._began = 0.0
        self._full = self._stalled = self._gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()

    def connection_lost(self, error: Exception | None) -> None:
        self._gone = True

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        size = int(length[1]) if length else 0
        if end and len(body) >= size:
            self._received = body[size:]
            self._answer(head, body[:size])

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET"):
            heading = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(MODELS)
            self._transport.write(heading + MODELS)
            return
        self._course = Course.of(orjson.loads(body)["model"])
        self._padding = b":" + b"x" * self._course.pad if self._course.pad else b""
        self._number, self._began = 0, self._loop.time()
        self._transport.write(HEAD)
        self._next()

    # A reader that is slow is waited for, as a real server would.

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._stalled:
            self._stalled = False
            self._next()

    def _next(self) -> None:
        if self._gone:
            return
        if self._full:
            self._stalled = True
            return
        course = self._course
        self._number += 1
        self._chunk(_TOKEN % (self._number, time.monotonic_ns(), self._padding))
        if self._number >= course.tokens:
            self._loop.call_later(course.hold_ms / 1000, self._finish)
        elif course.delay_ms:
            self._loop.call_at(self._began + self._number * course.delay_ms / 1000, self._next)
        else:
            self._loop.call_soon(self._next)

    def _finish(self) -> None:
        if not self._gone:
            tokens = self._course.tokens
            for event in (_FINISH, _USAGE % (tokens, tokens + 10), _DONE):
                self._chunk(event)
            self._transport.write(b"0\r\n\r\n")

    def _chunk(self, event: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))


async def serve(port: int) -> None:
    """Serve until cancelled."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=9100)
    uvloop.run(serve(parser.parse_args().port))
