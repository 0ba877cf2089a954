"""Responses that are sent to clients which read, read slowly, or do not read."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from chat_backend.web.sending import PIECE_BYTES, Watch, sent_in_pieces
from chat_backend.web.turns import PLACE, USER
from tests.support.waiting import wait_until

BODY = bytes(range(256)) * 4096


class Exchange:
    """A response on its way over a real connection, from a thread that sends as gunicorn does."""

    def __init__(self, watch: Watch, user: str = "ann", body: bytes = BODY) -> None:
        self.ours, self.client = socket.socketpair()
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.client.settimeout(10)
        self.place_given_back = False
        self._begun = threading.Event()
        environ = {"gunicorn.socket": self.ours, USER: user, PLACE: self._give_back}
        self._response = sent_in_pieces(lambda environ, start: [body], watch)(environ, lambda *_: None)
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()
        self._begun.wait(10)

    def _give_back(self) -> None:
        self.place_given_back = True

    def _send(self) -> None:
        try:
            for piece in self._response:
                self._begun.set()
                self.ours.sendall(piece)
        except OSError:
            return  # as a server does where its client is gone
        finally:
            self._response.close()  # type: ignore[attr-defined]
            self.ours.close()

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def close(self) -> None:
        self.client.close()
        self._thread.join(10)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def _watch(*, timeout_seconds: float = 30, most_responses: int = 100, **more: int) -> Watch:
    return Watch(timeout_seconds, most_responses=most_responses, **more)


def _exchange(opened: ExitStack, watch: Watch, user: str = "ann") -> Exchange:
    exchange = Exchange(watch, user)
    opened.callback(exchange.close)
    return exchange


def test_client_that_does_not_read_is_disconnected(opened: ExitStack) -> None:
    exchange = _exchange(opened, _watch(timeout_seconds=0.3))

    wait_until(lambda: exchange.is_over, why="the response is given up")

    assert exchange.place_given_back


def test_place_is_held_until_response_is_sent(opened: ExitStack) -> None:
    watch = _watch()
    exchange = _exchange(opened, watch)

    held = not exchange.place_given_back
    received = b"".join(iter(lambda: exchange.client.recv(65536), b""))

    wait_until(lambda: exchange.is_over, why="all is sent")
    assert held
    assert received == BODY
    assert exchange.place_given_back
    assert not watch.waiting


def test_slow_reader_that_progresses_is_not_disconnected(opened: ExitStack) -> None:
    exchange = _exchange(opened, _watch(timeout_seconds=1))
    received = b""

    # Longer than the timeout in all, but never for one piece.
    for _ in range(len(BODY) // PIECE_BYTES):
        wanted = len(received) + PIECE_BYTES
        threading.Event().wait(0.1)
        while len(received) < wanted:
            received += exchange.client.recv(wanted - len(received))

    assert received == BODY


def test_of_too_many_unread_responses_the_oldest_are_ended(opened: ExitStack) -> None:
    watch = _watch(most_responses=2)
    exchanges = [_exchange(opened, watch) for _ in range(5)]

    wait_until(lambda: [exchange.is_over for exchange in exchanges] == [True] * 3 + [False] * 2, why="three are ended")


def test_unread_bytes_of_a_user_are_bounded(opened: ExitStack) -> None:
    watch = _watch(most_bytes_of_user=2 * len(BODY))
    mine = [_exchange(opened, watch) for _ in range(4)]
    other = _exchange(opened, watch, "bob")

    wait_until(lambda: sum(exchange.is_over for exchange in mine) == 2, why="half of them are ended")

    assert not other.is_over


def test_unread_bytes_of_all_are_taken_from_who_has_most(opened: ExitStack) -> None:
    watch = _watch(most_bytes=3 * len(BODY))
    other = _exchange(opened, watch, "bob")
    mine = [_exchange(opened, watch) for _ in range(4)]

    wait_until(lambda: sum(exchange.is_over for exchange in mine) == 2, why="two of them are ended")

    assert not other.is_over


def test_place_is_given_back_when_the_app_fails() -> None:
    given_back = []

    def fail(environ: dict[str, object], start: object) -> list[bytes]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        sent_in_pieces(fail, _watch())({PLACE: lambda: given_back.append(True)}, lambda *_: None)

    assert given_back
