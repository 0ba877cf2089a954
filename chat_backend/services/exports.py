"""Chat sessions whole, for an operator to take elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from chat_backend.models import ChatSession, Message, Participant
from chat_backend.protocol.events import message_shape, session_shape

_BATCH = 500


def sessions_of(session: Session, user_id: str | None) -> list[UUID]:
    """Return the ids of the chat sessions a user takes part in, or of all, in the order they were made."""
    query = select(ChatSession.id).where(ChatSession.deleted_at.is_(None)).order_by(ChatSession.id)
    if user_id is not None:
        mine = select(Participant.session_id).where(Participant.user_id == user_id)
        query = query.where(ChatSession.id.in_(mine))
    return list(session.scalars(query))


def export(session: Session, session_id: UUID) -> dict[str, Any] | None:
    """Return a chat session as REST shows it, with its participants; None where there is none."""
    chat = session.get(ChatSession, session_id)
    if chat is None or chat.deleted_at is not None:
        return None
    query = select(Participant).where(Participant.session_id == session_id).order_by(Participant.created_at)
    people = [{"user_id": person.user_id, "role": person.role} for person in session.scalars(query)]
    return session_shape(chat) | {"participants": people}


def messages_of(session: Session, session_id: UUID) -> Iterator[dict[str, Any]]:
    """Yield every message of a chat session as REST shows it, in order, a few at a time."""
    edge = 0
    while True:
        query = select(Message).where(Message.session_id == session_id, Message.seq > edge)
        batch = list(session.scalars(query.order_by(Message.seq).limit(_BATCH)))
        if not batch:
            return
        edge = batch[-1].seq
        yield from map(message_shape, batch)
        session.expunge_all()
