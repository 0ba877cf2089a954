"""The durable log of a chat session: what happened, by offset."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from chat_backend.domain.enums import Action, EventType
from chat_backend.models.base import Base, EnumText


class SessionEvent(Base):
    """A durable event. It names what changed; on replay that is shown as it is then."""

    __tablename__ = "session_events"

    session_id: Mapped[UUID] = mapped_column(ForeignKey("chat_sessions.id", ondelete="CASCADE"), primary_key=True)
    offset: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    type: Mapped[EventType] = mapped_column(EnumText(EventType, 40))
    action: Mapped[Action | None] = mapped_column(EnumText(Action))
    message_id: Mapped[UUID | None]
    job_id: Mapped[UUID | None]
    user_id: Mapped[str | None] = mapped_column(String(255))
    request_id: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(index=True)
