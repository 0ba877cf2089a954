"""The doctor: healthy where everything holds, and for everything broken on purpose its own name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import delete, insert, literal, select, update

from chat_backend.cli.main import main
from chat_backend.domain.enums import JobStatus, MessageStatus, Outcome
from chat_backend.models import ChatSession, LlmAttempt, LlmJob, Message, SessionEvent, StorageChange
from chat_backend.models.base import new_id
from chat_backend.services.invariants import examine
from tests.integration.services.conftest import World

LONG_AGO = 1.0


def lived_in(world: World) -> World:
    """A session with a finished, a running and two waiting jobs."""
    session_id = world.new_session()
    world.answer(session_id, "One", "An answer.")
    running = world.ask(session_id, "Two")
    world.must_claim(running.id)
    world.ask(session_id, "Three")
    world.ask(world.new_session(), "Four")
    return world


def found(world: World) -> dict[str, int]:
    with world.backend.reading() as session:
        diagnosis = examine(session, patience_seconds=5)
    assert diagnosis.healthy == (not any(finding.count for finding in diagnosis.violations))
    return {finding.name: finding.count for finding in diagnosis.violations if finding.count}


def test_where_everything_holds_nothing_is_found(world: World) -> None:
    lived_in(world)

    with world.backend.reading() as session:
        diagnosis = examine(session, patience_seconds=5)

    assert diagnosis.healthy
    assert diagnosis.load == {"queued": 2, "running": 1, "backing_off": 0}


def second_reply() -> Any:
    """Copy a whole reply as another message of the same job."""
    columns = {column.name: column for column in Message.__table__.columns}
    changed = {"id": literal(new_id(), Message.id.type), "seq": Message.seq + 100}
    replies = select(*(columns | changed).values()).where(Message.status == MessageStatus.COMPLETE, Message.attempt > 0)
    return insert(Message.__table__).from_select(list(columns), replies)


BREAKS: dict[str, tuple[Callable[[], Any], set[str]]] = {
    "a due job": (lambda: update(LlmJob).values(not_before=LONG_AGO), {"orphans"}),
    "a lost lease": (
        lambda: update(LlmJob).where(LlmJob.status == JobStatus.RUNNING).values(lease_until=LONG_AGO),
        {"overdue_leases"},
    ),
    "a hole in a log": (lambda: delete(SessionEvent).where(SessionEvent.offset == 3), {"offset_gaps"}),
    "a lost last event": (lambda: update(ChatSession).values(last_offset=ChatSession.last_offset + 1), {"offset_gaps"}),
    "a wrong count": (lambda: update(ChatSession).values(message_count=77), {"miscounts"}),
    "a wrong seq": (lambda: update(ChatSession).values(last_seq=77), {"seq_holes"}),
    "a reply that hangs": (
        lambda: update(Message).where(Message.status == MessageStatus.COMPLETE).values(status=MessageStatus.STREAMING),
        {"replies_without_job", "mismatched_ends", "wrong_storage"},
    ),
    "a job that hangs": (
        lambda: update(Message).where(Message.status == MessageStatus.PENDING).values(status=MessageStatus.CANCELLED),
        {"mismatched_ends", "wrong_storage"},
    ),
    "an attempt that hangs": (
        lambda: update(LlmAttempt).where(LlmAttempt.outcome == Outcome.SUCCEEDED).values(outcome=None),
        {"open_attempts"},
    ),
    "a lost attempt": (lambda: delete(LlmAttempt), {"miscounted_attempts"}),
    "a second reply": (second_reply, {"doubled_replies", "seq_holes", "miscounts", "wrong_storage"}),
    "a wrong storage count": (
        lambda: insert(StorageChange).values(user_id="ann", stored_bytes=1),
        {"wrong_storage"},
    ),
    "a lost storage count": (lambda: delete(StorageChange), {"wrong_storage"}),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_what_is_broken_is_named(world: World, broken: str) -> None:
    lived_in(world)
    statement, names = BREAKS[broken]
    with world.backend.unit_of_work() as uow:
        uow.session.execute(statement())

    assert set(found(world)) == names


def test_the_doctor_says_it_in_words_and_by_its_status(
    world: World, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lived_in(world)
    environ = {"AUTH_MODE": "dev", "DATABASE_URL": database_url}

    healthy = main(["doctor"], environ)
    said = capsys.readouterr().out
    with world.backend.unit_of_work() as uow:
        uow.session.execute(update(LlmJob).values(not_before=LONG_AGO))
    sick = main(["doctor", "--json"], environ)
    told = json.loads(capsys.readouterr().out)

    assert (healthy, sick) == (0, 1)
    assert "Everything holds." in said
    assert told["violations"]["orphans"]["count"] == 1
    assert len(told["violations"]["orphans"]["examples"]) == 1
    assert told["load"] == {"queued": 2, "running": 1, "backing_off": 0}
