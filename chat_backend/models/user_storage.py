"""Bytes that each user stores in messages."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from chat_backend.models.base import Base


class UserStorage(Base):
    """How much a user stores: the sum of `Message.stored_bytes` over the finished messages charged to the user.

    Updated at the end of each transaction that stores something; this row is always the last that one locks.
    """

    __tablename__ = "user_storage"
    __table_args__ = (CheckConstraint("stored_bytes >= 0", name="valid_user_storage"),)

    user_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    stored_bytes: Mapped[int] = mapped_column(BigInteger)
