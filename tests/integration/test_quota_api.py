"""Quotas as clients meet them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from chat_backend.config import Settings
from chat_backend.domain.enums import ParticipantRole
from chat_backend.domain.user import User
from chat_backend.web.app import create_app
from chat_backend.web.websocket.connection import Connection
from chat_backend.web.websocket.dispatch import Dispatch
from tests.support.pretend_worker import PretendWorker
from tests.support.rest import OWNER, Rest
from tests.support.session_world import PaperOutbox, frames

DAY_SECONDS = 86_400


@pytest.fixture
def rationed_app(settings: Settings) -> Iterator[Flask]:
    """A deployment in which everyone has one request a day."""
    app = create_app(replace(settings, quota_requests_per_day=1))
    app.extensions["chat_hub"].start()
    yield app
    app.extensions["chat_hub"].shut_down()
    app.extensions["backend"].close()


@pytest.fixture
def rationed(rationed_app: Flask) -> Rest:
    return Rest(rationed_app)


@pytest.fixture
def session_id(rationed: Rest) -> str:
    """A session with one answered question: the day's request is used up."""
    session_id = rationed.new_session()
    job = rationed.say(session_id, process=True)["job"]
    PretendWorker(rationed.app.extensions["backend"]).answer(job["id"])
    return session_id


def quota(rest: Rest) -> dict[str, object]:
    shown: dict[str, object] = rest.get("/quota").get_json()
    return shown


def check_refusal(response: TestResponse) -> None:
    said = response.get_json()
    assert (response.status_code, said["error"], said["error_code"]) == (429, "TooManyRequests", "QUOTA_EXCEEDED")
    assert 0 < int(response.headers["Retry-After"]) <= DAY_SECONDS
    assert said["details"]["resets_at"].endswith("T00:00:00.000000Z")


def test_every_way_to_ask_is_refused_and_nothing_is_stored(rationed: Rest, session_id: str) -> None:
    page = rationed.get(f"/sessions/{session_id}/messages").get_json()
    question, reply = (message["id"] for message in page["messages"])

    refusals = [
        rationed.post(f"/sessions/{session_id}/messages", {"content": "More", "process": True}),
        rationed.post(f"/sessions/{session_id}/process-llm", {"prompt": "More", "stream": True}),
        rationed.post(f"/sessions/{session_id}/process-llm", {"message_id": question}),
        rationed.post(f"/messages/{reply}/regenerate", {}),
    ]

    for refusal in refusals:
        check_refusal(refusal)
    assert rationed.get(f"/sessions/{session_id}/messages").get_json() == page


def test_on_the_socket_a_refusal_is_an_error_frame(rationed: Rest, session_id: str) -> None:
    outbox = PaperOutbox()
    connection = Connection(UUID(session_id), User(OWNER), outbox, role=ParticipantRole.OWNER)
    extensions = rationed.app.extensions
    dispatch = Dispatch(extensions["chat_hub"], connection, extensions["rate_limits"])

    dispatch(json.dumps({"type": "send_message", "content": "More", "request_id": "r1"}))

    (said,) = frames(outbox)
    assert (said["type"], said["error_code"], said["request_id"]) == ("error", "QUOTA_EXCEEDED", "r1")
    assert said["details"]["resets_at"] == quota(rationed)["resets_at"]
    assert 0 < said["details"]["retry_after_seconds"] <= DAY_SECONDS
    assert rationed.get(f"/sessions/{session_id}").get_json()["message_count"] == 2


def test_a_refusal_is_not_remembered_under_its_key(rationed: Rest, session_id: str) -> None:
    body = {"content": "More", "process": True}

    answers = [rationed.post(f"/sessions/{session_id}/messages", body, key="once") for _ in range(2)]

    for answer in answers:
        check_refusal(answer)


def test_what_was_taken_is_shown_again_however_little_is_left(rationed: Rest) -> None:
    session_id, body = rationed.new_session(), {"content": "Hello", "process": True}

    first, again = (rationed.post(f"/sessions/{session_id}/messages", body, key="once") for _ in range(2))

    assert (first.status_code, again.status_code) == (201, 201)
    assert first.get_json()["job"]["id"] == again.get_json()["job"]["id"]


def test_messages_that_ask_for_nothing_are_always_taken(rationed: Rest, session_id: str) -> None:
    response = rationed.post(f"/sessions/{session_id}/messages", {"content": "An aside"})

    assert response.status_code == 201


def test_everyone_sees_their_own_quota(rationed: Rest, session_id: str) -> None:
    mine, theirs = quota(rationed), quota(rationed.of("bob"))

    assert mine["requests"] == {"limit": 1, "used": 1, "reserved": 0}
    assert mine["tokens"] == {"limit": None, "used": 12, "reserved": 0}
    assert theirs["requests"] == {"limit": 1, "used": 0, "reserved": 0}


def test_a_member_asks_on_their_own_account(rationed: Rest, session_id: str) -> None:
    member = rationed.admit(session_id, "mem")

    response = member.post(f"/sessions/{session_id}/messages", {"content": "Mine", "process": True})

    assert response.status_code == 201
    assert quota(member)["requests"] == {"limit": 1, "used": 0, "reserved": 1}


def test_without_quotas_there_are_no_limits_to_show(sqlite_rest: Rest) -> None:
    shown = quota(sqlite_rest)

    assert shown["requests"] == shown["tokens"] == {"limit": None, "used": 0, "reserved": 0}
