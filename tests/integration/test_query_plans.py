"""Every query behind a list finds its rows by an index, on both databases, however many rows there are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, event, text

from chat_backend.bootstrap import Backend
from chat_backend.domain.quota import Backlog
from chat_backend.domain.user import User
from chat_backend.services import backlog, chat_sessions, llm_jobs, messages, participants, stats
from chat_backend.services.paging import Page
from tests.support.rest import Rest

ANN = User("ann")
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
    "stats": reading(lambda session, _: stats.stats(session, ANN)),
}


@contextmanager
def overheard(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """Write down every SELECT that is sent meanwhile."""
    heard: list[tuple[str, Any]] = []

    def hear(connection: Connection, cursor: Any, statement: str, parameters: Any, *more: Any) -> None:
        if statement.lstrip().upper().startswith("SELECT"):
            heard.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", hear)
    yield heard
    event.remove(engine, "before_cursor_execute", hear)


def scanned_whole(connection: Connection, statement: str, parameters: Any) -> list[str]:
    """Return the parts of a query's plan that read a whole table."""
    explain = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
    plan = [" ".join(map(str, row)) for row in connection.exec_driver_sql(explain + statement, parameters)]
    return [step for step in plan if re.search(r"\bSCAN (chat_|llm_)(?!.*USING)|Seq Scan", step)]


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
