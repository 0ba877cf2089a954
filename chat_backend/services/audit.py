"""The audit log of a chat session, for its owner: who changed what."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chat_backend.domain.user import User
from chat_backend.models import AuditEntry
from chat_backend.services.access import OWN, enter
from chat_backend.services.paging import Page, fetch, read_id, row_bytes

_SIZE = row_bytes(AuditEntry.user_id, AuditEntry.participant_id, AuditEntry.details)


def page(session: Session, session_id: UUID, user: User, asked: Page) -> dict[str, Any]:
    """Return one page of the entries, in the order in which things were done."""
    chat = enter(session, session_id, user, to=OWN)
    mine = AuditEntry.session_id == chat.id
    query = select(AuditEntry).where(mine)
    if asked.after is not None:
        last = read_id(asked.after)
        query = query.where(AuditEntry.id < last if asked.descending else AuditEntry.id > last)
    else:
        query = query.offset(asked.skipped)
    shown, has_more = fetch(session, query, asked, by=AuditEntry.id, size=_SIZE)
    return {
        "entries": shown,
        "session_id": chat.id,
        "total_count": session.scalar(select(func.count()).select_from(AuditEntry).where(mine)),
        "page": asked.number,
        "page_size": asked.size,
        "has_more": has_more,
        "next_cursor": asked.cursor(shown[-1].id) if has_more else None,
    }
