"""WebSocket tickets: a browser can't set headers, and a long-lived token never goes into a URL."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from chat_backend.domain.user import User
from chat_backend.models import Ticket
from chat_backend.models.base import database_now
from chat_backend.services.access import READ, enter
from chat_backend.unit_of_work import UnitOfWork


def issue(uow: UnitOfWork, session_id: UUID, user: User, *, seconds: float) -> tuple[str, datetime]:
    """Return a ticket for one connection to a chat session, and when it ends."""
    # Locked, for a chat session that is deleted meanwhile would have no place for its ticket.
    enter(uow.session, session_id, user, to=READ, lock=True)
    text = secrets.token_urlsafe(32)
    expires_at = uow.session.execute(select(database_now(seconds))).scalar_one()
    uow.session.add(
        Ticket(
            digest=_digest(text),
            session_id=session_id,
            user_id=user.id,
            expires_at=expires_at,
            token_expires_at=user.expires_at,
        )
    )
    return text, expires_at


def is_known(session: Session, session_id: UUID, text: str) -> bool:
    """Whether there is such a ticket: what is none need not wait in line with those who write."""
    known = select(Ticket.digest).where(Ticket.digest == _digest(text), Ticket.session_id == session_id)
    return session.scalar(known) is not None


def redeem(uow: UnitOfWork, session_id: UUID, text: str) -> User | None:
    """Use a ticket up; None if it is unknown, was used, or has ended.

    Whether its user still takes part is for the session to say, as for any user.
    """
    # A ticket that is locked is being used, or deleted with its session.
    found = select(Ticket.digest).where(Ticket.digest == _digest(text), Ticket.session_id == session_id)
    unlocked = found.with_for_update(skip_locked=True).scalar_subquery()
    used = delete(Ticket).where(Ticket.digest == unlocked).execution_options(synchronize_session=False)
    ended = (Ticket.expires_at < database_now()).label("ended")
    row = uow.session.execute(used.returning(Ticket.user_id, ended, Ticket.token_expires_at)).first()
    if row is None or row.ended:
        return None
    return User(row.user_id, expires_at=row.token_expires_at)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
