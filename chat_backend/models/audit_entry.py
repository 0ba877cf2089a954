"""Who changed what in a chat session; without any content."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from chat_backend.domain.enums import AuditAction
from chat_backend.models.base import Base, EnumText


class AuditEntry(Base):
    """One thing that someone did. It names what was changed, and outlives the durable event that told of it."""

    __tablename__ = "audit_entries"
    __table_args__ = (Index("idx_audit_entries_session_id_id", "session_id", "id"),)

    # Made in time order: the order of ids is the order of things.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    session_id: Mapped[UUID] = mapped_column(ForeignKey("chat_sessions.id", ondelete="CASCADE"))
    action: Mapped[AuditAction] = mapped_column(EnumText(AuditAction, 40))
    user_id: Mapped[str] = mapped_column(String(255))
    participant_id: Mapped[str | None] = mapped_column(String(255))
    message_id: Mapped[UUID | None]
    job_id: Mapped[UUID | None]
    details: Mapped[dict[str, Any]]
    # Of the newest durable event then; and the request's name, as it stands in the logs.
    offset: Mapped[int]
    trace_id: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(index=True)
