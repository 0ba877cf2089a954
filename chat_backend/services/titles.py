"""Name chat sessions that nobody has named."""

from __future__ import annotations

from sqlalchemy import select

from chat_backend.domain import titles
from chat_backend.domain.enums import Role, Titles
from chat_backend.models import ChatSession, Message
from chat_backend.protocol.events import Happening
from chat_backend.services.chat_sessions import touch
from chat_backend.unit_of_work import UnitOfWork


def name(uow: UnitOfWork, chat: ChatSession, how: str) -> None:
    """Give a title to a chat session that has none. The caller holds its lock, so nobody's title is overwritten."""
    if how == Titles.WORDS:
        give(uow, chat)


def give(uow: UnitOfWork, chat: ChatSession, title: str | None = None) -> None:
    """Set a title, or the first words of the first message, unless there is one, and tell everyone."""
    if chat.title is not None:
        return
    if title is None:
        first = select(Message.content).where(Message.session_id == chat.id, Message.role == Role.USER)
        title = titles.from_words(uow.session.scalar(first.order_by(Message.seq).limit(1)) or "")
    if title is not None:
        chat.title = title
        touch(chat)
        uow.tell(chat, Happening.session(chat))
