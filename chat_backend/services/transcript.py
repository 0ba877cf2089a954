"""Write to the transcript: the one place that gives out seq and creation times."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from chat_backend.domain.enums import MessageStatus, is_finished
from chat_backend.domain.user import User
from chat_backend.models import ChatSession, Message
from chat_backend.models.base import new_id, now
from chat_backend.unit_of_work import UnitOfWork

_TICK = timedelta(microseconds=1)


def add_message(uow: UnitOfWork, chat: ChatSession, user: User, *, content: str, **fields: Any) -> Message:
    """Append a message, charged to the user's storage quota; the caller holds the chat session's lock and tells of it.

    A reply is charged when it is finished; here only that its user has storage left is checked.
    seq has no holes, and created_at strictly increases with it, whatever the clocks do.
    """
    at = max(now(), chat.last_message_at + _TICK)
    chat.last_seq += 1
    chat.message_count += 1
    chat.last_message_at = at
    chat.updated_at = max(at, chat.updated_at)
    values: dict[str, Any] = {"status": MessageStatus.COMPLETE, "attempt": 0, "tokens_used": 0}
    values |= {"id": new_id(), "session_id": chat.id, "seq": chat.last_seq, "created_at": at, "updated_at": at}
    message = Message(content=content, storage_user_id=user.id, **(values | fields))
    uow.session.add(message)
    uow.charge_storage(user.id, message.stored_bytes if is_finished(message.status) else 0)
    return message
