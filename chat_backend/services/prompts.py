"""Put a prompt together, when its job starts."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from chat_backend.domain import tokens
from chat_backend.domain.enums import MessageStatus, Role
from chat_backend.domain.prompt import Turn
from chat_backend.models import ChatSession, LlmJob, Message

_BATCH = 100


def turns(session: Session, chat: ChatSession, question: Message, *, budget: int) -> tuple[Turn, ...]:
    """Return the system prompt and the newest turns up to the question that fit.

    Each earlier question brings its chosen reply along, and falls out together with it. The question
    itself is always sent.
    """
    system = [Turn(Role.SYSTEM, text) for text in [chat.settings.get("system_prompt")] if text]
    budget -= tokens.estimate_turns(system)
    groups = ((group, tokens.estimate_turns(group)) for group in _newest_first(session, question))
    chosen = list(tokens.newest_that_fit(groups, budget))
    return (*system, *(turn for group in reversed(chosen) for turn in group))


def _newest_first(session: Session, question: Message) -> Iterator[list[Turn]]:
    yield [_turn(question)]
    edge = question.seq
    while edge > 1 and (batch := _earlier(session, question, edge)):
        replies = _chosen_replies(session, [message.id for message in batch])
        for message in batch:
            reply = replies.get(message.id)
            yield [_turn(message)] + ([_turn(reply)] if reply else [])
        edge = batch[-1].seq


def _turn(message: Message) -> Turn:
    return Turn(message.role.value, message.content)


def _earlier(session: Session, question: Message, edge: int) -> list[Message]:
    query = select(Message).where(
        Message.session_id == question.session_id,
        Message.seq < edge,
        Message.role.in_([Role.USER, Role.SYSTEM]),
    )
    return list(session.scalars(query.order_by(Message.seq.desc()).limit(_BATCH)))


def _chosen_replies(session: Session, question_ids: list[UUID]) -> dict[UUID, Message]:
    """Return for each question the newest complete reply, else the newest cancelled one that has text."""
    usable = or_(
        Message.status == MessageStatus.COMPLETE,
        and_(Message.status == MessageStatus.CANCELLED, Message.content != ""),
    )
    query = (
        select(LlmJob.message_id, Message)
        .join(Message, Message.id == LlmJob.assistant_message_id)
        .where(LlmJob.message_id.in_(question_ids), usable)
        .order_by(Message.seq)
    )
    chosen: dict[UUID, Message] = {}
    for question_id, reply in session.execute(query):
        known = chosen.get(question_id)
        if known is None or reply.status == MessageStatus.COMPLETE or known.status == MessageStatus.CANCELLED:
            chosen[question_id] = reply
    return chosen
