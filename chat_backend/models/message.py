"""Messages: what users, models and the system said, in the order of `seq`."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint, and_
from sqlalchemy.orm import Mapped, mapped_column

from chat_backend.domain.enums import FINISHED_MESSAGE, UNFINISHED_REPLY, MessageStatus, Role
from chat_backend.models.base import Base, EnumText, byte_length

# What a row takes beside its content, roughly: many empty messages fill a disk, too.
ROW_BYTES = 256


class Message(Base):
    """One entry of a chat session. A reply is one that a job fills."""

    __tablename__ = "chat_messages"
    __table_args__ = (
        UniqueConstraint("session_id", "seq"),
        CheckConstraint("role IN ('user', 'assistant', 'system')", name="valid_message_role"),
        CheckConstraint(
            "status IN ('pending', 'streaming', 'complete', 'failed', 'cancelled')", name="valid_message_status"
        ),
        CheckConstraint("tokens_used >= 0", name="positive_tokens"),
        Index("idx_chat_messages_session_created", "session_id", "created_at"),
        Index("idx_chat_messages_session_role_created", "session_id", "role", "created_at"),
        Index("idx_chat_messages_role", "role"),
        Index("idx_chat_messages_created", "created_at"),
        Index("idx_chat_messages_parent", "parent_message_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    session_id: Mapped[UUID] = mapped_column(ForeignKey("chat_sessions.id", ondelete="CASCADE"))
    seq: Mapped[int]
    role: Mapped[Role] = mapped_column(EnumText(Role))
    user_id: Mapped[str | None] = mapped_column(String(255))
    content: Mapped[str] = mapped_column(Text)
    status: Mapped[MessageStatus] = mapped_column(EnumText(MessageStatus))
    parent_message_id: Mapped[UUID | None] = mapped_column(ForeignKey("chat_messages.id", ondelete="SET NULL"))
    # Which job fills this reply. No foreign key: the job names the message, and one arrow is enough.
    job_id: Mapped[UUID | None]
    attempt: Mapped[int] = mapped_column(default=0)
    llm_provider: Mapped[str | None] = mapped_column(String(50), index=True)
    llm_model: Mapped[str | None] = mapped_column(String(100), index=True)
    response_time_ms: Mapped[int | None]
    tokens_used: Mapped[int] = mapped_column(default=0)
    error_message: Mapped[str | None] = mapped_column(Text)
    message_metadata: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    # The user whose storage quota is charged: the author, the requester of a reply, or the last editor.
    # Null for messages that were stored before there was a quota.
    storage_user_id: Mapped[str | None] = mapped_column(String(255))

    @property
    def is_streaming(self) -> bool:
        """Whether a job is still to write here; what the status says, never stored apart."""
        return self.status in UNFINISHED_REPLY

    @property
    def stored_bytes(self) -> int:
        """What this message takes of a storage quota; `STORED_BYTES` is the same in SQL."""
        return ROW_BYTES + len(self.content.encode()) + len(json.dumps(self.message_metadata))

    @property
    def is_reply(self) -> bool:
        return self.role == Role.ASSISTANT


STORED_BYTES = ROW_BYTES + byte_length(Message.content) + byte_length(Message.message_metadata)
# A reply is charged when it is finished.
STORAGE_IS_CHARGED = and_(Message.storage_user_id.is_not(None), Message.status.in_(FINISHED_MESSAGE))
