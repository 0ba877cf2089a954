"""Deleted chat sessions: hidden at once, their rows deleted in portions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, func, insert, select

from chat_backend.domain.errors import LeaseLost, NotFound
from chat_backend.domain.user import User
from chat_backend.models import (
    AuditEntry,
    ChatSession,
    IdempotencyKey,
    LlmAttempt,
    LlmJob,
    Message,
    Participant,
    SessionEvent,
    Ticket,
)
from chat_backend.models.base import new_id, now
from chat_backend.services import (
    attempts,
    chat_sessions,
    events,
    exports,
    housekeeping,
    invariants,
    llm_jobs,
    messages,
    stats,
    tickets,
)
from chat_backend.services.idempotency import Intent
from chat_backend.services.paging import Page
from tests.integration.services.conftest import ALICE, World, measured
from workers.housekeeper import Housekeeper

ADMIN = User("root", is_admin=True)
KINDS = (ChatSession, Message, LlmJob, LlmAttempt, SessionEvent, AuditEntry, IdempotencyKey, Participant, Ticket)


def remove(world: World, session_id: UUID) -> None:
    with world.backend.unit_of_work() as uow:
        chat_sessions.remove(uow, session_id, ALICE, seconds=0.0)  # as of a large one, most rows stay


def read(world: World, service: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    with world.backend.reading() as session:
        return service(session, *arguments, **more)


def rows(world: World) -> dict[str, int]:
    with world.backend.reading() as session:
        counts = {kind.__tablename__: session.scalar(select(func.count()).select_from(kind)) or 0 for kind in KINDS}
    return {name: count for name, count in counts.items() if count}


def lived_in(world: World) -> UUID:
    """A session with a finished, a running and a waiting reply, keys and a ticket."""
    session_id = world.new_session()
    world.answer(session_id, "One", "An answer.")
    intent = Intent.of("key", "send_message", {}, kept_seconds=100)
    with world.backend.unit_of_work() as uow:
        messages.send(uow, session_id, ALICE, content="Two", intent=intent)
    with world.backend.unit_of_work() as uow:
        tickets.issue(uow, session_id, ALICE, seconds=30)
    world.must_claim(world.ask(session_id, "Three").id)
    world.ask(session_id, "Four")
    return session_id


def large(world: World) -> UUID:
    """The same with more messages than are deleted at once."""
    session_id = lived_in(world)
    fill(world, session_id, 2 * housekeeping.DELETED_AT_ONCE + 50)
    return session_id


def fill(world: World, session_id: UUID, number: int) -> None:
    """Add messages, each an answer to the first of them."""
    values = {"session_id": session_id, "role": "user", "content": "x", "status": "complete", "attempt": 0}
    values |= {"tokens_used": 0, "message_metadata": {}, "created_at": now(), "updated_at": now()}
    first = new_id()
    added = [
        {**values, "id": first if n == 0 else new_id(), "seq": 1000 + n, "parent_message_id": first if n else None}
        for n in range(number)
    ]
    with world.backend.engine.begin() as connection:
        connection.execute(insert(Message), added)


def purge(world: World) -> None:
    Housekeeper(world.backend.settings, world.backend, stopped=threading.Event()).delete_sessions()


def test_deleted_session_is_hidden_at_once(world: World) -> None:
    session_id = large(world)
    message = world.say(session_id, "Five")
    job = world.ask(session_id, "Six")

    remove(world, session_id)

    for service, id in ((chat_sessions.show, session_id), (messages.show, message.id), (llm_jobs.show, job.id)):
        with pytest.raises(NotFound):
            read(world, service, id, ALICE)
    with pytest.raises(NotFound):
        world.say(session_id, "Seven")
    assert read(world, chat_sessions.page, ALICE, Page())["total_count"] == 0
    assert read(world, exports.sessions_of, None) == []
    assert read(world, exports.export, session_id) is None
    assert read(world, events.current_cursors, [session_id]) == {}
    assert read(world, events.current_cursor, session_id) is None
    for user in (ALICE, ADMIN):
        shown = read(world, stats.stats, user)
        assert (shown["total_sessions"], shown["messages_today"], shown["providers"]) == (0, 0, [])


def test_deleted_session_stops_its_jobs(world: World) -> None:
    session_id = world.new_session()
    claim = world.must_claim(world.ask(session_id, "One").id)
    waiting = world.ask(session_id, "Two")

    remove(world, session_id)

    assert set(world.out.cancelled) == {claim.job_id, waiting.id}
    assert world.claim(waiting.id) is None
    with pytest.raises(LeaseLost), world.backend.unit_of_work() as uow:
        attempts.succeed(uow, claim, measured("Too late"))


def test_deleted_session_does_not_count_as_owned(world: World) -> None:
    remove(world, world.new_session())

    with world.backend.unit_of_work() as uow:
        fields = {"llm_provider": "LOCAL", "llm_model": "m", "title": None, "settings": {}}
        chat_sessions.make(uow, ALICE, most=1, **fields)


def test_rows_of_deleted_session_go_in_portions(world: World) -> None:
    kept = world.new_session()
    world.say(kept, "Kept")
    before = rows(world)
    session_id = large(world)

    remove(world, session_id)
    with world.backend.unit_of_work() as uow:
        assert housekeeping.delete_messages(uow, session_id) == housekeeping.DELETED_AT_ONCE
    diagnosis = read(world, invariants.examine, patience_seconds=5)
    purge(world)

    assert diagnosis.healthy
    assert diagnosis.deleted_sessions == 1
    assert rows(world) == before


def test_deletion_goes_on_after_a_crash(world: World) -> None:
    session_id = large(world)
    remove(world, session_id)
    # What a process had deleted before it died.
    with world.backend.unit_of_work() as uow:
        uow.session.execute(delete(SessionEvent))
        uow.session.execute(delete(LlmJob))

    purge(world)
    purge(world)

    assert rows(world) == {}


def test_only_deleted_sessions_lose_rows(world: World) -> None:
    session_id = lived_in(world)
    before = rows(world)

    with world.backend.unit_of_work() as uow:
        assert housekeeping.delete_portion(uow, session_id)

    assert rows(world) == before


def test_key_of_a_deleted_session_is_not_found(world: World) -> None:
    intent = Intent.of("key", "make_session", {}, kept_seconds=100)
    fields = {"llm_provider": "LOCAL", "llm_model": "m", "title": None, "settings": {}}

    def make() -> UUID:
        with world.backend.unit_of_work() as uow:
            return chat_sessions.make(uow, ALICE, intent=intent, **fields)[0].id

    remove(world, make())

    with pytest.raises(NotFound):
        make()
    purge(world)
    with pytest.raises(NotFound):
        make()


def test_small_session_is_deleted_in_the_request(world: World) -> None:
    session_id = lived_in(world)

    with world.backend.unit_of_work() as uow:
        chat_sessions.remove(uow, session_id, ALICE)

    assert rows(world) == {}
