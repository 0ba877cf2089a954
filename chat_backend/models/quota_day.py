"""Quotas: what a user has used up in a day. What is reserved is in the jobs that hold it."""

from __future__ import annotations

from datetime import date

from sqlalchemy import BigInteger, CheckConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from chat_backend.models.base import Base


class QuotaDay(Base):
    """A user's UTC day. Whoever reserves or settles holds this row's lock."""

    __tablename__ = "quota_days"
    __table_args__ = (CheckConstraint("requests_used >= 0 AND tokens_used >= 0", name="valid_quota_day"),)

    user_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    requests_used: Mapped[int] = mapped_column(BigInteger, default=0)
    tokens_used: Mapped[int] = mapped_column(BigInteger, default=0)
