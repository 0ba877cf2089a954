"""What the database and Redis say of a chat session: what somebody has missed, and what is being written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from chat_backend.bootstrap import Backend
from chat_backend.domain.cursor import Cursor
from chat_backend.domain.outage import Outage
from chat_backend.domain.user import User
from chat_backend.models import ChatSession
from chat_backend.protocol.envelope import Durable
from chat_backend.protocol.events import message_shape
from chat_backend.realtime.connection import RedisAway, RedisClient
from chat_backend.realtime.live_text import read_live_texts
from chat_backend.services import events, participants
from chat_backend.services.access import READ, enter
from chat_backend.web.websocket.feed import Feed, Truth

EVENTS_AT_ONCE = 100


@dataclass(frozen=True)
class Log:
    """A look into a chat session's log: where it stands, the next events, None where they can't be replayed.

    `replies` are those in progress, with at least the text that the events show.
    """

    cursor: Cursor
    events: list[Durable] | None = None
    replies: list[dict[str, Any]] = field(default_factory=list)

    def reached_by(self, offset: int) -> bool:
        """Whether who has seen all up to an offset has, with these events, seen everything."""
        return (self.events[-1].offset if self.events else offset) >= self.cursor.offset


class Reader:
    """Reads for the feeds of one process. Every method may raise Unavailable."""

    def __init__(self, backend: Backend, redis: RedisClient) -> None:
        self._backend = backend
        self._redis = redis
        # A Redis that hangs costs one feed its wait, not each of hundreds.
        self._live_outage = Outage(failures=1)

    def cursors(self, session_ids: Sequence[UUID]) -> dict[UUID, Cursor]:
        """Return where the logs of chat sessions stand; those that are gone are left out."""
        with self._backend.reading() as session:
            return events.current_cursors(session, session_ids)

    def roles(self, members: Sequence[tuple[UUID, str]]) -> dict[tuple[UUID, str], str]:
        """Return the roles of users in chat sessions; who is no participant is left out."""
        with self._backend.reading() as session:
            return participants.roles(session, members)

    def look(self, feed: Feed, user: User, *, since: Cursor) -> Log:
        """Let a participant look into the log, and see to it that the feed knows no less.

        Raises NotFound for who is none, or none any more.
        """
        with self._snapshot() as session:
            chat = enter(session, feed.session_id, user, to=READ)
            log = _log(session, chat, since=since)
        if not feed.cursor.agrees(log.cursor):
            self.refresh(feed)
        if log.replies:
            # Live text may be away while the checkpoints are not: a baseline must not show less than the replay.
            feed.reconcile(Truth(log.cursor.offset, [], log.replies))
        return log

    def refresh(self, feed: Feed) -> None:
        """Read what a feed has missed and show it."""
        # Before the reading: what turns out to be missing while we read is to be read again.
        feed.needs_refresh = False
        try:
            while not self._refreshed(feed):
                continue
        except BaseException:
            feed.needs_refresh = True
            raise

    def _refreshed(self, feed: Feed) -> bool:
        """Read some of what a feed has missed; say whether that was all."""
        known = feed.cursor
        with self._snapshot() as session:
            cursor = events.current_cursor(session, feed.session_id)
            if cursor is None:
                feed.close()
                return True
            missed = []
            if feed.loaded and cursor.offset > known.offset:
                missed = events.after(session, feed.session_id, known.offset, limit=EVENTS_AT_ONCE)
            # Else events would bring the feed no further, or go on from another log than the one that was shown.
            follows = not feed.loaded or _follows(session, feed.session_id, known, cursor, missed)
            replies = [message_shape(message) for message in events.in_progress(session, feed.session_id)]
        if follows and missed and missed[-1].offset < cursor.offset:
            feed.reconcile(Truth(cursor.offset, missed, []))
            return False
        truth = Truth(cursor.offset, missed, self._with_live_text(replies), cursor.tag)
        if follows:
            feed.reconcile(truth)
        else:
            feed.start_over(truth)
        return True

    def _with_live_text(self, replies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not replies or not self._live_outage.over():
            return replies  # the checkpoints must do
        try:
            texts = read_live_texts(self._redis, [(reply["id"], reply["attempt"]) for reply in replies])
        except RedisAway:
            self._live_outage.failed()
            return replies
        self._live_outage.succeeded()
        return [
            reply | {"content": text} if len(text) > len(reply["content"]) else reply
            for reply, text in zip(replies, texts, strict=True)
        ]

    @contextmanager
    def _snapshot(self) -> Iterator[Session]:
        """Open a transaction in which all reads see one moment."""
        with self._backend.reading() as session:
            if self._backend.engine.dialect.name == "postgresql":
                session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session


def _log(session: Session, chat: ChatSession, *, since: Cursor) -> Log:
    cursor = Cursor(chat.last_offset, events.tag_at(session, chat.id, chat.last_offset))
    if not events.can_replay(session, chat.id, since.offset, chat.last_offset, tag=since.tag):
        return Log(cursor)
    found = events.after(session, chat.id, since.offset, limit=EVENTS_AT_ONCE)
    shown = events.in_progress(session, chat.id) if found else []
    return Log(cursor, found, [message_shape(message) for message in shown])


def _follows(session: Session, session_id: UUID, known: Cursor, newest: Cursor, missed: Sequence[Durable]) -> bool:
    """Return whether the log goes on from what is known.

    Else events were forgotten, or a database lost its last commits or was restored from a backup.
    """
    if newest.offset <= known.offset:
        return newest.agrees(known)
    if not missed or missed[0].offset != known.offset + 1:
        return False
    return known.tag is None or events.tag_at(session, session_id, known.offset) == known.tag
