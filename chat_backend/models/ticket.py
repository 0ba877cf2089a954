"""WebSocket tickets: one use, short-lived, bound to a user and a chat session."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from chat_backend.models.base import Base


class Ticket(Base):
    """A ticket, known only by the hash of its text."""

    __tablename__ = "ws_tickets"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    session_id: Mapped[UUID] = mapped_column(ForeignKey("chat_sessions.id", ondelete="CASCADE"))
    user_id: Mapped[str] = mapped_column(String(255))
    expires_at: Mapped[datetime] = mapped_column(index=True)
    # When the token that fetched the ticket ends; the socket must not outlive it.
    token_expires_at: Mapped[datetime | None]
