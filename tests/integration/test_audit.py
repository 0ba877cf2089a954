"""Who changed what in a chat session: for its owner, without content, for longer than the events."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select, update

from chat_backend.models import AuditEntry
from chat_backend.models.base import now
from chat_backend.services import housekeeping
from tests.support.pretend_worker import PretendWorker
from tests.support.rest import Rest, fault

CANARY = "canary words"


def audit(rest: Rest, session_id: str, query: str = "?page_size=200") -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = rest.get(f"/sessions/{session_id}/audit{query}").get_json()["entries"]
    return entries


def told(entries: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(entry["action"], entry["user_id"]) for entry in entries]


def test_everything_that_is_done_is_written_down_with_who_did_it(rest: Rest, worker: PretendWorker) -> None:
    session_id = rest.new_session()
    bob = rest.admit(session_id, "bob")
    rest.admit(session_id, "bob", "viewer")
    rest.admit(session_id, "bob", "member")
    rest.put(f"/sessions/{session_id}", {"title": CANARY, "is_active": True})
    job = bob.say(session_id, CANARY, process=True)["job"]
    worker.answer(job["id"])
    again = bob.made(f"/messages/{job['assistant_message_id']}/regenerate", {"stream": True})
    bob.post(f"/jobs/{again['job_id']}/cancel")
    rest.put(f"/messages/{job['assistant_message_id']}", {"content": CANARY})
    bob.delete(f"/sessions/{session_id}/participants/bob")

    entries = audit(rest, session_id)

    assert told(entries) == [
        ("session_created", "ann"),
        ("participant_added", "ann"),
        ("participant_changed", "ann"),
        ("participant_changed", "ann"),
        ("session_changed", "ann"),
        ("message_sent", "bob"),
        ("reply_asked", "bob"),
        ("reply_regenerated", "bob"),
        ("reply_cancelled", "bob"),
        ("message_changed", "ann"),
        ("participant_removed", "bob"),
    ]
    assert entries[2]["details"] == {"role": "viewer", "role_before": "member"}
    assert entries[4]["details"] == {"fields": ["is_active", "title"]}
    assert [entry["participant_id"] for entry in entries[1:4]] == ["bob"] * 3
    assert (entries[6]["job_id"], entries[8]["job_id"]) == (job["id"], again["job_id"])
    assert entries[9]["message_id"] == job["assistant_message_id"]
    assert CANARY not in str(entries)


def test_what_a_socket_and_process_llm_do_is_written_down_too(rest: Rest) -> None:
    session_id = rest.new_session()

    rest.made(f"/sessions/{session_id}/process-llm", {"prompt": "x", "stream": True})

    assert told(audit(rest, session_id))[1:] == [("message_sent", "ann"), ("reply_asked", "ann")]


def test_what_was_refused_or_repeated_is_not_there(rest: Rest) -> None:
    session_id = rest.new_session()
    viewer = rest.admit(session_id, "vic", "viewer")
    body = {"content": "x"}
    rest.made(f"/sessions/{session_id}/messages", body, key="once")

    viewer.post(f"/sessions/{session_id}/messages", body)
    rest.post(f"/sessions/{session_id}/messages", body, key="once")
    rest.admit(session_id, "vic", "viewer")

    assert told(audit(rest, session_id))[1:] == [("participant_added", "ann"), ("message_sent", "ann")]


def test_an_entry_names_the_request_that_did_it(sqlite_rest: Rest) -> None:
    session_id = sqlite_rest.new_session()

    sqlite_rest.put(f"/sessions/{session_id}", {"title": "New"}, headers={"X-Request-ID": "my-request"})

    (_, changed) = audit(sqlite_rest, session_id)
    assert (changed["trace_id"], changed["offset"]) == ("my-request", 1)


@pytest.mark.parametrize(("user", "status"), [("mem", 403), ("vic", 403), ("stranger", 404)])
def test_the_audit_is_the_owners_alone(sqlite_rest: Rest, user: str, status: int) -> None:
    session_id = sqlite_rest.new_session()
    sqlite_rest.admit(session_id, "mem")
    sqlite_rest.admit(session_id, "vic", "viewer")

    response = sqlite_rest.of(user).get(f"/sessions/{session_id}/audit")

    assert response.status_code == status


def test_it_is_read_page_by_page_in_either_order(rest: Rest) -> None:
    session_id = rest.new_session()
    for number in range(6):
        rest.put(f"/sessions/{session_id}", {"title": str(number)})

    for order in ("asc", "desc"):
        whole = audit(rest, session_id, f"?order={order}")
        found, cursor = [], ""
        while cursor is not None:
            page = rest.get(f"/sessions/{session_id}/audit?page_size=3&order={order}{cursor}").get_json()
            found += page["entries"]
            cursor = f"&cursor={page['next_cursor']}" if page["has_more"] else None

        assert (found, page["total_count"]) == (whole, 7)
    assert whole[-1]["action"] == "session_created"


def test_a_cursor_that_is_none_is_refused(sqlite_rest: Rest) -> None:
    session_id = sqlite_rest.new_session()

    assert fault(sqlite_rest.get(f"/sessions/{session_id}/audit?cursor=x")) == (422, "INVALID_INPUT", "cursor")


def test_it_goes_with_its_session(rest: Rest, web_app: Flask) -> None:
    session_id, other_id = rest.new_session(), rest.new_session()
    rest.say(session_id)

    rest.delete(f"/sessions/{session_id}")

    with web_app.extensions["backend"].reading() as session:
        left = session.scalars(select(AuditEntry.session_id)).all()
    assert [str(id) for id in left] == [other_id]


def test_it_is_kept_for_its_time_and_no_longer(rest: Rest, web_app: Flask) -> None:
    session_id, backend = rest.new_session(), web_app.extensions["backend"]
    rest.say(session_id)
    with backend.unit_of_work() as uow:
        created = AuditEntry.action == "session_created"
        uow.session.execute(update(AuditEntry).where(created).values(created_at=now() - timedelta(days=31)))

    with backend.unit_of_work() as uow:
        gone = [housekeeping.forget_audit(uow.session, days=days) for days in (32, 30)]

    with backend.reading() as session:
        assert session.scalar(select(func.count()).select_from(AuditEntry)) == 1
    assert gone == [0, 1]
    assert told(audit(rest, session_id)) == [("message_sent", "ann")]


def test_of_a_deleted_session_the_log_still_tells_who_deleted_it(rest: Rest, caplog: pytest.LogCaptureFixture) -> None:
    session_id = rest.new_session()
    caplog.clear()

    with caplog.at_level("INFO"):
        refused = rest.of("bob").delete(f"/sessions/{session_id}")
        rest.delete(f"/sessions/{session_id}")

    told = [vars(record) for record in caplog.records if getattr(record, "action", "") == "session_deleted"]
    assert refused.status_code == 404
    assert [(record["session_id"], record["user_id"]) for record in told] == [(session_id, "ann")]
