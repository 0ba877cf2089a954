"""Summaries of the beginnings of chat sessions, made when those no longer fit."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Text
from sqlalchemy.orm import Mapped, mapped_column

from chat_backend.models.base import Base


class ContextSummary(Base):
    """What every turn up to a seq comes to; with each one more is covered."""

    __tablename__ = "context_summaries"

    session_id: Mapped[UUID] = mapped_column(ForeignKey("chat_sessions.id", ondelete="CASCADE"), primary_key=True)
    covered_seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    content: Mapped[str] = mapped_column(Text)
    # Whose attempt made it.
    job_id: Mapped[UUID]
    created_at: Mapped[datetime]
