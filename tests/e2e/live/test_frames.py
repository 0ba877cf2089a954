"""The WebSocket protocol itself: what bytes may come, and how a connection ends."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.chat import API, Chat, Viewer
from tests.support.processes import Process
from tests.support.stack import Stack, dial, socket_url
from tests.support.waiting import wait_until

TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION = 1, 2, 8, 9, 10, 0


@pytest.fixture
def chat(stack: Stack) -> Chat:
    return stack.chat()


@pytest.fixture
def raw(stack: Stack, chat: Chat) -> Iterator[Raw]:
    session = chat.new_session()
    with Raw(stack.web, session["id"], chat.user) as raw:
        raw.frame()
        yield raw


class Raw:
    """A client that frames by hand, so that it can do it wrong."""

    def __init__(self, web: Process, session_id: str, user: str, *, extra: str = "", key: str | None = None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", web.port), timeout=10)
        key = base64.b64encode(os.urandom(16)).decode() if key is None else key
        self._socket.sendall(
            f"GET {API}/sessions/{session_id}/websocket?user_id={user} HTTP/1.1\r\nHost: 127.0.0.1:{web.port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n{extra}\r\n".encode()
        )
        self._file = self._socket.makefile("rb")
        self.head = b"".join(iter(self._file.readline, b"\r\n")).decode()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, opcode: int, payload: bytes = b"", *, final: bool = True, masked: bool = True, rsv: int = 0) -> None:
        size = len(payload)
        head = bytes([(0x80 if final else 0) | rsv | opcode])
        mask = 0x80 if masked else 0
        if size < 126:
            head += bytes([mask | size])
        else:
            head += struct.pack("!BQ", mask | 127, size)
        # A mask of zeros leaves the payload as it is.
        self._socket.sendall(head + (b"\0\0\0\0" if masked else b"") + payload)

    def pour(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def frame(self) -> tuple[int, bytes]:
        """Read one frame of the server's: opcode and payload."""
        first, size = self._file.read(2)
        assert first & 0x70 == 0, "a reserved bit is set"
        assert size & 0x80 == 0, "a server masks nothing"
        if size == 126:
            size = struct.unpack("!H", self._file.read(2))[0]
        elif size == 127:
            size = struct.unpack("!Q", self._file.read(8))[0]
        return first & 0x0F, self._file.read(size)

    def until(self, opcode: int) -> bytes:
        while (frame := self.frame())[0] != opcode:
            pass
        return frame[1]

    def close_code(self) -> int:
        code: int = struct.unpack("!H", self.until(CLOSE)[:2])[0]
        return code

    def body(self) -> Any:
        """Read the JSON of an answer that is no upgrade."""
        size = re.search(r"content-length: (\d+)", self.head, re.IGNORECASE)
        assert size, self.head
        return json.loads(self._file.read(int(size[1])))

    def ended(self) -> bool:
        """Whether the server has closed its side, and nothing was reset."""
        return self._file.read() == b""


def test_fragments_are_put_together_with_pings_between(raw: Raw) -> None:
    raw.send(TEXT, b'{"type": ', final=False)
    raw.send(PING, b"hello")
    raw.send(CONTINUATION, b'"pi', final=False)
    raw.send(CONTINUATION, b'ng"}')

    assert raw.frame() == (PONG, b"hello")
    assert b'"pong"' in raw.until(TEXT)


@pytest.mark.parametrize(
    ("opcode", "how"),
    [
        (TEXT, {"rsv": 0x40}),
        (TEXT, {"rsv": 0x10}),
        (TEXT, {"masked": False}),
        (CONTINUATION, {}),
        (3, {}),
        (PING, {"final": False}),
    ],
    ids=["compressed", "reserved", "unmasked", "continuation of nothing", "unknown opcode", "fragmented ping"],
)
def test_frames_against_the_protocol_end_the_connection_in_good_order(
    raw: Raw, opcode: int, how: dict[str, int]
) -> None:
    raw.send(opcode, b'{"type": "ping"}', **how)

    assert raw.close_code() == 1002
    assert raw.ended()


def test_nothing_follows_a_close_frame_while_a_reply_is_written(stack: Stack, chat: Chat) -> None:
    session = chat.new_session("stub:tokens=4000,delay=0.001")
    chat.ask(session["id"], "Hello")
    codes, ended = [], []

    for _ in range(20):
        with Raw(stack.web, session["id"], chat.user) as raw:
            raw.frame()
            raw.until(TEXT)
            raw.send(CLOSE, struct.pack("!H", 1000))
            codes.append(raw.close_code())
            ended.append(raw.ended())

    assert (codes, ended) == ([1000] * 20, [True] * 20)


