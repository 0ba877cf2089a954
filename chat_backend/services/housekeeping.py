"""Delete what is past its time, and the rows of chat sessions that users have deleted.

Each function deletes one portion, small enough that other writers of SQLite hardly wait; callers repeat it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Delete, case, delete, func, select, tuple_
from sqlalchemy.orm import Session

from chat_backend.domain import limits
from chat_backend.models import (
    AuditEntry,
    ChatSession,
    ContextSummary,
    IdempotencyKey,
    LlmJob,
    Message,
    QuotaDay,
    SessionEvent,
    Ticket,
)
from chat_backend.models.base import database_now
from chat_backend.services import storage
from chat_backend.unit_of_work import UnitOfWork

SESSIONS_AT_ONCE = 100
# With SQLite 500 keys of a table of 450,000 take about a tenth of a second.
ROWS_AT_ONCE = 500
QUOTA_DAYS_KEPT = 40
DAY_SECONDS = 86_400
# How long one transaction deletes rows of a deleted chat session, and how many a statement of it: while it lasts,
# nobody else can write to SQLite.
PORTION_SECONDS = 0.05
DELETED_AT_ONCE = 100


def forget_expired(session: Session, *, keys_seconds: float) -> int:
    """Delete a portion each of the keys, tickets and quota days past their time; return how many rows went."""
    old = IdempotencyKey.created_at < database_now(-keys_seconds)
    key = (IdempotencyKey.user_id, IdempotencyKey.scope, IdempotencyKey.key)
    # Ordered, or PostgreSQL reads the whole table for each portion where much is old.
    oldest = select(*key).where(old).order_by(IdempotencyKey.created_at).limit(ROWS_AT_ONCE)
    old_keys = delete(IdempotencyKey).where(tuple_(*key).in_(oldest))
    expired = select(Ticket.digest).where(Ticket.expires_at < database_now())
    expired = expired.order_by(Ticket.expires_at).limit(ROWS_AT_ONCE)
    gone = _gone(session, old_keys) + _gone(session, delete(Ticket).where(Ticket.digest.in_(expired)))
    return gone + _forget_quota_days(session)


def _forget_quota_days(session: Session) -> int:
    key = (QuotaDay.user_id, QuotaDay.day)
    old = select(*key).where(QuotaDay.day < func.date(database_now(-QUOTA_DAYS_KEPT * DAY_SECONDS))).limit(ROWS_AT_ONCE)
    return _gone(session, delete(QuotaDay).where(tuple_(*key).in_(old)))


def forget_audit(session: Session, *, days: int) -> int:
    """Delete a portion of the audit entries past their time; return how many went."""
    old = AuditEntry.created_at < database_now(-days * DAY_SECONDS)
    oldest = select(AuditEntry.id).where(old).order_by(AuditEntry.created_at).limit(ROWS_AT_ONCE)
    return _gone(session, delete(AuditEntry).where(AuditEntry.id.in_(oldest)))


@dataclass(frozen=True)
class Old:
    """What can be forgotten of a chat session's log: the events before this offset."""

    session_id: UUID
    before: int


def old_events(session: Session, *, events_seconds: float, after: UUID | None = None) -> tuple[list[Old], UUID | None]:
    """Return what can be deleted of the next few chat sessions, and the last of them, None at the end.

    A log is shortened from its beginning only: a hole would be taken for whole.
    """
    youngest = database_now(-events_seconds)
    first = (
        select(SessionEvent.created_at)
        .where(
            SessionEvent.session_id == ChatSession.id,
            SessionEvent.offset <= ChatSession.last_offset - limits.KEPT_EVENTS,
        )
        .order_by(SessionEvent.offset)
        .limit(1)
        .scalar_subquery()
    )
    long = select(ChatSession.id, ChatSession.last_offset).where(
        ChatSession.last_offset > limits.KEPT_EVENTS, ChatSession.deleted_at.is_(None), first < youngest
    )
    if after is not None:
        long = long.where(ChatSession.id > after)
    found = list(session.execute(long.order_by(ChatSession.id).limit(SESSIONS_AT_ONCE)))
    old = [_old(session, session_id, last_offset - limits.KEPT_EVENTS, youngest) for session_id, last_offset in found]
    return [some for some in old if some], found[-1][0] if len(found) == SESSIONS_AT_ONCE else None


