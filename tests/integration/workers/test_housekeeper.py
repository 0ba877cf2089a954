"""What is past its time goes, however much of it there is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, insert, select, update

from chat_backend.bootstrap import Backend, connect
from chat_backend.config import Settings
from chat_backend.domain.limits import KEPT_EVENTS
from chat_backend.domain.user import User
from chat_backend.models import AuditEntry, ChatSession, IdempotencyKey, SessionEvent, Ticket
from chat_backend.models.base import Base, now
from chat_backend.services import chat_sessions
from chat_backend.services.housekeeping import ROWS_AT_ONCE
from workers.housekeeper import Housekeeper

MANY = 3 * ROWS_AT_ONCE + 7


@pytest.fixture
def backend(settings: Settings) -> Iterator[Backend]:
    backend = connect(settings)
    yield backend
    backend.close()


def new_session(backend: Backend) -> ChatSession:
    with backend.unit_of_work() as uow:
        chat, _ = chat_sessions.make(uow, User("ann"), llm_provider="LOCAL", llm_model="m", title=None, settings={})
    return chat


def fill(backend: Backend, chat: ChatSession, at: datetime, count: int) -> None:
    """Store so many keys, tickets, audit entries and events of that time."""
    mine = {"session_id": chat.id, "user_id": "ann"}
    kept, numbers = mine | {"created_at": at}, range(count)
    rows: dict[type[Base], list[dict[str, Any]]] = {
        IdempotencyKey: [kept | {"scope": chat.id, "key": uuid4().hex, "fingerprint": "x"} for _ in numbers],
        Ticket: [mine | {"digest": uuid4().hex, "expires_at": at} for _ in numbers],
        AuditEntry: [kept | {"id": uuid4(), "action": "message_sent", "details": {}, "offset": 1} for _ in numbers],
        SessionEvent: [kept | {"type": "session_update", "offset": chat.last_offset + 1 + n} for n in numbers],
    }
    with backend.unit_of_work() as uow:
        for table, those in rows.items():
            uow.session.execute(insert(table), those)
        longer = {"last_offset": ChatSession.last_offset + count}
        uow.session.execute(update(ChatSession).where(ChatSession.id == chat.id).values(longer))


def counts(backend: Backend) -> dict[type[Base], int]:
    with backend.reading() as session:
        return {
            table: session.scalar(select(func.count()).select_from(table)) or 0
            for table in (IdempotencyKey, Ticket, AuditEntry, SessionEvent)
        }


def test_one_run_deletes_more_than_a_portion(settings: Settings, backend: Backend) -> None:
    for _ in range(2):
        fill(backend, new_session(backend), now() - timedelta(days=100), MANY)
    with backend.reading() as session:
        chats = list(session.scalars(select(ChatSession)))
    for chat in chats:
        fill(backend, chat, now() + timedelta(minutes=5), 3)

    Housekeeper(settings, backend, stopped=threading.Event()).forget()

    # Two of the audit say who made the sessions.
    assert counts(backend) == {IdempotencyKey: 6, Ticket: 6, AuditEntry: 8, SessionEvent: 2 * KEPT_EVENTS}


def test_a_run_ends_with_its_time_and_another_goes_on(settings: Settings, backend: Backend) -> None:
    fill(backend, new_session(backend), now() - timedelta(days=100), MANY)
    housekeeper = Housekeeper(settings, backend, stopped=threading.Event(), budget_seconds=0)

    left = []
    for _ in range(4):
        housekeeper.forget()
        left.append(counts(backend)[IdempotencyKey])

    assert left == [MANY - ROWS_AT_ONCE, MANY - 2 * ROWS_AT_ONCE, 7, 0]
    assert counts(backend)[Ticket] == 0


def test_a_worker_that_stops_ends_a_run(settings: Settings, backend: Backend) -> None:
    fill(backend, new_session(backend), now() - timedelta(days=100), MANY)
    stopped = threading.Event()
    stopped.set()

    Housekeeper(settings, backend, stopped=stopped).forget()

    assert counts(backend)[IdempotencyKey] == MANY - ROWS_AT_ONCE