def test_text_that_is_no_utf8_ends_the_connection(raw: Raw) -> None:
    raw.send(TEXT, b"\xff\xfe")

    assert raw.close_code() == 1007


@pytest.mark.parametrize("size", [256 * 1024 + 1, 3_000_000])
def test_a_frame_over_256_kib_ends_the_connection_with_1009(raw: Raw, size: int) -> None:
    raw.send(TEXT, b"x" * size)

    assert raw.close_code() == 1009


def test_fragments_over_256_kib_end_the_connection_with_1009(raw: Raw) -> None:
    raw.send(TEXT, b"x" * 200_000, final=False)
    raw.send(CONTINUATION, b"x" * 100_000)

    assert raw.close_code() == 1009


def test_the_limit_of_a_frame_counts_bytes(raw: Raw) -> None:
    raw.send(TEXT, "\N{GRINNING FACE}".encode() * 80_000)

    assert raw.close_code() == 1009


def test_a_frame_of_256_kib_is_read(raw: Raw) -> None:
    raw.send(TEXT, b"x" * 256 * 1024)

    assert b"MALFORMED_JSON" in raw.until(TEXT)


def test_no_compression_is_agreed_to(stack: Stack, chat: Chat) -> None:
    session = chat.new_session()
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"

    with Raw(stack.web, session["id"], chat.user, extra=offer) as raw:
        assert " 101 " in raw.head
        assert "extensions" not in raw.head.lower()
        assert b"connection_established" in raw.frame()[1]


def test_a_handshake_that_is_none_is_a_bad_request(stack: Stack, chat: Chat) -> None:
    session = chat.new_session()

    with Raw(stack.web, session["id"], chat.user, key="") as raw:
        assert " 400 " in raw.head
    plain = chat.http.get(f"/sessions/{session['id']}/websocket")
    assert (plain.status_code, plain.json()["error_code"]) == (400, "MALFORMED_REQUEST")


@pytest.mark.parametrize("frame", ['{"type": "ping"}', "nonsense"])
def test_a_flood_of_frames_ends_the_connection_with_1008(stack: Stack, chat: Chat, frame: str) -> None:
    session = chat.new_session()
    with chat.watch(session["id"]) as viewer, chat.watch(session["id"]) as bystander:
        viewer.greeting()
        bystander.greeting()
        with suppress(ConnectionClosed):
            for _ in range(200):
                viewer.socket.send(frame)
        code = viewer.until_closed()
        bystander.say("ping")
        after = bystander.next()

    assert (code, viewer.frames[-1]["error_code"]) == (1008, "RATE_LIMITED")
    assert after["type"] == "pong"


def test_who_floods_is_not_told_at_once_and_so_does_not_come_back_at_once(raw: Raw) -> None:
    began = time.monotonic()
    with suppress(OSError):
        for _ in range(200):
            raw.send(TEXT, b'{"type": "ping"}')
    code = raw.close_code()

    assert code == 1008
    assert time.monotonic() - began > 0.9


def test_twenty_frames_at_once_are_no_flood(chat: Chat) -> None:
    with chat.watch(chat.new_session()["id"]) as viewer:
        viewer.greeting()
        for _ in range(20):
            viewer.say("ping")
        answers = [viewer.next()["type"] for _ in range(20)]

    assert answers == ["pong"] * 20


def test_a_flood_of_protocol_pings_ends_the_connection_with_1008(raw: Raw) -> None:
    with suppress(OSError):
        for _ in range(200_000):
            raw.send(PING, b"x")

    assert raw.close_code() == 1008


def test_a_flood_of_pongs_that_nobody_asked_for_ends_the_connection_with_1008(raw: Raw) -> None:
    with suppress(OSError):
        for _ in range(200_000):
            raw.send(PONG, b"x")

    assert raw.close_code() == 1008


def test_a_message_of_empty_pieces_without_end_ends_the_connection_with_1008(raw: Raw) -> None:
    raw.send(TEXT, b"{", final=False)
    with suppress(OSError):
        for _ in range(200_000):
            raw.send(CONTINUATION, final=False)

    assert raw.close_code() == 1008


def test_a_flood_of_the_largest_frames_ends_the_connection_with_1008(raw: Raw) -> None:
    with suppress(OSError):
        for _ in range(12):
            raw.send(TEXT, b"x" * 256 * 1024)

    assert raw.close_code() == 1008


