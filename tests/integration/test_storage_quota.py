"""The storage quota: bytes that a user may store in messages, on both databases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

import pytest
from flask import Flask

from chat_backend.config import Settings
from chat_backend.domain.enums import ParticipantRole
from chat_backend.domain.user import User
from chat_backend.services import storage
from chat_backend.services.invariants import examine
from chat_backend.web.app import create_app
from chat_backend.web.websocket.connection import Connection
from chat_backend.web.websocket.dispatch import Dispatch
from tests.support.pretend_worker import PretendWorker
from tests.support.rest import OWNER, Rest
from tests.support.session_world import PaperOutbox, frames

LIMIT = 20_000
LONG = "x" * 9_000


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    """A deployment in which two long messages fill a user's storage."""
    app = create_app(replace(settings, max_storage_bytes_per_user=LIMIT))
    app.extensions["chat_hub"].start()
    yield app
    app.extensions["chat_hub"].shut_down()
    app.extensions["backend"].close()


@pytest.fixture
def rest(app: Flask) -> Iterator[Rest]:
    yield Rest(app)
    with app.extensions["backend"].reading() as session:
        assert examine(session, patience_seconds=60).healthy


@pytest.fixture
def full(rest: Rest) -> str:
    """A session whose owner has stored as much as two long messages."""
    session_id = rest.new_session()
    for _ in range(2):
        rest.say(session_id, LONG)
    return session_id


def used(rest: Rest) -> int:
    shown: int = rest.get("/quota").get_json()["storage_bytes"]["used"]
    return shown


def test_message_over_the_quota_is_refused(rest: Rest, full: str) -> None:
    before = used(rest)

    refusal = rest.post(f"/sessions/{full}/messages", {"content": LONG})

    said = refusal.get_json()
    assert (refusal.status_code, said["error_code"]) == (413, "STORAGE_QUOTA_EXCEEDED")
    assert (said["details"]["limit"], said["details"]["used"]) == (LIMIT, before)
    assert rest.get(f"/sessions/{full}").get_json()["message_count"] == 2
    assert used(rest) == before


@pytest.mark.parametrize("content", ["я" * 10_000, "😀" * 5_000])
def test_bytes_are_counted_not_characters(rest: Rest, content: str) -> None:
    refusal = rest.post(f"/sessions/{rest.new_session()}/messages", {"content": content})

    assert refusal.status_code == 413


def test_metadata_is_counted(rest: Rest, full: str) -> None:
    refusal = rest.post(f"/sessions/{full}/messages", {"content": "Hi", "metadata": {"note": "x" * 5_000}})

    assert refusal.status_code == 413


def test_many_small_messages_are_counted(rest: Rest, full: str) -> None:
    statuses = [rest.post(f"/sessions/{full}/messages", {"content": "."}).status_code for _ in range(10)]

    assert statuses[0] == 201
    assert statuses[-1] == 413


def test_refusal_is_an_error_frame_on_the_socket(app: Flask, rest: Rest, full: str) -> None:
    outbox = PaperOutbox()
    connection = Connection(UUID(full), User(OWNER), outbox, role=ParticipantRole.OWNER)
    dispatch = Dispatch(app.extensions["chat_hub"], connection, app.extensions["rate_limits"])

    dispatch(json.dumps({"type": "send_message", "content": LONG, "request_id": "r1"}))

    (said,) = frames(outbox)
    assert (said["type"], said["error_code"], said["request_id"]) == ("error", "STORAGE_QUOTA_EXCEEDED", "r1")


def test_deleting_a_session_releases_its_storage(rest: Rest, full: str) -> None:
    assert rest.delete(f"/sessions/{full}").status_code == 200

    assert used(rest) == 0
    rest.say(rest.new_session(), LONG)


def test_author_is_charged_not_the_owner(rest: Rest, full: str) -> None:
    before, member = used(rest), rest.admit(full, "mem")

    member.say(full, LONG)

    assert (used(rest), used(member) > len(LONG)) == (before, True)


def test_reply_is_charged_to_its_requester(app: Flask, rest: Rest) -> None:
    session_id = rest.new_session()
    member = rest.admit(session_id, "mem")
    job = member.say(session_id, "Tell me", process=True)["job"]
    asked = used(member)

    PretendWorker(app.extensions["backend"]).answer(job["id"], LONG)

    assert used(member) > asked + len(LONG)
    assert used(rest) == 0


def test_accepted_reply_is_kept_over_the_quota_and_none_follows(app: Flask, rest: Rest) -> None:
    session_id = rest.new_session()
    job = rest.say(session_id, "Tell me", process=True)["job"]

    PretendWorker(app.extensions["backend"]).answer(job["id"], "x" * LIMIT)

    reply = rest.get(f"/sessions/{session_id}/messages").get_json()["messages"][-1]
    assert (reply["status"], len(reply["content"])) == ("complete", LIMIT)
    for path, body in (
        (f"/messages/{reply['id']}/regenerate", {}),
        (f"/sessions/{session_id}/process-llm", {"prompt": "More"}),
        (f"/sessions/{session_id}/messages", {"content": "More"}),
    ):
        assert rest.post(path, body).get_json()["error_code"] == "STORAGE_QUOTA_EXCEEDED"


def test_editor_takes_over_the_charge(rest: Rest) -> None:
    session_id = rest.new_session()
    member = rest.admit(session_id, "mem")
    message = member.say(session_id, "Short")

    for content in (LONG, "Short again"):
        assert rest.put(f"/messages/{message['id']}", {"content": content}).status_code == 200

    assert used(member) == 0
    assert 0 < used(rest) < 1_000


def test_edit_over_the_quota_is_refused(rest: Rest, full: str) -> None:
    message = rest.get(f"/sessions/{full}/messages").get_json()["messages"][0]

    refusal = rest.put(f"/messages/{message['id']}", {"content": "x" * 15_000})

    assert refusal.status_code == 413
    assert rest.get(f"/messages/{message['id']}").get_json()["content"] == LONG


def test_many_changes_are_replaced_by_their_sum(app: Flask, rest: Rest) -> None:
    backend, session_id = app.extensions["backend"], rest.new_session()
    message = rest.say(session_id, "Short")
    for number in range(storage.MOST_CHANGES + 1):
        rest.put(f"/messages/{message['id']}", {"content": "x" * (1 + number % 2)})
    before = used(rest)

    with backend.unit_of_work() as uow:
        replaced = storage.compact(uow.session)

    assert replaced > storage.MOST_CHANGES
    assert used(rest) == before
    with backend.unit_of_work() as uow:
        assert storage.compact(uow.session) == 0


def test_zero_means_no_quota(settings: Settings) -> None:
    app = create_app(replace(settings, max_storage_bytes_per_user=0))
    rest = Rest(app)

    rest.say(rest.new_session(), LONG)

    shown = rest.get("/quota").get_json()["storage_bytes"]
    assert shown["limit"] is None
    assert shown["used"] > len(LONG)
    app.extensions["backend"].close()
