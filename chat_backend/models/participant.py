"""Participants: who was admitted to a chat session, and as what."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from chat_backend.domain.enums import ParticipantRole
from chat_backend.models.base import Base, EnumText


class Participant(Base):
    """A user admitted to a chat session."""

    __tablename__ = "chat_participants"
    __table_args__ = (
        CheckConstraint("role IN ('owner', 'member', 'viewer')", name="valid_participant_role"),
        Index("idx_chat_participants_user_session", "user_id", "session_id"),
    )

    session_id: Mapped[UUID] = mapped_column(ForeignKey("chat_sessions.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    role: Mapped[ParticipantRole] = mapped_column(EnumText(ParticipantRole))
    created_at: Mapped[datetime]