def _old(session: Session, session_id: UUID, upto: int, youngest: database_now) -> Old | None:
    """Return what can be deleted of one log: of its first portion, what lies before the first event that is young."""
    mine = (SessionEvent.session_id == session_id, SessionEvent.offset <= upto)
    portion = select(SessionEvent.offset, SessionEvent.created_at).where(*mine)
    first = portion.order_by(SessionEvent.offset).limit(ROWS_AT_ONCE).subquery()
    first_young = func.min(case((first.c.created_at >= youngest, first.c.offset)))
    last, end = session.execute(select(func.max(first.c.offset), first_young)).one()
    return None if last is None else Old(session_id, end or last + 1)


def forget_events(session: Session, old: Old) -> int:
    """Delete a portion of the old events of one chat session; return how many went."""
    mine = SessionEvent.session_id == old.session_id
    return _gone(session, delete(SessionEvent).where(mine, SessionEvent.offset < old.before))


def deleted_sessions(session: Session) -> list[UUID]:
    """Return some of the chat sessions that users have deleted and that still have rows."""
    query = select(ChatSession.id).where(ChatSession.deleted_at.is_not(None)).order_by(ChatSession.id)
    return list(session.scalars(query.limit(SESSIONS_AT_ONCE)))


def delete_portion(uow: UnitOfWork, session_id: UUID, *, seconds: float = PORTION_SECONDS) -> bool:
    """Delete some rows of a chat session that a user has deleted; return whether all of it is gone.

    Takes `seconds`, or a few small statements longer. It may be repeated after any crash, in any process.
    """
    deleted = select(ChatSession.id).where(ChatSession.id == session_id, ChatSession.deleted_at.is_not(None))
    session = uow.session
    if session.scalar(deleted.with_for_update(skip_locked=True)) is None:
        return True  # or another process is at it
    end = time.monotonic() + seconds
    for delete_some in (_delete_events, _delete_keys, _delete_audit, _delete_summaries, _delete_jobs, delete_messages):
        while delete_some(uow, session_id) >= DELETED_AT_ONCE:
            if time.monotonic() > end:
                return False
    return bool(_gone(session, delete(ChatSession).where(ChatSession.id == session_id)))


def delete_messages(uow: UnitOfWork, session_id: UUID) -> int:
    """Delete the last few messages of a deleted chat session; return how many. Its jobs are gone already."""
    # From the last one: a message's children come after it. Deleting the parent first would update all of them.
    last = select(Message.id).where(Message.session_id == session_id).order_by(Message.seq.desc())
    some = Message.id.in_(last.limit(DELETED_AT_ONCE))
    storage.release(uow, some)
    return _gone(uow.session, delete(Message).where(some))


def _delete_jobs(uow: UnitOfWork, session_id: UUID) -> int:
    some = select(LlmJob.id).where(LlmJob.session_id == session_id).limit(DELETED_AT_ONCE)
    return _gone(uow.session, delete(LlmJob).where(LlmJob.id.in_(some)))


def _delete_events(uow: UnitOfWork, session_id: UUID) -> int:
    mine = SessionEvent.session_id == session_id
    some = select(SessionEvent.offset).where(mine).order_by(SessionEvent.offset).limit(DELETED_AT_ONCE)
    return _gone(uow.session, delete(SessionEvent).where(mine, SessionEvent.offset.in_(some)))


def _delete_keys(uow: UnitOfWork, session_id: UUID) -> int:
    key = (IdempotencyKey.user_id, IdempotencyKey.scope, IdempotencyKey.key)
    some = select(*key).where(IdempotencyKey.scope == session_id).limit(DELETED_AT_ONCE)
    return _gone(uow.session, delete(IdempotencyKey).where(tuple_(*key).in_(some)))


def _delete_audit(uow: UnitOfWork, session_id: UUID) -> int:
    some = select(AuditEntry.id).where(AuditEntry.session_id == session_id).limit(DELETED_AT_ONCE)
    return _gone(uow.session, delete(AuditEntry).where(AuditEntry.id.in_(some)))


def _delete_summaries(uow: UnitOfWork, session_id: UUID) -> int:
    mine = ContextSummary.session_id == session_id
    some = select(ContextSummary.covered_seq).where(mine).limit(DELETED_AT_ONCE)
    return _gone(uow.session, delete(ContextSummary).where(mine, ContextSummary.covered_seq.in_(some)))


def _gone(session: Session, statement: Delete) -> int:
    deleted: Any = session.execute(statement.execution_options(synchronize_session=False))
    return int(deleted.rowcount)
