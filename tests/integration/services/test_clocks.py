"""Times that decide anything come from the database's clock, whatever the clocks of the processes say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy
from sqlalchemy import event, select, update

from chat_backend.bootstrap import connect
from chat_backend.config import Settings
from chat_backend.domain.enums import Purpose
from chat_backend.models import IdempotencyKey, LlmAttempt, LlmJob, SessionEvent, Ticket
from chat_backend.models.base import database_now, now
from chat_backend.services import attempts, chat_sessions, housekeeping, model_titles, tickets
from chat_backend.services.idempotency import Intent
from tests.integration.services.conftest import ALICE, WORKER, Remembered, World, measured

AHEAD = timedelta(days=2)
DAY_SECONDS = 86_400.0
FIELDS = {"llm_provider": "LOCAL", "llm_model": "m", "title": None, "settings": {}}


def _set_clock_ahead(connection: Any, record: Any) -> None:
    """Let a SQLite connection's clock be ahead of this process's."""
    plain = sqlalchemy.create_engine("sqlite://").raw_connection()

    def ahead(name: str) -> Any:
        def call(*arguments: Any) -> Any:
            marks = ", ".join("?" * len(arguments))
            shift = f", '+{AHEAD.days} days'" if "now" in arguments else ""
            with closing(plain.cursor()) as cursor:
                return cursor.execute(f"SELECT {name}({marks}{shift})", arguments).fetchone()[0]

        return call

    for name in ("strftime", "julianday"):
        connection.create_function(name, -1, ahead(name))


@pytest.fixture
def ahead(sqlite_url: str) -> Iterator[World]:
    """A database whose clock is two days ahead of this process's."""
    backend = connect(Settings.from_environment({"AUTH_MODE": "dev", "DATABASE_URL": sqlite_url}))
    event.listen(backend.engine, "connect", _set_clock_ahead)
    backend.out.close()
    out = backend.out = Remembered()
    yield World(backend, out)
    backend.close()


def test_database_clock_is_a_time(world: World) -> None:
    with world.backend.reading() as session:
        here, later = session.execute(select(database_now(), database_now(-3600.5))).one()

    assert abs(here - now()) < timedelta(minutes=1)
    assert timedelta(seconds=3590) < here - later < timedelta(seconds=3610)


def make(world: World, key: str) -> tuple[UUID, bool]:
    intent = Intent.of(key, "make", {}, kept_seconds=DAY_SECONDS)
    with world.backend.unit_of_work() as uow:
        chat, known = chat_sessions.make(uow, ALICE, intent=intent, **FIELDS)
        return chat.id, known


def test_keys_expire_by_the_databases_clock(ahead: World) -> None:
    first, _ = make(ahead, "key")
    with ahead.backend.unit_of_work() as uow:
        gone = housekeeping.forget_expired(uow.session, keys_seconds=DAY_SECONDS)
        uow.session.execute(update(IdempotencyKey).values(created_at=now()))

    second, known = make(ahead, "key")

    assert (gone, known, second == first) == (0, False, False)


def test_tickets_expire_by_the_databases_clock(ahead: World) -> None:
    session_id = ahead.new_session()
    with ahead.backend.unit_of_work() as uow:
        one, two = (tickets.issue(uow, session_id, ALICE, seconds=30)[0] for _ in range(2))
    with ahead.backend.unit_of_work() as uow:
        good = tickets.redeem(uow, session_id, one)
        uow.session.execute(update(Ticket).values(expires_at=now() + timedelta(seconds=30)))
        ended = tickets.redeem(uow, session_id, two)

    assert (good, ended) == (ALICE, None)


def test_job_expires_by_the_databases_clock(world: World) -> None:
    """It was queued by a process whose clock was slow."""
    job = world.ask(world.new_session(), "Hello")
    with world.backend.unit_of_work() as uow:
        uow.session.execute(update(LlmJob).values(created_at=now() - timedelta(days=30)))

    assert world.claim(job.id) is not None


def test_title_is_lost_by_the_databases_clock(ahead: World) -> None:
    job = ahead.ask(ahead.new_session(), "Hello")
    claim = ahead.must_claim(job.id)
    with ahead.backend.unit_of_work() as uow:
        attempts.succeed(uow, claim, measured("Whole"))
        assert model_titles.begin(uow, claim, worker=WORKER)

    with ahead.backend.unit_of_work() as uow:
        fresh = model_titles.lost(uow.session)
        uow.session.execute(update(LlmAttempt).where(LlmAttempt.purpose == Purpose.TITLE).values(started_at=now()))
        old = model_titles.lost(uow.session)

    assert (fresh, old) == ([], [job.id])


def test_events_are_kept_by_the_databases_clock(ahead: World) -> None:
    session_id = ahead.new_session()
    with ahead.backend.unit_of_work() as uow:
        at = now()
        for offset in range(2, 1101):
            uow.session.add(SessionEvent(session_id=session_id, offset=offset, type="session_update", created_at=at))
        uow.session.flush()
        uow.session.execute(update(chat_sessions.ChatSession).values(last_offset=1100))

    with ahead.backend.reading() as session:
        old, _ = housekeeping.old_events(session, events_seconds=DAY_SECONDS)

    assert [some.before for some in old] == [101]
