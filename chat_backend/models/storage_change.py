"""Bytes that users store in messages, as a list of changes."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from chat_backend.models.base import Base


class StorageChange(Base):
    """What a transaction has added to, or released of, what a user stores.

    A user's sum is that of `Message.stored_bytes` over the finished messages charged to the user. Not a counter: many
    transactions of one user would wait for its row. Workers replace many changes by their sum.
    """

    __tablename__ = "storage_changes"
    __table_args__ = (Index("idx_storage_changes_user", "user_id", "stored_bytes"),)

    # SQLite numbers only INTEGER keys by itself.
    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(255))
    stored_bytes: Mapped[int] = mapped_column(BigInteger)
