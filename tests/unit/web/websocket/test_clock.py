"""The clock: cuts who does not read and nobody else, and one feed's trouble is its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest

from chat_backend.config import Settings
from chat_backend.domain.user import User
from chat_backend.protocol.events import pong
from chat_backend.web.websocket.clock import Clock
from chat_backend.web.websocket.connection import Connection
from chat_backend.web.websocket.feed import Feed
from chat_backend.web.websocket.outbox import SocketOutbox
from tests.support.session_world import PaperOutbox
from tests.support.waiting import wait_until

SETTINGS = Settings.from_environment({"AUTH_MODE": "dev", "SEND_TIMEOUT_SECONDS": "0.1"})


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def _read_all(theirs: socket.socket) -> int:
    size = 0
    try:
        while data := theirs.recv(1_000_000):
            size += len(data)
    except BlockingIOError:
        return size
    return size


def _blocked(ours: socket.socket) -> Connection:
    """A connection whose last pong met a full buffer."""
    connection = Connection(uuid4(), User("ann"), SocketOutbox(ours))
    while connection.outbox.blocked_since is None:
        connection.say(pong(1))
    return connection


@pytest.fixture
def stopping() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def _run(clock: Clock, stopping: threading.Event) -> None:
    threading.Thread(target=clock.run, args=(stopping,), daemon=True).start()


def test_who_reads_again_is_sent_what_waits_and_stays(
    pair: tuple[socket.socket, socket.socket], stopping: threading.Event
) -> None:
    ours, theirs = pair
    connection = _blocked(ours)
    blocked = connection.outbox.blocked_since or 0.0
    _read_all(theirs)

    clock = Clock(SETTINGS, feeds={}, connections={connection.id: connection})
    wait_until(
        lambda: time.monotonic() - blocked > 2 * SETTINGS.send_timeout_seconds,
        why="the viewer has been quiet for too long",
    )
    _run(clock, stopping)

    wait_until(lambda: connection.outbox.idle)
    assert not connection.closing
    assert connection.outbox.blocked_since is None


def test_who_does_not_read_is_cut(pair: tuple[socket.socket, socket.socket], stopping: threading.Event) -> None:
    connection = _blocked(pair[0])

    _run(Clock(SETTINGS, feeds={}, connections={connection.id: connection}), stopping)

    wait_until(lambda: connection.closing)


class _Broken(Feed):
    def tick(self, at: float) -> None:
        self.needs_tick = False
        raise RuntimeError("nobody has thought of this")


def test_a_feed_that_fails_holds_up_no_other(stopping: threading.Event) -> None:
    bad, good = _Broken(uuid4(), typing_seconds=5), Feed(uuid4(), typing_seconds=5)
    outbox = PaperOutbox()
    outbox.reads = False
    good.attach_afresh(Connection(good.session_id, User("ann"), outbox), online=[])
    bad.needs_tick = good.needs_tick = outbox.reads = True

    _run(Clock(SETTINGS, feeds={"bad": bad, "good": good}, connections={}), stopping)

    wait_until(lambda: outbox.idle)
