"""Storage quota: what users store in messages. It is charged as messages are written (see UnitOfWork)."""

from __future__ import annotations

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from chat_backend.models import Message, StorageChange
from chat_backend.models.message import STORAGE_IS_CHARGED, STORED_BYTES
from chat_backend.unit_of_work import STORED_BYTES_OF, UnitOfWork

# A sum over this many changes costs nothing that could be measured.
MOST_CHANGES = 100
COMPACTED_AT_ONCE = 500


def used(session: Session, user_id: str) -> int:
    """Return the bytes that a user stores."""
    return max(0, int(session.scalar(STORED_BYTES_OF, {"of_user": user_id}) or 0))


def release(uow: UnitOfWork, deleted: ColumnElement[bool]) -> None:
    """Give the users of messages that are about to be deleted their storage back."""
    query = select(Message.storage_user_id, func.sum(STORED_BYTES)).where(deleted, STORAGE_IS_CHARGED)
    for user_id, stored_bytes in uow.session.execute(query.group_by(Message.storage_user_id)):
        assert user_id is not None  # by STORAGE_IS_CHARGED
        uow.charge_storage(user_id, -int(stored_bytes), check=False)


def compact(session: Session) -> int:
    """Replace a portion of a user's changes by their sum; return how many rows went. Other processes may do so, too."""
    many = select(StorageChange.user_id).group_by(StorageChange.user_id).having(func.count() > MOST_CHANGES).limit(1)
    user_id = session.scalar(many)
    if user_id is None:
        return 0
    some = select(StorageChange.id).where(StorageChange.user_id == user_id).order_by(StorageChange.id)
    locked = some.limit(COMPACTED_AT_ONCE).with_for_update(skip_locked=True)
    gone = delete(StorageChange).where(StorageChange.id.in_(locked)).returning(StorageChange.stored_bytes)
    changes = list(session.scalars(gone.execution_options(synchronize_session=False)))
    if changes:
        session.add(StorageChange(user_id=user_id, stored_bytes=sum(changes)))
    return len(changes)
