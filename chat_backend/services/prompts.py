"""Put a prompt together, when its job starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from uuid import UUID

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from chat_backend.domain import summary, thoughts, tokens
from chat_backend.domain.enums import MessageStatus, Role
from chat_backend.domain.prompt import Turn, alternating
from chat_backend.models import ChatSession, LlmJob, Message
from chat_backend.services import summaries

_BATCH = 100
_SUMMED_UP = "What was said before, summed up:"


@dataclass(frozen=True)
class Outside:
    """What no longer fits: the prompt that asks for its summary, and up to which seq that goes."""

    turns: tuple[Turn, ...]
    covers: int
    most_tokens: int


@dataclass(frozen=True)
class Prompt:
    """What is sent, and what should be summed up before."""

    turns: tuple[Turn, ...]
    outside: Outside | None = None


@dataclass(frozen=True)
class _Group:
    """A question, or another message, with its chosen reply: they stay and fall out together."""

    seq: int
    turns: tuple[Turn, ...]


_Costed = tuple[_Group, int]


def put_together(
    session: Session, chat: ChatSession, question: Message, *, budget: int, summed_up: bool = False
) -> Prompt:
    """Return the system prompt and the newest turns up to the question that fit.

    Each earlier question brings its chosen reply along, and falls out together with it. The question itself is
    always sent. With `summed_up`, a summary stands for what it covers, and what falls out should be summed up.
    """
    known = summaries.newest(session, chat.id, before=question.seq) if summed_up else None
    summed = known.content if known else None
    head = _head(chat, summed)
    groups = _costed(_newest_first(session, question, after=known.covered_seq if known else 0))
    chosen, rest = tokens.newest_that_fit(groups, budget - tokens.estimate_turns(head))
    turns = alternating((*head, *_in_order(chosen)))
    first_out = next(rest, None) if summed_up else None
    if first_out is None:
        return Prompt(turns)
    told = tokens.estimate_turns(_head(chat, None))
    return Prompt(turns, _outside(chosen, chain([first_out], rest), summed, budget=budget, told=told))


def _head(chat: ChatSession, summed: str | None) -> list[Turn]:
    # One turn: some models take the system's word only at the very beginning.
    told = (chat.settings.get("system_prompt"), summed and f"{_SUMMED_UP}\n{summed}")
    text = "\n\n".join(part for part in told if part)
    return [Turn(Role.SYSTEM, text)] if text else []


def _outside(chosen: list[_Group], rest: Iterator[_Costed], summed: str | None, *, budget: int, told: int) -> Outside:
    """Decide what to sum up: all but the newest half, so that the summary serves for many turns.

    Half of what is left for turns beside the summary and what the session's owner has told the model.
    """
    most_tokens = summary.size(budget)
    _, leaving = tokens.newest_that_fit(_costed(chosen), (budget - told - most_tokens) // 2)
    room = budget - most_tokens
    outside, _ = tokens.newest_that_fit(chain(leaving, rest), summary.FACTOR * room)
    turns = summary.task(summed, _in_order(outside), most_tokens=most_tokens, budget=room)
    return Outside(turns, covers=outside[0].seq, most_tokens=most_tokens)


def _costed(groups: Iterable[_Group]) -> Iterator[_Costed]:
    return ((group, tokens.estimate_turns(group.turns)) for group in groups)


def _in_order(newest_first: list[_Group]) -> tuple[Turn, ...]:
    return tuple(turn for group in reversed(newest_first) for turn in group.turns)


def _newest_first(session: Session, question: Message, *, after: int) -> Iterator[_Group]:
    yield _Group(question.seq, (_turn(question),))
    edge = question.seq
    while edge > after + 1 and (batch := _earlier(session, question, edge, after)):
        replies = _chosen_replies(session, [message.id for message in batch])
        for message in batch:
            reply = replies.get(message.id)
            yield _Group(message.seq, (_turn(message), _turn(reply)) if reply else (_turn(message),))
        edge = batch[-1].seq


def _turn(message: Message) -> Turn:
    # Replies stored by older versions may begin with reasoning.
    content = thoughts.answer_in(message.content) if message.role == Role.ASSISTANT else message.content
    return Turn(str(message.role), content)


def _earlier(session: Session, question: Message, edge: int, after: int) -> list[Message]:
    query = select(Message).where(
        Message.session_id == question.session_id,
        Message.seq < edge,
        Message.seq > after,
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
