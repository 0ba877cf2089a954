"""Every query behind a list finds its rows by an index, on both databases, however many rows there are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, event, insert, text, update

from chat_backend.bootstrap import Backend
from chat_backend.domain.quota import Backlog
from chat_backend.domain.user import User
from chat_backend.models import ChatSession, LlmJob, Message
from chat_backend.models.base import new_id, now
from chat_backend.services import (
    attempts,
    backlog,
    chat_sessions,
    events,
    leases,
    llm_jobs,
    messages,
    participants,
    stats,
)
from chat_backend.services.attempts import Measured, Terms
from chat_backend.services.invariants import queue_state
from chat_backend.services.paging import Page
from tests.support.rest import Rest

ANN = User("ann")
TERMS = Terms("worker", lease_seconds=15, max_abandonments=3, expiry_seconds=86400, context_tokens=8192)
WHOLE = re.compile(r"\bSCAN (chat_|llm_)(?!.*USING)|Seq Scan")
# Every job that a chat session, or a user, ever had.
ALL_JOBS = re.compile(r"idx_llm_jobs_session_position|idx_llm_jobs_user_id|(SCAN|Seq Scan on) llm_jobs(?!.*USING)")
LONG = 3_000
Ask = Callable[[Backend, UUID], Any]


def reading(service: Callable[..., Any]) -> Ask:
    def ask(backend: Backend, session_id: UUID) -> Any:
        with backend.reading() as session:
            return service(session, session_id)

    return ask


QUERIES: dict[str, Ask] = {
    "sessions": reading(lambda session, _: chat_sessions.page(session, ANN, Page())),
    "sessions, newest first": reading(lambda session, _: chat_sessions.page(session, ANN, Page(descending=True))),
    "sessions after a cursor": reading(lambda session, id: chat_sessions.page(session, ANN, Page(after=str(id)))),
    "sessions by owner": reading(lambda session, _: chat_sessions.page(session, ANN, Page(), user_id="ann")),
    "sessions by title": reading(lambda session, _: chat_sessions.page(session, ANN, Page(), title="x")),
    "active sessions": reading(lambda session, _: chat_sessions.page(session, ANN, Page(), is_active=True)),
    "messages": reading(lambda session, id: messages.page(session, id, ANN, Page(), before=None)),
    "messages, newest first": reading(
        lambda session, id: messages.page(session, id, ANN, Page(descending=True), before=None)
    ),
    "messages after a cursor": reading(
        lambda session, id: messages.page(session, id, ANN, Page(after="1"), before=None)
    ),
    "messages before a time": reading(
        lambda session, id: messages.page(
            session, id, ANN, Page(), before=chat_sessions.show(session, id, ANN).updated_at
        )
    ),
    "participants": reading(lambda session, id: participants.everyone(session, id, ANN)),
    "unfinished jobs": reading(lambda session, id: llm_jobs.unfinished(session, id)),
    "backlog": reading(lambda session, _: backlog.check(session, "ann", Backlog(jobs_of_user=9, queued_jobs=9))),
    "whose turn it is": reading(lambda session, _: leases.waiting(session)),
    "who may use the reserve": reading(lambda session, _: leases.may_use_reserve(session, UUID(int=1))),
    "which leases are overdue": reading(lambda session, _: leases.overdue(session, seconds=9.0)),
    "what was forgotten": reading(lambda session, _: leases.forgotten(session, forgotten_seconds=5)),
    "stats": reading(lambda session, _: stats.stats(session, ANN)),
}


@contextmanager
def overheard(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """Write down every statement that looks for rows meanwhile."""
    heard: list[tuple[str, Any]] = []

    def hear(connection: Connection, cursor: Any, statement: str, parameters: Any, *more: Any) -> None:
        if statement.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE")):
            heard.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", hear)
    yield heard
    event.remove(engine, "before_cursor_execute", hear)


def scanned_whole(connection: Connection, statement: str, parameters: Any) -> list[str]:
    """Return the parts of a query's plan that read a whole table."""
    return [step for step in plan(connection, statement, parameters) if WHOLE.search(step)]


def plan(connection: Connection, statement: str, parameters: Any) -> list[str]:
    explain = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
    return [" ".join(map(str, row)) for row in connection.exec_driver_sql(explain + statement, parameters)]


@pytest.fixture
def backend(rest: Rest) -> Backend:
    found: Backend = rest.app.extensions["backend"]
    return found


@pytest.mark.parametrize("query", QUERIES)
def test_a_list_is_read_by_an_index(rest: Rest, backend: Backend, query: str) -> None:
    session_id = rest.new_session()
    rest.say(session_id, process=True)
    with overheard(backend.engine) as heard:
        QUERIES[query](backend, UUID(session_id))

    with backend.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            # Over a few rows it would rightly read them all: ask what it does where it can help it.
            connection.execute(text("SET enable_seqscan = off"))
        found = [scan for statement, parameters in heard for scan in scanned_whole(connection, statement, parameters)]

    assert heard
    assert found == []


def test_in_a_long_chat_session_a_turn_does_not_read_what_has_ended(rest: Rest, backend: Backend) -> None:
    session_id = UUID(rest.new_session())
    _fill(backend, session_id)

    with overheard(backend.engine) as heard:
        asked, waits = (UUID(rest.say(str(session_id), process=True)["job"]["id"]) for _ in range(2))
        with backend.unit_of_work() as uow:
            claim = attempts.claim(uow, asked, TERMS)
        assert claim is not None
        with backend.reading() as session:
            leases.waiting(session)
            leases.forgotten(session, forgotten_seconds=5)
            leases.overdue(session, seconds=9.0)
            leases.may_use_reserve(session, waits)
            leases.held(session, "worker", [asked])
            queue_state(session, patience_seconds=30)
            events.in_progress(session, session_id)
        with backend.unit_of_work() as uow:
            leases.renew(uow.session, "worker", [asked], lease_seconds=15)
        with backend.unit_of_work() as uow:
            leases.checkpoint(uow.session, [leases.Progress(claim.message_id, 1, "Half")])
        with backend.unit_of_work() as uow:
            attempts.succeed(uow, claim, Measured("Whole", duration_ms=10))
        rest.post(f"/jobs/{waits}/cancel")

    with backend.engine.connect() as connection:
        steps = [(step, statement) for statement, values in heard for step in plan(connection, statement, values)]
    assert [found for found in steps if ALL_JOBS.search(found[0])] == []


def _fill(backend: Backend, session_id: UUID) -> None:
    """Add exchanges that have ended."""
    at = now()
    messages, jobs = [], []
    for number in range(LONG):
        question, reply = new_id(), new_id()
        message = {"session_id": session_id, "content": "x", "message_metadata": {}, "created_at": at, "updated_at": at}
        message |= {"status": "complete", "attempt": 0, "tokens_used": 0}
        messages.append(message | {"id": question, "seq": 2 * number + 1, "role": "user", "user_id": "ann"})
        messages.append(message | {"id": reply, "seq": 2 * number + 2, "role": "assistant", "user_id": None})
        job = {"id": new_id(), "session_id": session_id, "message_id": question, "assistant_message_id": reply}
        job |= {"position": 2 * number + 2, "user_id": "ann", "status": "succeeded", "chain": [], "options": {}}
        jobs.append(job | {"not_before": 0.0, "created_at": at})
    with backend.engine.begin() as connection:
        connection.execute(insert(Message), messages)
        connection.execute(insert(LlmJob), jobs)
        connection.execute(update(ChatSession).values(message_count=2 * LONG, last_seq=2 * LONG))
    with backend.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
