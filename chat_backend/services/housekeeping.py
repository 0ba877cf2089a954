"""Forget what has served: old events and audit entries, expired keys and tickets. In portions: nobody waits for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Delete, delete, func, select, tuple_
from sqlalchemy.orm import Session

from chat_backend.domain import limits
from chat_backend.models import AuditEntry, ChatSession, IdempotencyKey, QuotaDay, SessionEvent, Ticket
from chat_backend.models.base import now

SESSIONS_AT_ONCE = 100
ROWS_AT_ONCE = 2000
# Every turn writes two: what goes each minute must outrun what comes.
AUDIT_AT_ONCE = 10_000
QUOTA_DAYS_KEPT = 40


def forget_expired(session: Session, *, keys_seconds: float) -> int:
    """Delete keys, tickets and quota days past their time, at most a portion of each; return how many rows went."""
    old = IdempotencyKey.created_at < now() - timedelta(seconds=keys_seconds)
    key = (IdempotencyKey.user_id, IdempotencyKey.scope, IdempotencyKey.key)
    old_keys = delete(IdempotencyKey).where(tuple_(*key).in_(select(*key).where(old).limit(ROWS_AT_ONCE)))
    expired = select(Ticket.digest).where(Ticket.expires_at < now()).limit(ROWS_AT_ONCE)
    gone = _gone(session, old_keys) + _gone(session, delete(Ticket).where(Ticket.digest.in_(expired)))
    return gone + _forget_quota_days(session)


def _forget_quota_days(session: Session) -> int:
    key = (QuotaDay.user_id, QuotaDay.day)
    old = select(*key).where(QuotaDay.day < now().date() - timedelta(days=QUOTA_DAYS_KEPT)).limit(ROWS_AT_ONCE)
    return _gone(session, delete(QuotaDay).where(tuple_(*key).in_(old)))


def forget_audit(session: Session, *, days: int) -> int:
    """Delete a portion of the audit entries past their time; return how many went."""
    old = select(AuditEntry.id).where(AuditEntry.created_at < now() - timedelta(days=days)).limit(AUDIT_AT_ONCE)
    return _gone(session, delete(AuditEntry).where(AuditEntry.id.in_(old)))


@dataclass(frozen=True)
class Old:
    """What can be forgotten of a chat session's log: the events before this offset."""

    session_id: UUID
    before: int


def old_events(session: Session, *, events_seconds: float, after: UUID | None = None) -> tuple[list[Old], UUID | None]:
    """Return what can be forgotten of the next few long chat sessions, and the last of them, None at the end.

    A log is shortened from its beginning only: a hole would be taken for whole.
    """
    long = select(ChatSession.id, ChatSession.last_offset).where(ChatSession.last_offset > limits.KEPT_EVENTS)
    if after is not None:
        long = long.where(ChatSession.id > after)
    found = list(session.execute(long.order_by(ChatSession.id).limit(SESSIONS_AT_ONCE)))
    youngest = now() - timedelta(seconds=events_seconds)
    old = [_old(session, session_id, last_offset - limits.KEPT_EVENTS, youngest) for session_id, last_offset in found]
    return [some for some in old if some], found[-1][0] if len(found) == SESSIONS_AT_ONCE else None


def _old(session: Session, session_id: UUID, upto: int, youngest: datetime) -> Old | None:
    mine = SessionEvent.session_id == session_id
    oldest = session.scalar(select(func.min(SessionEvent.offset)).where(mine)) or 0
    first_young = session.scalar(select(func.min(SessionEvent.offset)).where(mine, SessionEvent.created_at >= youngest))
    end = min(upto + 1, first_young or upto + 1, oldest + ROWS_AT_ONCE)
    return Old(session_id, end) if end > oldest else None


def forget_events(session: Session, old: Old) -> int:
    """Delete the old events of one chat session: a transaction for each, for meanwhile SQLite lets nobody write."""
    mine = SessionEvent.session_id == old.session_id
    return _gone(session, delete(SessionEvent).where(mine, SessionEvent.offset < old.before))


def _gone(session: Session, statement: Delete) -> int:
    deleted: Any = session.execute(statement.execution_options(synchronize_session=False))
    return int(deleted.rowcount)
