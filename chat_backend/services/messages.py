"""Messages: send, list, change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from chat_backend.domain import limits
from chat_backend.domain.cursor import Cursor
from chat_backend.domain.enums import Action, AuditAction, Role, is_finished
from chat_backend.domain.errors import Conflict, ErrorCode, Forbidden, InvalidInput
from chat_backend.domain.prompt import OPTIONS
from chat_backend.domain.quota import Quota
from chat_backend.domain.user import User
from chat_backend.models import ChatSession, LlmJob, Message
from chat_backend.models.base import now
from chat_backend.protocol.events import Happening
from chat_backend.services import events, idempotency, llm_jobs, summaries
from chat_backend.services.access import OWN, READ, WRITE, enter, let_in, no_such, session_of
from chat_backend.services.chat_sessions import touch
from chat_backend.services.idempotency import Intent
from chat_backend.services.paging import Page, bad_cursor, fetch, row_bytes
from chat_backend.services.transcript import add_message
from chat_backend.unit_of_work import UnitOfWork

_SIZE = row_bytes(Message.content, Message.message_metadata, Message.error_message)
_SENT = ("content", "role", "metadata", "process", "on_busy", "parent_message_id")


@dataclass(frozen=True)
class Sent:
    """A stored message, the job of the reply that was asked for, and whether this was known before."""

    message: Message
    job: LlmJob | None = None
    replayed: bool = False


def send_intent(key: str, fields: Mapping[str, Any], *, kept_seconds: float) -> Intent:
    """Return the intent to send a message under a key: the same for REST and socket.

    Raises MalformedRequest for a key that is none.
    """
    payload = {name: fields.get(name) for name in _SENT} | {name: fields[name] for name in OPTIONS if name in fields}
    return Intent.of(key, "send_message", payload, kept_seconds=kept_seconds)


def send(
    uow: UnitOfWork,
    session_id: UUID,
    user: User,
    *,
    content: str,
    role: str = Role.USER,
    metadata: dict[str, Any] | None = None,
    parent_message_id: UUID | None = None,
    process: bool = False,
    on_busy: str | None = None,
    intent: Intent | None = None,
    request_id: str | None = None,
    fallbacks: tuple[str, ...] = (),
    quota: Quota = llm_jobs.NO_QUOTA,
    **options: Any,
) -> Sent:
    """Store a message and tell everyone; with process, ask for its reply, written by the options, in the same
    transaction.
    """
    chat = enter(uow.session, session_id, user, to=OWN if role == Role.SYSTEM else WRITE, lock=True)
    if made := idempotency.begin(uow, user, intent, scope=chat.id):
        return _made_before(uow, made)
    if process and role != Role.USER:
        raise InvalidInput("Only a user's message can be answered.", field="process")
    _check_parent(uow, chat, parent_message_id)
    message = add_message(
        uow,
        chat,
        user,
        role=Role(role),
        user_id=user.id,
        content=content,
        message_metadata=metadata or {},
        parent_message_id=parent_message_id,
    )
    uow.tell(chat, Happening.message(Action.NEW_MESSAGE, message, user_id=user.id, request_id=request_id))
    uow.record(chat, AuditAction.MESSAGE_SENT, user, message_id=message.id)
    job = None
    if process:
        how: dict[str, Any] = {"options": options, "fallbacks": fallbacks, "quota": quota}
        job = llm_jobs.ask(uow, chat, message, user, on_busy=on_busy, **how)
    idempotency.made(uow, user, intent, scope=chat.id, message_id=message.id, job_id=job.id if job else None)
    return Sent(message, job)


def _made_before(uow: UnitOfWork, made: Any) -> Sent:
    message = uow.session.get(Message, made.message_id) if made.message_id else None
    if message is None:
        raise no_such("message")
    return Sent(message, llm_jobs.find(uow.session, made.job_id) if made.job_id else None, replayed=True)


def _check_parent(uow: UnitOfWork, chat: ChatSession, parent_id: UUID | None) -> None:
    if parent_id is None:
        return
    found = uow.session.scalar(select(Message.id).where(Message.id == parent_id, Message.session_id == chat.id))
    if found is None:
        raise InvalidInput("There is no such message in this chat session.", field="parent_message_id")


def show(session: Session, message_id: UUID, user: User) -> Message:
    """Return a message to a participant of its chat session."""
    session_of(session, Message, message_id, user)
    message = session.get(Message, message_id)
    if message is None:
        raise no_such("message")
    return message


def page(session: Session, session_id: UUID, user: User, asked: Page, *, before: datetime | None) -> dict[str, Any]:
    """Return one page of the messages, in the order of seq, and the offset it is current to."""
    chat = enter(session, session_id, user, to=READ)
    # The offset is read before the messages: an event between the two is shown twice, never missed.
    offset, count = chat.last_offset, chat.message_count
    shown, has_more = _before(session, chat, asked, before) if before else _numbered(session, chat, asked)
    return {
        "messages": shown,
        "session_id": chat.id,
        "offset": offset,
        "cursor": str(Cursor(offset, events.tag_at(session, chat.id, offset))),
        "total_count": count,
        "page": 1 if before else asked.number,
        "page_size": asked.size,
        "has_more": has_more,
        "next_cursor": asked.cursor(shown[-1].seq) if has_more and not before else None,
    }


def _before(session: Session, chat: ChatSession, asked: Page, before: datetime) -> tuple[list[Message], bool]:
    query = _of(chat).where(Message.created_at < before)
    found, has_more = fetch(session, query, asked, by=Message.created_at, size=_SIZE, descending=True)
    return found[::-1], has_more


def _numbered(session: Session, chat: ChatSession, asked: Page) -> tuple[list[Message], bool]:
    # seq has no holes, so where a page begins is known without counting through those before it.
    if asked.after is not None:
        edge = _seq(asked.after)
    else:
        edge = chat.last_seq + 1 - asked.skipped if asked.descending else asked.skipped
    query = _of(chat).where(Message.seq < edge if asked.descending else Message.seq > edge)
    return fetch(session, query, asked, by=Message.seq, size=_SIZE)


def _seq(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > limits.MAX_COUNT:
        raise bad_cursor()
    return int(text)


def _of(chat: ChatSession) -> Select[Message]:
    return select(Message).where(Message.session_id == chat.id)


def change(uow: UnitOfWork, message_id: UUID, user: User, **fields: Any) -> Message:
    """Change what is given. Nothing is asked again, and counts given here are shown, never counted."""
    session_id = session_of(uow.session, Message, message_id, user)
    chat = enter(uow.session, session_id, user, to=WRITE, lock=True)
    message = uow.session.get(Message, message_id, populate_existing=True)
    if message is None or message.session_id != chat.id:
        raise no_such("message")
    if message.user_id != user.id and let_in(uow.session, session_id, user)[1] != "owner":
        raise Forbidden("Only its author and the owner may change a message.")
    if not is_finished(message.status):
        raise Conflict("The reply is still being written.", code=ErrorCode.MESSAGE_BUSY)
    _check_length(message, fields.get("content"))
    changed = sorted(fields)
    if message.storage_user_id is not None:
        uow.charge_storage(message.storage_user_id, -message.stored_bytes, check=False)
    if "content" in fields:
        summaries.forget_message(uow.session, message)
    _apply(message, fields)
    message.storage_user_id = user.id
    uow.charge_storage(user.id, message.stored_bytes)
    touch(chat)
    uow.tell(chat, Happening.message(Action.UPDATED, message, user_id=user.id))
    uow.record(chat, AuditAction.MESSAGE_CHANGED, user, message_id=message.id, fields=changed)
    return message


def _check_length(message: Message, content: str | None) -> None:
    limit = limits.REPLY_CHARACTERS if message.is_reply else limits.CONTENT_CHARACTERS
    if content is not None and len(content) > limit:
        raise InvalidInput(f"Longer than {limit} characters.", field="content")


def _apply(message: Message, fields: dict[str, Any]) -> None:
    fields.pop("is_streaming", None)  # false is what a finished message says already
    for name, value in fields.items():
        setattr(message, "message_metadata" if name == "metadata" else name, value)
    message.updated_at = max(now(), message.updated_at)
