"""The durable log, read back: what happened since an offset, shown as it is now."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import and_, bindparam, func, select
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session, selectinload

from chat_backend.domain.cursor import Cursor, tag_of
from chat_backend.models import ChatSession, LlmJob, Message, SessionEvent
from chat_backend.models.base import byte_length, now
from chat_backend.models.llm_job import UNFINISHED
from chat_backend.protocol.envelope import Durable
from chat_backend.protocol.events import Happening, encode, framed

log = logging.getLogger(__name__)

# What a replay may send at once, and so what it may hold in memory.
REPLAY_BYTES = 1_048_576

Row = TypeVar("Row", Message, LlmJob)

# What the decoding of a row, or of what it refers to, raises if it can't be read. A database that does not answer
# raises others.
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, DataError)
# Unreadable events that are remembered, so that each is logged once.
REPORTED_EVENTS = 10_000

# Made once: to put a statement together costs as much as to execute it.
_CURSORS = select(
    ChatSession.id,
    ChatSession.last_offset,
    func.coalesce(SessionEvent.created_at, ChatSession.created_at).label("created_at"),
).outerjoin(
    SessionEvent, and_(SessionEvent.session_id == ChatSession.id, SessionEvent.offset == ChatSession.last_offset)
)
_CURSORS = _CURSORS.where(ChatSession.deleted_at.is_(None))
_CURRENT_CURSOR = _CURSORS.where(ChatSession.id == bindparam("session_id"))
_IN_PROGRESS = (
    select(Message)
    .join(LlmJob, LlmJob.assistant_message_id == Message.id)
    .where(LlmJob.session_id == bindparam("session_id"), UNFINISHED)
    .order_by(Message.seq)
)


def current_cursor(session: Session, session_id: UUID) -> Cursor | None:
    """Return the position of the newest event; None if there is no such session."""
    row = session.execute(_CURRENT_CURSOR, {"session_id": session_id}).one_or_none()
    return None if row is None else Cursor.at(row.last_offset, row.created_at)


def current_cursors(session: Session, session_ids: Sequence[UUID]) -> dict[UUID, Cursor]:
    """Return the newest positions of many sessions; those that are gone are left out."""
    query = _CURSORS.where(ChatSession.id.in_(session_ids))
    return {row.id: Cursor.at(row.last_offset, row.created_at) for row in session.execute(query)}


def tag_at(session: Session, session_id: UUID, offset: int) -> str | None:
    """Return the tag of an event; None if it is not there, or not any more."""
    if offset == 0:
        query = select(ChatSession.created_at).where(ChatSession.id == session_id)
    else:
        mine = SessionEvent.session_id == session_id
        query = select(SessionEvent.created_at).where(mine, SessionEvent.offset == offset)
    created_at: datetime | None = session.scalar(query)
    return None if created_at is None else tag_of(created_at)


def can_replay(session: Session, session_id: UUID, since: int, current: int, *, tag: str | None = None) -> bool:
    """Return whether everything after `since` is still there.

    With a tag, the event at `since` must be there as well and have it: else the log is not the one that was seen.
    """
    if since > current:
        return False
    if tag is not None:
        return tag_at(session, session_id, since) == tag
    if since == current:
        return True
    oldest = session.scalar(select(func.min(SessionEvent.offset)).where(SessionEvent.session_id == session_id))
    return oldest is not None and oldest <= since + 1


def after(session: Session, session_id: UUID, since: int, *, limit: int) -> list[Durable]:
    """Return the events after an offset as frames, messages and jobs as they are now.

    At most `limit` and, beyond the first, REPLAY_BYTES: what does not fit is neither read nor encoded.
    In the place of an event that can't be read stands a `session_update`, so that offsets stay contiguous.
    """
    chat = session.get(ChatSession, session_id)
    if chat is None or chat.deleted_at is not None:
        return []
    try:
        return _read(session, chat, since, limit)
    except UNREADABLE:
        mine = (SessionEvent.session_id == session_id, SessionEvent.offset > since)
        offsets = session.scalars(select(SessionEvent.offset).where(*mine).order_by(SessionEvent.offset).limit(limit))
        return _read_what_can_be(session, chat, list(offsets))


def _read_what_can_be(session: Session, chat: ChatSession, offsets: list[int]) -> list[Durable]:
    """Read consecutive events by halves, until those that can't be read are found."""
    try:
        return _read(session, chat, offsets[0] - 1, len(offsets))
    except UNREADABLE as error:
        if len(offsets) == 1:
            _report(chat.id, offsets[0], type(error).__name__)
            return [_durable(Happening.session(chat), chat.id, offsets[0], now(), tag=None)]
        middle = len(offsets) // 2
        first = _read_what_can_be(session, chat, offsets[:middle])
        if len(first) < middle:
            return first  # the rest does not fit
        return [*first, *_read_what_can_be(session, chat, offsets[middle:])]


