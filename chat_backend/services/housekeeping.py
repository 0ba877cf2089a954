"""Forget what has served: old events, expired keys and tickets."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from chat_backend.domain import limits
from chat_backend.models import ChatSession, IdempotencyKey, SessionEvent, Ticket
from chat_backend.models.base import now


def forget(session: Session, *, events_seconds: float, keys_seconds: float) -> int:
    """Delete what is past its time, in bounded portions; return how many rows went."""
    at = now()
    kept_from = select(ChatSession.last_offset - limits.KEPT_EVENTS).where(ChatSession.id == SessionEvent.session_id)
    old_events = delete(SessionEvent).where(
        SessionEvent.created_at < at - timedelta(seconds=events_seconds),
        SessionEvent.offset <= kept_from.scalar_subquery(),
    )
    old_keys = delete(IdempotencyKey).where(IdempotencyKey.created_at < at - timedelta(seconds=keys_seconds))
    old_tickets = delete(Ticket).where(Ticket.expires_at < at)
    gone = 0
    for statement in (old_events, old_keys, old_tickets):
        deleted: Any = session.execute(statement.execution_options(synchronize_session=False))
        gone += deleted.rowcount
    return gone
