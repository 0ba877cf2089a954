"""The socket that the WebSocket library reads from: it reads no more than a process can bear."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from threading import Thread
from types import SimpleNamespace

import pytest

from chat_backend.web.websocket.frames import Encoded, close_frame, websocket_frame
from chat_backend.web.websocket.viewer_socket import ViewerSocket
from tests.support.waiting import wait_until

PONG, PIECE, EMPTY = SimpleNamespace(payload=b"x"), SimpleNamespace(data="x"), SimpleNamespace(data="")

PONGS = websocket_frame(0xA, b"one") + websocket_frame(0xA, b"x" * 125)


@pytest.fixture
def ends() -> Iterator[tuple[ViewerSocket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ViewerSocket(ours, frames_per_second=20), theirs


@pytest.mark.parametrize(
    ("unread", "reads_on"),
    [
        (["x"] * 64, True),
        (["x"] * 65, False),
        (["x" * 256 * 1024] * 3, True),
        (["x" * 256 * 1024] * 4, False),
        (["\N{GRINNING FACE}" * 256 * 1024], False),
        ([b"x" * 1024 * 1024], False),
    ],
)
def test_nothing_more_is_read_while_much_is_unread(
    ends: tuple[ViewerSocket, socket.socket], unread: list[str | bytes], reads_on: bool
) -> None:
    viewer, theirs = ends
    viewer.unread, found = unread[:], []
    theirs.send(b"more")
    reader = Thread(target=lambda: found.append(viewer.recv(10)))
    reader.start()
    reader.join(0.3)

    before = found[:]
    viewer.unread.clear()
    viewer.taken()

    wait_until(lambda: found, why="what was taken made room")
    reader.join()
    assert before == ([b"more"] if reads_on else [])


@pytest.mark.parametrize("before", [b"", PONGS])
def test_nothing_follows_the_close_frame_of_the_library(
    ends: tuple[ViewerSocket, socket.socket], before: bytes
) -> None:
    viewer, theirs = ends
    head = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
    parts = [head, PONGS, before + close_frame(1000, "")]

    for part in parts:
        viewer.send(part)
        viewer.outbox.push(Encoded(b"{}"))
    viewer.outbox.finish(1012, "too late")

    frame = Encoded(b"{}").websocket
    assert theirs.recv(1000) == frame.join(parts)


@pytest.mark.parametrize(("event", "at_most"), [(PONG, 40), (EMPTY, 40), (PIECE, 4000)])
def test_a_flood_before_anybody_is_let_in_ends_the_reading(
    ends: tuple[ViewerSocket, socket.socket], event: object, at_most: int
) -> None:
    viewer, theirs = ends
    theirs.send(b"more")
    read = viewer.counted(lambda: iter([event] * 10_000))

    seen = list(read())

    assert at_most <= len(seen) < at_most * 1.2
    assert viewer.recv(10) == b""
