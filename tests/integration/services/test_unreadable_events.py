"""Rows that this release can't read: one event, or a value of a newer release, stops neither the log nor a decision."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import StatementError

from chat_backend.bootstrap import Backend, connect
from chat_backend.config import Settings
from chat_backend.domain.errors import Forbidden
from chat_backend.domain.user import User
from chat_backend.models.base import now
from chat_backend.models.session_event import SessionEvent
from chat_backend.protocol.envelope import Durable
from chat_backend.protocol.events import message_shape, read_durable
from chat_backend.services import audit, chat_sessions, events, exports, llm_jobs, messages, participants, stats
from chat_backend.services.access import READ, WRITE, enter
from chat_backend.services.attempts import Terms, claim
from chat_backend.services.invariants import examine
from chat_backend.services.paging import Page

ANN = User("ann")


@pytest.fixture
def backend(settings: Settings) -> Iterator[Backend]:
    backend = connect(settings)
    yield backend
    backend.close()


@pytest.fixture
def session_id(backend: Backend) -> UUID:
    with backend.unit_of_work() as uow:
        fields = {"llm_provider": "LOCAL", "llm_model": "m", "title": None, "settings": {}}
        return chat_sessions.make(uow, ANN, **fields)[0].id


def _say(backend: Backend, session_id: UUID, content: str = "Hello", **more: Any) -> messages.Sent:
    with backend.unit_of_work() as uow:
        return messages.send(uow, session_id, ANN, content=content, **more)


def _sql(backend: Backend, statement: str, **values: Any) -> None:
    """Write what only another release would write, or a fault of the disk."""
    with backend.engine.connect() as connection:
        if backend.engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA ignore_check_constraints=ON")
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        else:
            for table, constraint in (
                ("chat_messages", "valid_message_status"),
                ("chat_messages", "valid_message_role"),
                ("llm_jobs", "valid_job_status"),
                ("llm_attempts", "valid_outcome"),
                ("chat_participants", "valid_participant_role"),
            ):
                connection.exec_driver_sql(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS check_{constraint}")
        connection.execute(text(statement), values)
        connection.commit()
        if backend.engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA ignore_check_constraints=OFF")
            connection.exec_driver_sql("PRAGMA foreign_keys=ON")


def _read(backend: Backend, session_id: UUID, since: int = 0) -> list[Durable]:
    with backend.reading() as session:
        return events.after(session, session_id, since, limit=100)


DAMAGES = {
    "its message is gone": "UPDATE session_events SET message_id = '{unknown}' WHERE \"offset\" = 4",
    "its job is gone": "UPDATE session_events SET message_id = NULL, job_id = '{unknown}' WHERE \"offset\" = 4",
    "it is about nothing": 'UPDATE session_events SET message_id = NULL WHERE "offset" = 4',
    "its message's metadata are no JSON": "UPDATE chat_messages SET message_metadata = '{{' WHERE seq = 4",
    "its time is none": "UPDATE session_events SET created_at = 'never' WHERE \"offset\" = 4",
}
ON_SQLITE_ONLY = {"its message's metadata are no JSON", "its time is none"}


@pytest.mark.parametrize("damage", DAMAGES)
def test_unreadable_event_is_skipped_and_logged_once(
    backend: Backend, session_id: UUID, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    sqlite = backend.engine.dialect.name == "sqlite"
    if damage in ON_SQLITE_ONLY and not sqlite:
        pytest.skip("PostgreSQL does not store it")
    for number in range(7):
        _say(backend, session_id, str(number))
    unknown = uuid4()
    _sql(backend, DAMAGES[damage].format(unknown=unknown.hex if sqlite else unknown))

    with caplog.at_level(logging.ERROR):
        found = [_read(backend, session_id), _read(backend, session_id)]

    for read in found:
        frames = [read_durable(event) for event in read]
        assert [frame["offset"] for frame in frames] == list(range(1, 8))
        assert [frame["offset"] for frame in frames if frame["type"] == "session_update"] == [4]
    (reported,) = [record for record in caplog.records if record.message == "skipped an event that can't be read"]
    assert (reported.session_id, reported.offset) == (str(session_id), 4)  # type: ignore[attr-defined]


def test_doctor_counts_events_whose_subject_is_gone(backend: Backend, session_id: UUID) -> None:
    _say(backend, session_id)
    unknown = uuid4()
    shown = unknown.hex if backend.engine.dialect.name == "sqlite" else unknown
    _sql(backend, f"UPDATE session_events SET message_id = '{shown}'")

    with backend.reading() as session:
        found = {finding.name: finding for finding in examine(session, patience_seconds=5).violations}

    assert (found["lost_subjects"].count, found["lost_subjects"].examples) == (1, (session_id,))


def test_numbers_that_an_older_release_stored_are_read_within_the_bound(backend: Backend, session_id: UUID) -> None:
    sent = _say(backend, session_id)
    _sql(backend, "UPDATE chat_messages SET message_metadata = :said", said=f'{{"n": 1{"0" * 400}, "m": 1{"0" * 25}}}')

    (event,) = _read(backend, session_id)
    with backend.reading() as session:
        shown = message_shape(messages.show(session, sent.message.id, ANN))

    assert read_durable(event)["message"]["metadata"] == shown["metadata"] == {"n": None, "m": 1e25}


def test_event_of_a_newer_release_is_passed_on(backend: Backend, session_id: UUID) -> None:
    _say(backend, session_id)
    _say(backend, session_id)
    _sql(backend, "UPDATE session_events SET type = 'reaction_update', action = 'reacted' WHERE \"offset\" = 1")

    first, second = map(read_durable, _read(backend, session_id))

    assert (first["type"], first["action"], first["offset"], second["offset"]) == ("reaction_update", "reacted", 1, 2)
    assert first["message"]["content"] == "Hello"


def test_unknown_role_may_read_and_nothing_more(backend: Backend, session_id: UUID) -> None:
    with backend.unit_of_work() as uow:
        participants.admit(uow, session_id, ANN, user_id="bob", role="member", most=10)
    _sql(backend, "UPDATE chat_participants SET role = 'moderator' WHERE user_id = 'bob'")

    with backend.reading() as session:
        enter(session, session_id, User("bob"), to=READ)
        with pytest.raises(Forbidden):
            enter(session, session_id, User("bob"), to=WRITE)
        roles = {person.user_id: person.role for person in participants.everyone(session, session_id, ANN)}
        exported = exports.export(session, session_id)
    with backend.unit_of_work() as uow:
        participants.admit(uow, session_id, ANN, user_id="bob", role="viewer", most=10)

    assert roles["bob"] == "moderator"
    assert exported
    assert {"user_id": "bob", "role": "moderator"} in exported["participants"]


def test_job_of_unknown_status_is_neither_claimed_nor_ended(backend: Backend, session_id: UUID) -> None:
    job = _say(backend, session_id, process=True).job
    assert job
    _sql(backend, "UPDATE llm_jobs SET status = 'waiting'")
    _sql(backend, "UPDATE chat_messages SET status = 'awaiting' WHERE role = 'assistant'")
    terms = Terms(worker="w", lease_seconds=5, max_abandonments=3, expiry_seconds=60, context_tokens=4096)

    with backend.unit_of_work() as uow:
        assert claim(uow, job.id, terms) is None
        cancelled, _ = llm_jobs.cancel(uow, job.id, ANN)
    with backend.reading() as session:
        shown = llm_jobs.show(session, job.id, ANN)
        frames = [read_durable(event) for event in events.after(session, session_id, 0, limit=100)]
        diagnosis = examine(session, patience_seconds=0)
        stats.stats(session, ANN)

    assert (shown.status, cancelled.cancel_requested_at is None) == ("waiting", False)
    assert [frame["job"]["status"] for frame in frames if "job" in frame] == ["waiting"]
    assert {frame["message"]["status"] for frame in frames if "message" in frame} == {"complete", "awaiting"}
    assert [finding for finding in diagnosis.violations if finding.count] == []


def test_unknown_words_are_shown_in_audit_attempts_and_settings(backend: Backend, session_id: UUID) -> None:
    job = _say(backend, session_id, process=True).job
    assert job
    terms = Terms(worker="w", lease_seconds=5, max_abandonments=3, expiry_seconds=60, context_tokens=4096)
    with backend.unit_of_work() as uow:
        assert claim(uow, job.id, terms)
    _sql(backend, "UPDATE audit_entries SET action = 'message_erased'")
    _sql(backend, "UPDATE llm_attempts SET purpose = 'tool', outcome = 'paused', provider = 'OTHER'")
    _sql(backend, "UPDATE chat_sessions SET settings = :said", said='{"on_busy": "steer", "fallbacks": ["OTHER:m"]}')

    with backend.reading() as session:
        entries = audit.page(session, session_id, ANN, Page())["entries"]
        (attempt,) = llm_jobs.show(session, job.id, ANN).attempts
        stats.stats(session, ANN)
        examine(session, patience_seconds=0)
    again = _say(backend, session_id, process=True)

    assert {entry.action for entry in entries} == {"message_erased"}
    assert (attempt.purpose, attempt.outcome) == ("tool", "paused")
    assert again.job
    assert again.job.chain == [{"provider": "LOCAL", "model": "m"}]


def test_only_known_words_are_written(backend: Backend, session_id: UUID) -> None:
    with backend.unit_of_work() as uow:
        uow.session.add(SessionEvent(session_id=session_id, offset=1, type="nonsense", created_at=now()))
        with pytest.raises(StatementError, match="nonsense"):
            uow.session.flush()
        uow.session.rollback()
