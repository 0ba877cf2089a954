"""Server-sent events: the same events for clients that have no WebSocket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import httpx
import pytest

from tests.support.chat import Chat, Frame
from tests.support.processes import HEALTH
from tests.support.provider_stub import expected_text
from tests.support.stack import Stack
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def changes() -> dict[str, str]:
    return {"PING_SECONDS": "0.5"}


@pytest.fixture
def chat(stack: Stack) -> Chat:
    return stack.chat()


@dataclass
class Stream:
    """An open event stream, read as the standard says."""

    response: httpx.Response
    events: list[tuple[str | None, Frame]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lines = self.response.iter_lines()

    def next(self) -> Frame | None:
        """Return the next event, None at the end."""
        named, data = None, None
        for line in self.lines:
            if line.startswith("id: "):
                named = line.removeprefix("id: ")
            elif line.startswith("data: "):
                data = line.removeprefix("data: ")
            elif not line and data is not None:
                frame: Frame = json.loads(data)
                self.events.append((named, frame))
                return frame
        return None

    def until(self, **wanted: Any) -> Frame:
        while (frame := self.next()) is not None:
            if wanted.items() <= frame.items():
                return frame
        raise AssertionError(f"the stream ended before {wanted}: {self.events[-3:]}")


@contextmanager
def listen(chat: Chat, session: Frame, headers: dict[str, str] | None = None, **query: Any) -> Iterator[Stream]:
    address = f"/sessions/{session['id']}/events"
    with chat.http.stream("GET", address, params=query, headers=headers, timeout=20) as response:
        assert response.status_code == 200, response.read()
        yield Stream(response)


def _open_connections(stack: Stack) -> int:
    count: int = httpx.get(stack.web.url + HEALTH, trust_env=False).json()["active_connections"]
    return count


@pytest.mark.parametrize("deltas", [0, 1])
def test_the_events_of_the_socket_come_as_a_stream(chat: Chat, deltas: int) -> None:
    session = chat.new_session("stub:tokens=40,delay=0.02,tag=t,unicode")
    with listen(chat, session, deltas=deltas) as stream:
        greeting = stream.next()
        chat.ask(session["id"], "Hello")
        final = stream.until(action="completed")["message"]
        stream.until(type="job_update")

    assert stream.response.headers["Content-Type"].startswith("text/event-stream")
    assert stream.response.headers["Cache-Control"] == "no-store"
    assert greeting
    assert greeting["type"] == "connection_established"
    assert [named for named, frame in stream.events if "offset" in frame][1:] == ["1", "2", "3", "4", "5", "6"]
    assert all(named is None for named, frame in stream.events if frame.get("action") == "streaming")
    pieces = [frame["text"] for _, frame in stream.events if frame["type"] == "message_delta"]
    assert "".join(pieces) == (final["content"] if deltas else "")
    assert final["content"].endswith(expected_text("t", 40))


def test_a_client_that_comes_back_gets_what_it_missed(chat: Chat) -> None:
    session = chat.new_session()
    for text in ("one", "two", "three"):
        chat.send(session["id"], text)

    for headers, query in (
        ({"Last-Event-ID": "1"}, {}),
        ({}, {"since": "1"}),
        ({"Last-Event-ID": "1"}, {"since": "0"}),
    ):
        with listen(chat, session, headers, **query) as stream:
            greeting, *missed = [stream.next() for _ in range(3)]
        assert greeting
        assert greeting["recovered"]
        assert [frame and frame["message"]["content"] for frame in missed] == ["two", "three"]


def test_a_long_past_comes_whole(chat: Chat) -> None:
    session = chat.new_session()
    for _ in range(130):
        chat.send(session["id"], "\N{GRINNING FACE}" * 10_000)

    with listen(chat, session, since=0) as stream:
        stream.until(offset=130, type="message_update")
        chat.send(session["id"], "live")
        live = stream.next()

    assert live
    assert live["message"]["content"] == "live"
    assert [named for named, _ in stream.events[1:]] == [str(number) for number in range(1, 132)]


def test_a_comment_keeps_a_silent_stream_alive(chat: Chat) -> None:
    session = chat.new_session()
    with listen(chat, session) as stream:
        stream.next()
        comments = islice((line for line in stream.lines if line.startswith(":")), 3)

        assert len(list(comments)) == 3


def test_a_stream_is_refused_as_any_request(stack: Stack, chat: Chat) -> None:
    session = chat.new_session()
    stranger = stack.chat()
    asked = [
        (chat, session["id"], {"since": "x"}),
        (chat, "nonsense", {}),
        (stranger, session["id"], {}),
        (chat, session["id"], {"ticket": "nonsense"}),
    ]

    answers = [who.http.get(f"/sessions/{path}/events", params=query) for who, path, query in asked]

    assert [answer.status_code for answer in answers] == [422, 404, 404, 401]
    for answer in answers:
        assert {"error", "error_code", "details", "errors", "timestamp", "trace_id"} == set(answer.json())


def test_a_stream_ends_when_its_session_is_deleted(chat: Chat) -> None:
    session = chat.new_session()
    with listen(chat, session) as stream:
        stream.next()
        chat.request("DELETE", f"/sessions/{session['id']}")
        error, end = stream.next(), stream.next()

    assert error
    assert (error["type"], error["error_code"], end) == ("error", "NOT_FOUND", None)


def test_a_stream_ends_when_its_listener_is_removed(stack: Stack, chat: Chat) -> None:
    session, bob = chat.new_session(), stack.chat()
    body = {"user_id": bob.user, "role": "viewer"}
    chat.request("POST", f"/sessions/{session['id']}/participants", json=body, status=201)
    with listen(bob, session) as stream:
        stream.next()
        chat.request("DELETE", f"/sessions/{session['id']}/participants/{bob.user}", status=204)
        error = stream.until(type="error")
        end = stream.next()

    assert (error["error_code"], end) == ("NOT_A_PARTICIPANT", None)


def test_listeners_count_and_one_that_is_gone_is_noticed(stack: Stack, chat: Chat) -> None:
    session = chat.new_session()
    wait_until(lambda: _open_connections(stack) == 0, why="other tests' streams are gone")
    with listen(chat, session) as stream:
        stream.next()
        wait_until(lambda: _open_connections(stack) == 1, why="the listener counts")

    wait_until(lambda: _open_connections(stack) == 0, seconds=5, why="the listener is gone")


def test_asking_for_the_head_of_a_stream_opens_none(stack: Stack, chat: Chat) -> None:
    session = chat.new_session()
    with chat.watch(session["id"]) as viewer:
        viewer.greeting()
        statuses = {chat.http.head(f"/sessions/{session['id']}/events").status_code for _ in range(20)}
        wait_until(lambda: _open_connections(stack) == 1, why="only the socket is there")

    assert statuses == {200}