@lru_cache(maxsize=REPORTED_EVENTS)
def _report(session_id: UUID, offset: int, error: str) -> None:
    # Without the error's words, which quote the row.
    facts = {"action": "replay", "session_id": str(session_id), "offset": offset, "error": error}
    log.error("skipped an event that can't be read", extra=facts)


def _read(session: Session, chat: ChatSession, since: int, limit: int) -> list[Durable]:
    query = select(SessionEvent).where(SessionEvent.session_id == chat.id, SessionEvent.offset > since)
    found = _readable(session, list(session.scalars(query.order_by(SessionEvent.offset).limit(limit))))
    messages = _by_id(session, Message, (event.message_id for event in found))
    jobs = _by_id(session, LlmJob, (event.job_id for event in found))
    frames: list[Durable] = []
    size = 0
    for event in found:
        frame = _shown(event, chat, messages, jobs)
        size += len(frame.frame)
        if frames and size > REPLAY_BYTES:
            break
        frames.append(frame)
    return frames


def _readable(session: Session, found: list[SessionEvent]) -> list[SessionEvent]:
    """Return the first of these events whose messages come to REPLAY_BYTES at most, and one at least."""
    ids = {event.message_id for event in found if event.message_id is not None}
    query = select(Message.id, byte_length(Message.content)).where(Message.id.in_(ids))
    sizes: dict[UUID | None, int] = {}
    if len(found) > 1 and ids:
        sizes = {row[0]: row[1] for row in session.execute(query)}
    total = 0
    for number, event in enumerate(found):
        total += sizes.get(event.message_id, 0)
        if number and total > REPLAY_BYTES:
            return found[:number]
    return found


def _by_id(session: Session, kind: type[Row], ids: Iterable[UUID | None]) -> dict[UUID, Row]:
    wanted = list({id for id in ids if id is not None})
    query = select(kind).where(kind.id.in_(wanted))
    if kind is LlmJob:
        query = query.options(selectinload(LlmJob.attempts))
    return {row.id: row for row in session.scalars(query)} if wanted else {}


def _shown(event: SessionEvent, chat: ChatSession, messages: dict[UUID, Message], jobs: dict[UUID, LlmJob]) -> Durable:
    subject: Any
    if event.message_id is not None:
        about, subject = "message", messages[event.message_id]
    elif event.job_id is not None:
        about, subject = "job", jobs[event.job_id]
    else:
        about, subject = "session", chat
    happening = Happening(event.type, subject, about, event.action, event.user_id, event.request_id)
    return _durable(happening, chat.id, event.offset, event.created_at, tag=tag_of(event.created_at))


def _durable(happening: Happening, session_id: UUID, offset: int, at: datetime, *, tag: str | None) -> Durable:
    frame = encode(framed(happening.body(), session_id, at, Cursor(offset, tag)))
    return Durable(offset, frame, happening.user_id, happening.request_id, tag)


def in_progress(session: Session, session_id: UUID) -> list[Message]:
    """Return the replies that are not finished in a session, with the text of their last checkpoint."""
    try:
        return list(session.scalars(_IN_PROGRESS, {"session_id": session_id}))
    except UNREADABLE:
        ids = session.scalars(_IN_PROGRESS.with_only_columns(Message.id), {"session_id": session_id})
        return [message for id in list(ids) if (message := _message(session, id))]


def _message(session: Session, message_id: UUID) -> Message | None:
    try:
        return session.get(Message, message_id)
    except UNREADABLE:
        return None  # its events are reported when they are read
