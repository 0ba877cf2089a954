"""Idempotency keys: what a client's name for an effect has made."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from chat_backend.models.base import Base


class IdempotencyKey(Base):
    """A key, the fingerprint of what was asked under it, and the ids of what came of it."""

    __tablename__ = "idempotency_keys"

    user_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    # The chat session; the nil id where the effect is to make one.
    scope: Mapped[UUID] = mapped_column(primary_key=True, index=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    session_id: Mapped[UUID | None]
    message_id: Mapped[UUID | None]
    job_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(index=True)
