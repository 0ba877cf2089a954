"""Storage quota: what users store in messages. It is charged as messages are written (see UnitOfWork)."""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from chat_backend.models import Message, UserStorage
from chat_backend.models.message import STORAGE_IS_CHARGED, STORED_BYTES
from chat_backend.unit_of_work import UnitOfWork


def used(session: Session, user_id: str) -> int:
    """Return the bytes that a user stores."""
    return session.scalar(select(UserStorage.stored_bytes).where(UserStorage.user_id == user_id)) or 0


def release(uow: UnitOfWork, deleted: ColumnElement[bool]) -> None:
    """Give the users of messages that are about to be deleted their storage back."""
    query = select(Message.storage_user_id, func.sum(STORED_BYTES)).where(deleted, STORAGE_IS_CHARGED)
    for user_id, stored_bytes in uow.session.execute(query.group_by(Message.storage_user_id)):
        assert user_id is not None  # by STORAGE_IS_CHARGED
        uow.charge_storage(user_id, -int(stored_bytes), check=False)
