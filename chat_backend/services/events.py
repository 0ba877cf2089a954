"""The durable log, read back: what happened since an offset, shown as it is now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session, selectinload

from chat_backend.domain.enums import EventType
from chat_backend.models import ChatSession, LlmJob, Message, SessionEvent
from chat_backend.models.llm_job import UNFINISHED
from chat_backend.protocol.envelope import Durable
from chat_backend.protocol.events import Happening, encode, framed

Row = TypeVar("Row", Message, LlmJob)

# Made once: to put a statement together costs as much as to execute it.
_CURRENT_OFFSET = select(ChatSession.last_offset).where(ChatSession.id == bindparam("session_id"))
_IN_PROGRESS = (
    select(Message)
    .join(LlmJob, LlmJob.assistant_message_id == Message.id)
    .where(LlmJob.session_id == bindparam("session_id"), UNFINISHED)
    .order_by(Message.seq)
)


def current_offset(session: Session, session_id: UUID) -> int | None:
    """Return the offset of the newest event; None where there is no such chat session."""
    return session.scalar(_CURRENT_OFFSET, {"session_id": session_id})


def current_offsets(session: Session, session_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return the newest offsets of many chat sessions; those that are gone are left out."""
    query = select(ChatSession.id, ChatSession.last_offset).where(ChatSession.id.in_(session_ids))
    return {row.id: row.last_offset for row in session.execute(query)}


def can_replay(session: Session, session_id: UUID, since: int, current: int) -> bool:
    """Whether everything after `since` is still there."""
    if since >= current:
        return since == current
    oldest = session.scalar(select(func.min(SessionEvent.offset)).where(SessionEvent.session_id == session_id))
    return oldest is not None and oldest <= since + 1


def after(session: Session, session_id: UUID, since: int, *, limit: int) -> list[Durable]:
    """Return the events after an offset as frames, at most `limit`, messages and jobs as they are now."""
    query = select(SessionEvent).where(SessionEvent.session_id == session_id, SessionEvent.offset > since)
    found = list(session.scalars(query.order_by(SessionEvent.offset).limit(limit)))
    messages = _by_id(session, Message, (event.message_id for event in found))
    jobs = _by_id(session, LlmJob, (event.job_id for event in found))
    chat = session.get(ChatSession, session_id)
    if chat is None:
        return []
    return [_durable(event, _subject(event, chat, messages, jobs)) for event in found]


def _by_id(session: Session, kind: type[Row], ids: Iterable[UUID | None]) -> dict[UUID, Row]:
    wanted = list({id for id in ids if id is not None})
    query = select(kind).where(kind.id.in_(wanted))
    if kind is LlmJob:
        query = query.options(selectinload(LlmJob.attempts))
    return {row.id: row for row in session.scalars(query)} if wanted else {}


def _subject(event: SessionEvent, chat: ChatSession, messages: dict[UUID, Message], jobs: dict[UUID, LlmJob]) -> Any:
    if event.message_id is not None:
        return messages[event.message_id]
    return jobs[event.job_id] if event.job_id is not None else chat


def _durable(event: SessionEvent, subject: Any) -> Durable:
    happening = Happening(EventType(event.type), subject, event.action)
    frame = encode(framed(happening.body(), event.session_id, event.created_at, event.offset))
    return Durable(event.offset, frame, event.user_id, event.request_id)


def in_progress(session: Session, session_id: UUID) -> list[Message]:
    """Return the replies that are not finished in a chat session, with the text of their last checkpoint."""
    return list(session.scalars(_IN_PROGRESS, {"session_id": session_id}))
