"""How many connections there may be, and what becomes of viewers that do not read or do not answer."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from tests.support.chat import API, Chat, Frame, Viewer
from tests.support.processes import HEALTH
from tests.support.stack import Stack, refused, socket_url
from tests.support.waiting import wait_until

MOST = 40


@pytest.fixture(scope="module")
def changes() -> dict[str, str]:
    return {
        "MAX_SOCKETS": str(MOST),
        "MAX_CONNECTIONS_PER_USER": "12",
        "SEND_TIMEOUT_SECONDS": "1",
        "OUTBOX_BYTES": "1048576",
        "PING_SECONDS": "1",
    }


@pytest.fixture
def chat(stack: Stack) -> Chat:
    wait_until(lambda: _open_connections(stack) == 0, seconds=15, why="the connections of other tests are gone")
    return stack.chat()


def _open_connections(stack: Stack) -> int:
    count: int = httpx.get(stack.web.url + HEALTH, trust_env=False, timeout=10).json()["active_connections"]
    return count


@contextmanager
def _connected(chat: Chat, session: Frame, count: int) -> Iterator[list[Viewer]]:
    with ExitStack() as opened:
        viewers = [opened.enter_context(chat.watch(session["id"])) for _ in range(count)]
        for viewer in viewers:
            viewer.greeting()
        yield viewers


def _admit(chat: Chat, session: Frame, user: str) -> None:
    body = {"user_id": user, "role": "member"}
    chat.request("POST", f"/sessions/{session['id']}/participants", json=body, status=201)


def _url(stack: Stack, session: Frame, user: str) -> str:
    return socket_url(stack.web, session["id"], user_id=user)


def _answers(viewer: Viewer) -> bool:
    viewer.say("ping")
    return viewer.until_type("pong")["type"] == "pong"


def test_the_eleventh_connection_of_a_user_to_a_session_is_refused(stack: Stack, chat: Chat) -> None:
    session = chat.new_session()
    with _connected(chat, session, 10) as viewers:
        error, code = refused(_url(stack, session, chat.user))
        assert all(_answers(viewer) for viewer in viewers)
    wait_until(lambda: _open_connections(stack) == 0, seconds=10, why="there is room again")

    with chat.watch(session["id"]) as viewer:
        viewer.greeting()
    assert (code, error["error_code"]) == (1013, "TOO_MANY_CONNECTIONS")


def test_a_user_has_so_many_connections_over_all_sessions(stack: Stack, chat: Chat) -> None:
    sessions = [chat.new_session() for _ in range(3)]
    with _connected(chat, sessions[0], 6), _connected(chat, sessions[1], 6):
        error, code = refused(_url(stack, sessions[2], chat.user))
        stream = chat.http.get(f"/sessions/{sessions[2]['id']}/events")

    assert (code, error["error_code"]) == (1013, "TOO_MANY_CONNECTIONS")
    assert (stream.status_code, stream.json()["error_code"]) == (429, "TOO_MANY_CONNECTIONS")
    assert int(stream.headers["Retry-After"]) > 0


def test_a_process_holds_so_many_sockets_and_streams_and_health_still_answers(stack: Stack, chat: Chat) -> None:
    session = chat.new_session()
    with ExitStack() as opened:
        for _ in range(4):
            user = stack.chat()
            _admit(chat, session, user.user)
            opened.enter_context(_connected(user, session, 9))
            stream = user.http.stream("GET", f"/sessions/{session['id']}/events")
            assert opened.enter_context(stream).status_code == 200

        answers = [refused(_url(stack, session, chat.user))[1] for _ in range(5)]
        full = chat.http.get(f"/sessions/{session['id']}/events").status_code
        health = httpx.get(stack.web.url + HEALTH, trust_env=False, timeout=5).status_code

    assert (answers, full, health) == ([1013] * 5, 429, 200)


def test_refused_strangers_do_not_keep_others_from_being_served(stack: Stack, chat: Chat) -> None:
    session = chat.new_session()
    with ExitStack() as opened:
        for _ in range(120):
            # They never answer the close; each of them would hold a thread.
            sock = opened.enter_context(socket.create_connection(("127.0.0.1", stack.web.port)))
            sock.sendall(
                f"GET {API}/sessions/{session['id']}/websocket?user_id=stranger HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
        began = time.monotonic()
        with chat.watch(session["id"]) as viewer:
            viewer.greeting()
        seconds = time.monotonic() - began

    assert seconds < 3


def test_who_is_refused_as_one_too_many_is_told_so_and_holds_nothing_on(stack: Stack, chat: Chat) -> None:
    session = chat.new_session()
    with _connected(chat, session, 10), _silent(stack, session, chat.user) as one_too_many:
        began = time.monotonic()
        received = _read_all(one_too_many)
        seconds = time.monotonic() - began

    assert b'"error_code":"TOO_MANY_CONNECTIONS"' in received
    assert b"\x03\xf5" in received[-200:]
    assert seconds < 1


def test_protocol_pings_come_and_who_does_not_answer_two_is_closed(stack: Stack, chat: Chat) -> None:
    session = chat.new_session()
    with chat.watch(session["id"]) as living, _silent(stack, session, chat.user) as silent:
        living.greeting()
        began = time.monotonic()
        received = _read_all(silent)
        seconds = time.monotonic() - began
        assert _answers(living)

    assert received.count(b"\x89\x00") == 2
    assert 2 < seconds < 8


@contextmanager
def _silent(stack: Stack, session: Frame, user: str) -> Iterator[socket.socket]:
    """A client that reads and never says anything, with the smallest of buffers."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(20)
    with sock:
        sock.connect(("127.0.0.1", stack.web.port))
        sock.sendall(
            f"GET {API}/sessions/{session['id']}/websocket?user_id={user} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        yield sock


def _read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def _fill(chat: Chat, session: Frame, megabytes: int) -> None:
    for _ in range(megabytes * 8):
        chat.send(session["id"], "\N{GRINNING FACE}" * 32_000)


def test_a_viewer_that_does_not_read_is_closed_with_1013(stack: Stack, chat: Chat) -> None:
    session = chat.new_session()
    with _silent(stack, session, chat.user) as silent, chat.watch(session["id"]) as living:
        living.greeting()
        wait_until(lambda: _open_connections(stack) == 2, seconds=10, why="both are there")
        # More than both kernels take, less than what may wait: it is the time that ends it.
        _fill(chat, session, 5)
        living.until(lambda frame: frame.get("offset") == 40)
        wait_until(lambda: _open_connections(stack) == 1, seconds=10, why="the one that does not read is gone")
        received = _read_all(silent)
        assert _answers(living)

    # Of what it was sent it has only what the kernels hold.
    assert 0 < len(received) < 40 * 128_000
    # And why, whenever it may come to read: for that there was room left.
    assert b'"error_code":"TOO_SLOW"' in received
    assert b"\x03\xf5" in received[-200:]


def test_a_viewer_that_begins_to_read_while_it_is_closed_is_told_why(stack: Stack, chat: Chat) -> None:
    session = chat.new_session()
    with _silent(stack, session, chat.user) as silent:
        wait_until(lambda: _open_connections(stack) == 1, seconds=10, why="it is there")
        # More than may wait for a viewer: it is closed at once.
        _fill(chat, session, 8)
        received = _read_all(silent)

    # One error frame, then the close code 1013, in whole frames after whatever came before.
    assert b'"error_code":"TOO_SLOW"' in received
    assert b"\x03\xf5" in received[-200:]
