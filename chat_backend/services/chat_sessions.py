"""Chat sessions: make, list, change, delete."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from chat_backend.domain.enums import AuditAction, ParticipantRole
from chat_backend.domain.errors import Conflict, ErrorCode
from chat_backend.domain.user import User
from chat_backend.models import ChatSession, LlmJob, Message, Participant, Ticket
from chat_backend.models.base import now
from chat_backend.models.llm_job import UNFINISHED
from chat_backend.models.text_search import contains_folded
from chat_backend.protocol.events import Happening
from chat_backend.services import housekeeping, idempotency, llm_jobs, quotas
from chat_backend.services.access import OWN, READ, enter, no_such
from chat_backend.services.idempotency import Intent
from chat_backend.services.paging import Page, fetch, read_id, row_bytes
from chat_backend.unit_of_work import UnitOfWork

_SIZE = row_bytes(ChatSession.title, ChatSession.settings)


def make(
    uow: UnitOfWork, user: User, *, intent: Intent | None = None, most: int = 0, **fields: Any
) -> tuple[ChatSession, bool]:
    """Make a chat session owned by the user; return it and whether it had been made before under this key.

    Raises Conflict where the user owns as many as may be (0: any number); those made at the same moment may be a
    few more.
    """
    if made := idempotency.begin(uow, user, intent):
        if made.session_id is None:
            raise no_such("chat session")
        return enter(uow.session, made.session_id, user, to=READ), True
    if most and _owns(uow.session, user, at_least=most):
        message = f"You own {most} chat sessions, which is the limit: delete one first."
        raise Conflict(message, code=ErrorCode.TOO_MANY_SESSIONS)
    chat = ChatSession.new(user.id, **fields)
    owner = Participant(session_id=chat.id, user_id=user.id, role=ParticipantRole.OWNER, created_at=chat.created_at)
    uow.session.add(chat)
    uow.session.flush()
    uow.session.add(owner)
    uow.record(chat, AuditAction.SESSION_CREATED, user)
    idempotency.made(uow, user, intent, session_id=chat.id)
    return chat, False


def _owns(session: Session, user: User, *, at_least: int) -> bool:
    mine = select(ChatSession.id).where(ChatSession.user_id == user.id, ChatSession.deleted_at.is_(None))
    return session.scalar(mine.offset(at_least - 1).limit(1)) is not None


def show(session: Session, session_id: UUID, user: User) -> ChatSession:
    """Return a chat session to a participant."""
    return enter(session, session_id, user, to=READ)


def page(session: Session, user: User, asked: Page, *, title: str | None = None, **filters: Any) -> dict[str, Any]:
    """Return one page of the chat sessions the user takes part in, in the order they were made."""
    conditions = [Participant.user_id == user.id]
    conditions += [getattr(ChatSession, name) == value for name, value in filters.items()]
    if title is not None:
        conditions.append(contains_folded(ChatSession.title, title))
    mine = select(ChatSession).join(Participant, Participant.session_id == ChatSession.id).where(*conditions)
    # Ids are made in time order, so the index on (user, session) is the order of creation too.
    column = Participant.session_id
    query = mine
    if asked.after is not None:
        last = read_id(asked.after)
        query = query.where(column < last if asked.descending else column > last)
    else:
        query = query.offset(asked.skipped)
    shown, has_more = fetch(session, query, asked, by=column, size=_SIZE)
    total = session.scalar(select(func.count()).select_from(mine.subquery()))
    return {
        "sessions": shown,
        "total_count": total,
        "page": asked.number,
        "page_size": asked.size,
        "has_more": has_more,
        "next_cursor": asked.cursor(shown[-1].id) if has_more else None,
    }


def change(uow: UnitOfWork, session_id: UUID, user: User, **fields: Any) -> ChatSession:
    """Change what is given; everyone in the session is told."""
    chat = enter(uow.session, session_id, user, to=OWN, lock=True)
    for name, value in fields.items():
        setattr(chat, name, value)
    touch(chat)
    uow.tell(chat, Happening.session(chat, user_id=user.id))
    uow.record(chat, AuditAction.SESSION_CHANGED, user, fields=sorted(fields))
    return chat


def touch(chat: ChatSession) -> None:
    """Note that something in the chat session changed."""
    chat.updated_at = max(now(), chat.updated_at)


def remove(uow: UnitOfWork, session_id: UUID, user: User, *, seconds: float = housekeeping.PORTION_SECONDS) -> None:
    """Delete a chat session: nobody finds it or anything of it any more, jobs stop, connections close.

    Its rows may be many: what takes longer to delete than `seconds` is left to workers.
    """
    chat = enter(uow.session, session_id, user, to=OWN, lock=True)
    _delete_unfinished_jobs(uow, chat, user)
    # Every lookup goes through the participants, that of older code too.
    for kind in (Participant, Ticket):
        uow.session.execute(delete(kind).where(kind.session_id == chat.id))
    chat.deleted_at = now()
    uow.session.flush()
    housekeeping.delete_portion(uow, chat.id, seconds=seconds)
    uow.close(session_id, user)


def _delete_unfinished_jobs(uow: UnitOfWork, chat: ChatSession, user: User) -> None:
    jobs = llm_jobs.lock_unfinished(uow.session, chat.id, llm_jobs.unfinished(uow.session, chat.id))
    quotas.hold_days(uow.session, user.id, jobs)
    for job in jobs:
        uow.cancel(job.id)
        text = select(Message.content).where(Message.id == job.assistant_message_id)
        quotas.settle(uow.session, job, uow.session.scalar(text) or "")
    uow.session.flush()
    # Not marked as cancelled: a worker that finds no job stops, whatever version it is of.
    uow.session.execute(
        delete(LlmJob).where(LlmJob.session_id == chat.id, UNFINISHED).execution_options(synchronize_session=False)
    )
