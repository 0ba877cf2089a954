"""A database that went back: viewers of a log that is gone are told so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import delete, update

from chat_backend.bootstrap import Backend
from chat_backend.domain.cursor import Cursor
from chat_backend.domain.user import User
from chat_backend.models import ChatSession, Message, SessionEvent
from chat_backend.models.base import now
from chat_backend.protocol.envelope import Durable
from chat_backend.services import events
from chat_backend.web.websocket.connection import Connection
from chat_backend.web.websocket.endpoint import read_since
from chat_backend.web.websocket.hub import Hub
from tests.support.rest import Rest
from tests.support.session_world import PaperOutbox, frames
from tests.support.waiting import wait_until

KEPT = 3


@pytest.fixture
def backend(web_app: Flask) -> Backend:
    backend: Backend = web_app.extensions["backend"]
    return backend


@pytest.fixture
def session_id(rest: Rest) -> str:
    """A session with five messages."""
    session_id = rest.new_session()
    for number in range(5):
        rest.say(session_id, f"first {number}")
    return session_id


def _restore(backend: Backend, session_id: str, *, written: int) -> None:
    """Leave what a backup held, three messages, and write others in the place of those that are gone.

    In one transaction, and without a word to anyone: so a database looks that was replaced.
    """
    with backend.unit_of_work() as uow:
        chat = uow.session.get_one(ChatSession, UUID(session_id))
        uow.session.execute(delete(SessionEvent).where(SessionEvent.session_id == chat.id, SessionEvent.offset > KEPT))
        last = KEPT
        for last in range(KEPT + 1, KEPT + 1 + written):
            event = SessionEvent(session_id=chat.id, offset=last, type="session_update", created_at=now())
            uow.session.add(event)
        uow.session.execute(delete(Message).where(Message.session_id == chat.id, Message.seq > KEPT))
        counters = {"last_offset": last, "last_seq": KEPT, "message_count": KEPT}
        uow.session.execute(update(ChatSession).where(ChatSession.id == chat.id).values(counters))


@contextmanager
def _watching(web_app: Flask, session_id: str, since: str | None) -> Iterator[PaperOutbox]:
    """Watch a session as a socket does, coming back with what `since` says."""
    hub: Hub = web_app.extensions["chat_hub"]
    outbox = PaperOutbox()
    connection = Connection(UUID(session_id), User("ann"), outbox)
    with hub.feed(UUID(session_id)) as feed:
        for _ in hub.join(feed, connection, since=read_since(since)):
            continue
        yield outbox
        hub.leave(feed, connection)


def _greeting(web_app: Flask, session_id: str, since: str) -> tuple[bool, list[int]]:
    with _watching(web_app, session_id, since) as outbox:
        greeting, *more = frames(outbox)
    return greeting["recovered"], [frame["offset"] for frame in more if "offset" in frame]


def _page(rest: Rest, session_id: str) -> dict[str, object]:
    page: dict[str, object] = rest.get(f"/sessions/{session_id}/messages").get_json()
    return page


@pytest.mark.parametrize("written", [0, 2, 4], ids=["shorter", "as long", "longer"])
def test_cursor_of_an_event_that_was_rewritten_is_not_recovered(
    web_app: Flask, rest: Rest, backend: Backend, session_id: str, written: int
) -> None:
    cursor = str(_page(rest, session_id)["cursor"])
    _restore(backend, session_id, written=written)

    assert _greeting(web_app, session_id, cursor) == (False, [])


def test_cursor_of_an_event_that_is_still_there_is_recovered(
    web_app: Flask, rest: Rest, backend: Backend, session_id: str
) -> None:
    with backend.reading() as session:
        cursors = [Cursor(event.offset, event.tag) for event in events.after(session, UUID(session_id), 0, limit=9)]
    beginning = str(_page(rest, rest.new_session())["cursor"])
    _restore(backend, session_id, written=3)

    assert _greeting(web_app, session_id, str(cursors[KEPT - 1])) == (True, [4, 5, 6])
    assert _greeting(web_app, session_id, str(cursors[KEPT])) == (False, [])
    # Bare offsets can't be checked, but for those of the future; offset 0 of another session is another one.
    assert _greeting(web_app, session_id, "4") == (True, [5, 6])
    assert _greeting(web_app, session_id, "7") == (False, [])
    assert _greeting(web_app, session_id, beginning) == (False, [])
    assert _greeting(web_app, session_id, "9" * 40) == (False, [])


def test_event_that_is_no_longer_kept_is_not_recovered(
    web_app: Flask, rest: Rest, backend: Backend, session_id: str
) -> None:
    with backend.reading() as session:
        first = events.after(session, UUID(session_id), 0, limit=1)[0]
    with backend.unit_of_work() as uow:
        uow.session.execute(delete(SessionEvent).where(SessionEvent.offset == 1))

    assert _greeting(web_app, session_id, str(Cursor(1, first.tag))) == (False, [])
    assert _greeting(web_app, session_id, "1") == (True, [2, 3, 4, 5])


@pytest.mark.parametrize("written", [0, 2, 4], ids=["shorter", "as long", "longer"])
def test_viewers_of_a_replaced_database_are_sent_away(
    web_app: Flask, rest: Rest, backend: Backend, session_id: str, written: int
) -> None:
    cursor = str(_page(rest, session_id)["cursor"])
    with _watching(web_app, session_id, cursor) as outbox:
        greeting = frames(outbox)[0]
        _restore(backend, session_id, written=written)

        wait_until(lambda: outbox.closed_with == 1012, seconds=20, why="the viewer is sent away")
        assert not [frame for frame in frames(outbox) if "offset" in frame][1:]
    assert (greeting["recovered"], greeting["cursor"]) == (True, cursor)
    assert _greeting(web_app, session_id, cursor) == (False, [])


def test_published_event_with_a_known_offset_makes_the_hub_look(
    web_app: Flask, backend: Backend, session_id: str
) -> None:
    hub: Hub = web_app.extensions["chat_hub"]
    with hub.feed(UUID(session_id)) as feed, backend.reading() as session:
        *_, last = events.after(session, UUID(session_id), 0, limit=9)
        feed.durable(last)
        same = feed.needs_refresh
        feed.durable(Durable(last.offset, last.frame, tag="1"))

        assert (same, feed.needs_refresh) == (False, True)


def test_every_durable_frame_carries_its_cursor(web_app: Flask, rest: Rest, session_id: str) -> None:
    with _watching(web_app, session_id, "0") as outbox:
        rest.say(session_id, "live")
        wait_until(lambda: len(outbox.sent) == 7, why="what was said arrives")
        greeting, *durable = frames(outbox)
    page = _page(rest, session_id)

    assert [frame["cursor"].partition("-")[0] for frame in durable] == [str(frame["offset"]) for frame in durable]
    assert all("-" in frame["cursor"] for frame in [greeting, *durable])
    assert (greeting["offset"], page["offset"], page["cursor"]) == (5, 6, durable[-1]["cursor"])