def test_a_few_of_the_largest_frames_at_once_are_no_flood(raw: Raw) -> None:
    for _ in range(4):
        raw.send(TEXT, b"x" * 256 * 1024)

    answers = [raw.until(TEXT) for _ in range(4)]

    assert all(b"MALFORMED_JSON" in answer for answer in answers)


def test_a_message_in_many_pieces_is_no_flood(raw: Raw) -> None:
    text = b'{"type": "ping"' + b" " * 1000 + b"}"
    raw.send(TEXT, text[:1], final=False)
    for letter in text[1:]:
        raw.send(CONTINUATION, bytes([letter]), final=False)
    raw.send(CONTINUATION)

    assert b'"pong"' in raw.until(TEXT)


def test_floods_of_those_who_are_not_let_in_leave_no_memory_behind(stack: Stack, chat: Chat) -> None:
    flood = b"\x8a\x80\0\0\0\0" * 50_000 + b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 50_000
    _flood_as_a_stranger(stack.web, chat, flood)
    before = _memory(stack.web)

    for _ in range(20):
        _flood_as_a_stranger(stack.web, chat, flood)

    chat.request("GET", "/sessions")
    assert _memory(stack.web) - before < 10 * 1024


def _flood_as_a_stranger(web: Process, chat: Chat, flood: bytes) -> None:
    with suppress(OSError), Raw(web, chat.new_session()["id"], "stranger") as raw:
        raw.pour(flood)


def _memory(web: Process) -> int:
    """Return what all processes of a web server hold, in KiB."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in web.family]
    return sum(int(found[1]) for text in texts if (found := re.search(r"VmRSS:\s+(\d+) kB", text)))


def test_a_client_that_closes_is_answered(raw: Raw) -> None:
    raw.send(CLOSE, struct.pack("!H", 1000))

    assert raw.close_code() == 1000
    assert raw.ended()


def test_a_path_that_is_no_session_still_gets_a_whole_error_frame(stack: Stack) -> None:
    for path in ("nonsense", "%ff%00", "019a0000-0000-7000-8000-00000000000"):
        with Viewer(dial(f"{stack.web.url.replace('http', 'ws', 1)}{API}/sessions/{path}/websocket")) as viewer:
            assert viewer.until_closed() == 4404
        assert viewer.frames[0]["error_code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://127.0.0.1.evil.example",
        "https://chat.example.com.evil.example",
        "file://",
    ],
)
def test_a_foreign_page_is_refused_before_the_upgrade(stack: Stack, chat: Chat, origin: str) -> None:
    session = chat.new_session()

    with Raw(stack.web, session["id"], chat.user, extra=f"Origin: {origin}\r\n") as raw:
        assert " 403 " in raw.head
        assert raw.body()["error_code"] == "ORIGIN_NOT_ALLOWED"


def test_in_dev_pages_of_this_machine_and_of_the_same_origin_are_let_in(stack: Stack, chat: Chat) -> None:
    session = chat.new_session()
    for origin in (stack.web.url, "http://localhost:3000", "http://[::1]:5173", "https://127.0.0.1"):
        with Viewer(dial(socket_url(stack.web, session["id"], user_id=chat.user), origin=origin)) as viewer:
            assert viewer.greeting()["user_id"] == chat.user


def test_frames_that_are_too_large_do_not_keep_their_connections_places(stack: Stack, chat: Chat) -> None:
    session = chat.new_session()
    for _ in range(20):
        with Raw(stack.web, session["id"], chat.user) as raw:
            raw.frame()
            raw.send(TEXT, b"x" * 300 * 1024)

    wait_until(lambda: chat.request("GET", "/health")["active_connections"] == 0, seconds=15, why="all are gone")


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "http://evil@localhost", "//localhost", "null"])
def test_an_origin_that_is_none_is_refused(stack: Stack, chat: Chat, origin: str) -> None:
    session = chat.new_session()

    with Raw(stack.web, session["id"], chat.user, extra=f"Origin: {origin}\r\n") as raw:
        assert " 403 " in raw.head


def test_a_subprotocol_that_is_no_text_is_ignored(stack: Stack, chat: Chat) -> None:
    session = chat.new_session()

    with Raw(stack.web, session["id"], chat.user, extra="Sec-WebSocket-Protocol: \u00e9 ,\r\n") as raw:
        assert " 101 " in raw.head
