"""What a feed is told of a chat session's log, read from a real database."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest
from sqlalchemy import event, update

from chat_backend.bootstrap import Backend, connect
from chat_backend.config import Settings
from chat_backend.domain.cursor import Cursor
from chat_backend.domain.user import User
from chat_backend.models import ChatSession, Message, SessionEvent
from chat_backend.models.base import now
from chat_backend.realtime.connection import client
from chat_backend.services import chat_sessions, messages
from chat_backend.services.events import REPLAY_BYTES
from chat_backend.web.websocket.connection import Connection
from chat_backend.web.websocket.feed import Feed
from chat_backend.web.websocket.reader import EVENTS_AT_ONCE, Reader
from tests.support.session_world import PaperOutbox


@pytest.fixture
def backend(sqlite_url: str) -> Iterator[Backend]:
    backend = connect(Settings.from_environment({"AUTH_MODE": "dev", "DATABASE_URL": sqlite_url}))
    yield backend
    backend.close()


@pytest.fixture
def session_id(backend: Backend) -> UUID:
    with backend.unit_of_work() as uow:
        fields = {"llm_provider": "LOCAL", "llm_model": "m", "title": None, "settings": {}}
        return chat_sessions.make(uow, User("ann"), **fields)[0].id


def _log(backend: Backend, session_id: UUID, *, offsets: range) -> None:
    """Let the log hold these events, the last of them the newest there is."""
    with backend.unit_of_work() as uow:
        for offset in offsets:
            uow.session.add(SessionEvent(session_id=session_id, offset=offset, type="session_update", created_at=now()))
        uow.session.execute(update(ChatSession).values(last_offset=offsets[-1]))


def _watched(backend: Backend, reader: Reader, session_id: UUID) -> tuple[Feed, PaperOutbox]:
    feed, outbox = Feed(session_id, typing_seconds=5), PaperOutbox()
    reader.refresh(feed)
    feed.attach_afresh(Connection(session_id, User("ann"), outbox), online=["ann"])
    return feed, outbox


@pytest.mark.timeout(30)
def test_a_feed_that_slept_until_its_place_in_the_log_was_forgotten_sends_its_viewers_to_come_back(
    backend: Backend, session_id: UUID
) -> None:
    reader = Reader(backend, client(backend.settings))
    feed, outbox = _watched(backend, reader, session_id)
    _log(backend, session_id, offsets=range(700, 700 + 3 * EVENTS_AT_ONCE))

    reader.refresh(feed)

    assert outbox.closed_with == 1012
    assert feed.offset == 699 + 3 * EVENTS_AT_ONCE


def test_what_a_feed_has_missed_is_shown_however_much_it_is(backend: Backend, session_id: UUID) -> None:
    reader = Reader(backend, client(backend.settings))
    feed, outbox = _watched(backend, reader, session_id)
    _log(backend, session_id, offsets=range(feed.offset + 1, feed.offset + 1 + 3 * EVENTS_AT_ONCE))

    reader.refresh(feed)

    assert outbox.closed_with is None
    assert len(outbox.sent) == 1 + 3 * EVENTS_AT_ONCE


def test_replay_reads_no_more_than_it_sends(backend: Backend, session_id: UUID) -> None:
    ann, loaded = User("ann"), []
    for _ in range(12):
        with backend.unit_of_work() as uow:
            messages.send(uow, session_id, ann, content="\N{GRINNING FACE}" * 32_000)
    reader, feed = Reader(backend, client(backend.settings)), Feed(session_id, typing_seconds=5)
    listen = (Message, "load", lambda message, _: loaded.append(message))

    event.listen(*listen)
    try:
        log = reader.look(feed, ann, since=Cursor(0))
    finally:
        event.remove(*listen)

    assert log.events is not None
    assert 1 < len(log.events) <= len(loaded) <= 8
    assert sum(len(shown.frame) for shown in log.events) <= REPLAY_BYTES
