"""What a client may say on a socket, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.support.chat import Chat, Frame, Viewer
from tests.support.stack import Stack

SLOW = "stub:tokens=400,delay=0.05"


@pytest.fixture
def chat(stack: Stack) -> Chat:
    return stack.chat()


@pytest.fixture
def session(chat: Chat) -> Frame:
    return chat.new_session("stub:tokens=3")


@pytest.fixture
def viewer(chat: Chat, session: Frame) -> Iterator[Viewer]:
    with chat.watch(session["id"]) as viewer:
        viewer.greeting()
        yield viewer


def _admit(chat: Chat, session: Frame, user: str, role: str = "member") -> None:
    body = {"user_id": user, "role": role}
    chat.request("POST", f"/sessions/{session['id']}/participants", json=body, status=201)


def _rest_send(chat: Chat, session: Frame, key: str, **body: Any) -> Any:
    headers = {"Idempotency-Key": key}
    return chat.http.post(f"/sessions/{session['id']}/messages", json=body, headers=headers)


def test_a_request_id_is_told_to_its_sender_alone_and_only_on_its_message(
    stack: Stack, chat: Chat, session: Frame, viewer: Viewer
) -> None:
    bob = stack.chat()
    _admit(chat, session, bob.user)
    with bob.watch(session["id"]) as other, chat.watch(session["id"], since=0) as second:
        other.greeting()
        viewer.say("send_message", content="Hello", request_id="r1")
        for each in (viewer, other, second):
            each.until_job("succeeded")

    assert [f["message"]["content"] for f in viewer.frames if "request_id" in f] == ["Hello"]
    assert [f["message"]["content"] for f in second.frames if "request_id" in f] == ["Hello"]
    assert not [f for f in other.frames if "request_id" in f]


def test_a_message_may_say_how_its_reply_is_written(stack: Stack, chat: Chat, session: Frame, viewer: Viewer) -> None:
    question = f"Hello {uuid4().hex}"

    viewer.say("send_message", content=question, temperature=0.1, stop=["END"])
    viewer.until_job("succeeded")
    viewer.say("send_message", content=question, temperature=9)
    refused = viewer.until_type("error")

    told = next(call["parameters"] for call in stack.stub.ledger() if call["last_user_message"] == question)
    assert (told["temperature"], told["stop"]) == (0.1, ["END"])
    assert (refused["error_code"], refused["details"]["field"]) == ("INVALID_INPUT", "temperature")


def test_a_repeated_request_id_is_answered_to_that_connection_alone_and_stores_nothing(
    chat: Chat, session: Frame, viewer: Viewer
) -> None:
    with chat.watch(session["id"]) as second:
        second.greeting()
        viewer.say("send_message", content="Hello", request_id="r1")
        first = viewer.until_action("new_message")
        viewer.until_job("succeeded")
        second.until_job("succeeded")
        viewer.say("send_message", content="Hello", request_id="r1")
        again = viewer.next()
        second.say("ping")
        pong = second.next()

    assert again["message"]["id"] == first["message"]["id"]
    assert (again["action"], again["replayed"], again["request_id"]) == ("new_message", True, "r1")
    assert "offset" not in again
    assert pong["type"] == "pong"
    assert len(chat.messages(session["id"])) == 2


def test_rest_and_socket_send_one_operation(chat: Chat, session: Frame, viewer: Viewer) -> None:
    told = {"content": "Hello", "metadata": {"a": 1}, "process": False}
    made = _rest_send(chat, session, "k1", **told).json()
    viewer.until_action("new_message")
    viewer.say("send_message", request_id="k1", **told)
    by_socket = viewer.next()
    viewer.say("send_message", request_id="k2", content="Again")
    stored = viewer.until_action("new_message")
    by_rest = _rest_send(chat, session, "k2", content="Again", process=True)

    assert (by_socket["message"]["id"], by_socket["replayed"]) == (made["id"], True)
    assert by_rest.json()["id"] == stored["message"]["id"]
    assert by_rest.headers["Idempotency-Replayed"] == "true"


def test_a_request_id_with_another_payload_is_refused(chat: Chat, session: Frame, viewer: Viewer) -> None:
    viewer.say("send_message", content="Hello", request_id="r1", process=False)
    viewer.until_action("new_message")
    viewer.say("send_message", content="Other", request_id="r1", process=False)
    error = viewer.next()

    assert (error["error_code"], error["request_id"]) == ("IDEMPOTENCY_KEY_REUSED", "r1")
    assert len(chat.messages(session["id"])) == 1


@pytest.mark.parametrize("request_id", ["", "a b", "ä", "x" * 256])
def test_a_request_id_that_is_none_is_refused(viewer: Viewer, request_id: str) -> None:
    viewer.say("send_message", content="Hello", request_id=request_id)
    error = viewer.next()

    assert (error["error_code"], error["details"]["field"]) == ("INVALID_IDEMPOTENCY_KEY", "request_id")
    assert error.get("request_id", request_id) == request_id


def test_a_message_without_process_asks_for_nothing(chat: Chat, session: Frame, viewer: Viewer) -> None:
    viewer.say("send_message", content="Hello", process=False, metadata={"client": "x"})
    message = viewer.next()["message"]
    viewer.say("ping")
    pong = viewer.next()

    assert (message["metadata"], message["user_id"], message["status"]) == ({"client": "x"}, chat.user, "complete")
    assert (pong["type"], pong["offset"]) == ("pong", 1)


def test_a_reply_in_a_thread_stays_in_it(viewer: Viewer) -> None:
    viewer.say("send_message", content="Parent", process=False)
    parent = viewer.next()["message"]["id"]
    viewer.say("send_message", content="Child", parent_message_id=parent)
    child = viewer.next()["message"]
    reply = viewer.next()["message"]
    viewer.say("send_message", content="Lost", parent_message_id=str(uuid4()))
    error = viewer.until_type("error")

    assert (child["parent_message_id"], reply["parent_message_id"]) == (parent, parent)
    assert error["details"]["field"] == "parent_message_id"


def test_a_second_prompt_may_be_refused_or_interrupt_the_first(chat: Chat) -> None:
    session = chat.new_session(SLOW)
    with chat.watch(session["id"]) as viewer:
        viewer.greeting()
        viewer.say("send_message", content="One")
        running = viewer.until_job("running")["job"]
        viewer.say("send_message", content="Two", on_busy="reject", request_id="r2")
        refused = viewer.until_type("error")
        viewer.say("send_message", content="Three stub:tokens=2", on_busy="interrupt")
        cancelled = viewer.until_action("cancelled")
        completed = viewer.until_action("completed")

    assert (refused["error_code"], refused["details"]["job_id"]) == ("SESSION_BUSY", running["id"])
    assert refused["request_id"] == "r2"
    assert cancelled["message"]["id"] == running["assistant_message_id"]
    assert completed["message"]["seq"] == 4


def test_a_reply_is_cancelled_by_socket_and_keeps_its_text(chat: Chat) -> None:
    session = chat.new_session(SLOW)
    with chat.watch(session["id"]) as viewer:
        viewer.greeting()
        viewer.say("send_message", content="One")
        job = viewer.until_job("running")["job"]
        viewer.until_action("streaming")
        viewer.say("cancel", job_id=job["id"])
        final = viewer.until_action("cancelled", seconds=5)
        viewer.until_job("cancelled")
        viewer.say("cancel", job_id=job["id"])
        viewer.say("ping")
        after = viewer.next()

    assert final["message"]["content"]
    assert after["type"] == "pong"


def test_jobs_of_another_session_are_not_found(stack: Stack, chat: Chat, viewer: Viewer) -> None:
    mine = chat.new_session(SLOW)
    theirs = stack.chat()
    jobs = [chat.ask(mine["id"], "One"), theirs.ask(theirs.new_session(SLOW)["id"], "Two"), {"job_id": str(uuid4())}]

    for job in jobs:
        viewer.say("cancel", job_id=job["job_id"], request_id="c1")
        error = viewer.next()
        assert (error["type"], error["error_code"], error["request_id"]) == ("error", "NOT_FOUND", "c1")

    assert chat.job(jobs[0]["job_id"])["status"] in ("queued", "running")
    for asker, job in zip((chat, theirs), jobs[:2], strict=True):
        asker.cancel(job["job_id"])


def test_a_ping_is_answered_with_the_current_offset(chat: Chat, session: Frame, viewer: Viewer) -> None:
    chat.send(session["id"], "one")
    viewer.until_action("new_message")
    viewer.say("ping")

    assert viewer.next()["offset"] == 1


BAD = [
    ("", "MALFORMED_JSON", None),
    ("{", "MALFORMED_JSON", None),
    ("nonsense", "MALFORMED_JSON", None),
    ('{"type": "ping", "type": "ping"}', "MALFORMED_JSON", None),
    ('{"type": "ping", "x": NaN}', "MALFORMED_JSON", None),
    ('{"x":' + "[" * 5000 + "]" * 5000 + "}", "MALFORMED_JSON", None),
    ("[" * 100_000, "MALFORMED_JSON", None),
    ("[1]", "INVALID_INPUT", None),
    ("null", "INVALID_INPUT", None),
    ('"ping"', "INVALID_INPUT", None),
    ("{}", "INVALID_INPUT", "type"),
    ('{"type": 1}', "INVALID_INPUT", "type"),
    ('{"type": ["ping"]}', "INVALID_INPUT", "type"),
    ('{"type": "nothing"}', "INVALID_INPUT", "type"),
    ('{"type": "ping", "extra": 1}', "INVALID_INPUT", "extra"),
    ('{"type": "ping", "request_id": 1}', "INVALID_INPUT", "request_id"),
    ('{"type": "send_message"}', "INVALID_INPUT", "content"),
    ('{"type": "send_message", "content": ""}', "INVALID_INPUT", "content"),
    ('{"type": "send_message", "content": 1}', "INVALID_INPUT", "content"),
    ('{"type": "send_message", "content": "a\\u0000b"}', "INVALID_INPUT", "content"),
    ('{"type": "send_message", "content": "a\\ud800b"}', "INVALID_INPUT", "content"),
    ('{"type": "send_message", "content": "' + "x" * 32_001 + '"}', "INVALID_INPUT", "content"),
    ('{"type": "send_message", "content": "a", "process": 1}', "INVALID_INPUT", "process"),
    ('{"type": "send_message", "content": "a", "on_busy": "maybe"}', "INVALID_INPUT", "on_busy"),
    ('{"type": "send_message", "content": "a", "metadata": []}', "INVALID_INPUT", "metadata"),
    ('{"type": "send_message", "content": "a", "role": "system"}', "INVALID_INPUT", "role"),
    ('{"type": "cancel"}', "INVALID_INPUT", "job_id"),
    ('{"type": "cancel", "job_id": "1"}', "INVALID_INPUT", "job_id"),
    (b"\x00\xff", "INVALID_INPUT", None),
    (b'{"type": "ping"}', "INVALID_INPUT", None),
]


@pytest.mark.parametrize(("frame", "code", "field"), BAD, ids=range(len(BAD)))
def test_a_bad_frame_is_answered_and_the_connection_stays(
    viewer: Viewer, frame: str | bytes, code: str, field: str | None
) -> None:
    viewer.socket.send(frame)
    error = viewer.next()
    viewer.say("ping")
    after = viewer.next()

    assert (error["type"], error["error_code"], error["details"]["field"]) == ("error", code, field)
    assert {"error", "errors", "trace_id", "details"} <= set(error)
    assert after["type"] == "pong"


@pytest.mark.parametrize(
    ("fault", "fields"),
    [
        ({"extra": 1}, {"content", "extra"}),
        ({"content": "\0"}, {"content"}),
        ({"content": "\ud800"}, {"content"}),
        ({"metadata": {"\0": 1}}, {"metadata"}),
    ],
)
def test_a_bad_frame_is_answered_with_its_request_id(viewer: Viewer, fault: Frame, fields: set[str]) -> None:
    viewer.say("send_message", request_id="r9", **fault)
    error = viewer.next()

    assert error["request_id"] == "r9"
    assert {fault["field"] for fault in error["errors"]} == fields
