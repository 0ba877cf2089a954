"""Chat sessions: who owns them, which model answers, and the counters of their log."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from chat_backend.models.base import Base, new_id, time_of

_ACTIVE = text("is_active")
_DELETED = text("deleted_at IS NOT NULL")


class ChatSession(Base):
    """A conversation between users and a model. Whoever changes anything in it holds this row's lock."""

    __tablename__ = "chat_sessions"
    __table_args__ = (
        CheckConstraint("llm_provider IN ('LOCAL', 'OPENROUTER', 'OPENAI')", name="valid_llm_provider"),
        CheckConstraint("message_count >= 0 AND last_seq >= 0 AND last_offset >= 0", name="valid_counters"),
        Index("idx_chat_sessions_user_active", "user_id", "is_active"),
        Index("idx_chat_sessions_created", "created_at"),
        Index("idx_chat_sessions_active", "user_id", postgresql_where=_ACTIVE, sqlite_where=_ACTIVE),
        Index("idx_chat_sessions_deleted", "id", postgresql_where=_DELETED, sqlite_where=_DELETED),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255), index=True)
    title: Mapped[str | None] = mapped_column(String(500))
    llm_provider: Mapped[str] = mapped_column(String(50), index=True)
    llm_model: Mapped[str] = mapped_column(String(100), index=True)
    settings: Mapped[dict[str, Any]]
    is_active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    message_count: Mapped[int] = mapped_column(default=0)
    last_seq: Mapped[int] = mapped_column(default=0)
    last_offset: Mapped[int] = mapped_column(default=0)
    last_message_at: Mapped[datetime]
    # Set when a user deletes the chat session. It has no participants from then on, and workers delete its rows.
    deleted_at: Mapped[datetime | None]

    @classmethod
    def new(cls, user_id: str, **fields: Any) -> ChatSession:
        """Return a new chat session; its creation time is its id's, so both sort alike."""
        made = new_id()
        at = time_of(made)
        return cls(
            id=made,
            user_id=user_id,
            created_at=at,
            updated_at=at,
            last_message_at=at,
            is_active=True,
            message_count=0,
            last_seq=0,
            last_offset=0,
            **fields,
        )
