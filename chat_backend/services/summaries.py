"""Summaries of what no longer fits a prompt: kept, gone on from, and forgotten when what they tell of changes."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import delete, exists, or_, select
from sqlalchemy.orm import Session, aliased

from chat_backend.domain.enums import Action, Outcome, Purpose
from chat_backend.models import ChatSession, ContextSummary, LlmAttempt, LlmJob, Message, SessionEvent
from chat_backend.models.base import now
from chat_backend.models.llm_job import UNFINISHED

LEFT_ALONE_TURNS = 10


def newest(session: Session, session_id: UUID, *, before: int) -> ContextSummary | None:
    """Return the summary that covers most of what is before a seq."""
    query = select(ContextSummary).where(ContextSummary.session_id == session_id, ContextSummary.covered_seq < before)
    return session.scalar(query.order_by(ContextSummary.covered_seq.desc()).limit(1))


def left_alone(session: Session, job: LlmJob) -> bool:
    """Tell whether a summary came to nothing of late, in this job or within the session's last turns.

    Whoever failed at it would most likely fail again, and everyone in the session would wait for it once more.
    """
    # A turn is two messages: the question and the reply, whose seq is its job's position.
    near = LlmJob.position > job.position - 2 * LEFT_ALONE_TURNS
    failed = (LlmAttempt.purpose == Purpose.SUMMARY) & (LlmAttempt.outcome == Outcome.FAILED)
    query = select(LlmAttempt.number).join(LlmJob, LlmJob.id == LlmAttempt.job_id)
    return session.scalar(query.where(LlmJob.session_id == job.session_id, near, failed).limit(1)) is not None


def keep(session: Session, chat: ChatSession, job_id: UUID, content: str, *, covers: int, as_of: int) -> None:
    """Store a summary of everything up to a seq, unless some of that has changed since the offset it was begun at."""
    if not _changed(session, chat.id, job_id, covers=covers, as_of=as_of):
        session.add(
            ContextSummary(session_id=chat.id, covered_seq=covers, content=content, job_id=job_id, created_at=now())
        )
        session.flush()


def _changed(session: Session, session_id: UUID, job_id: UUID, *, covers: int, as_of: int) -> bool:
    # A reply is covered with its question.
    question = aliased(Message)
    answers = (LlmJob.assistant_message_id == Message.id, LlmJob.message_id == question.id, question.seq <= covers)
    edited = exists().where(
        SessionEvent.session_id == session_id,
        SessionEvent.offset > as_of,
        SessionEvent.action == Action.UPDATED,
        SessionEvent.message_id == Message.id,
        or_(Message.seq <= covers, exists().where(*answers).correlate(Message)),
    )
    # An old question that is asked anew will have another reply than the one that was summed up.
    asked_anew = exists().where(
        LlmJob.session_id == session_id,
        UNFINISHED,
        LlmJob.id != job_id,
        LlmJob.message_id == Message.id,
        Message.seq <= covers,
    )
    return bool(session.scalar(select(edited | asked_anew)))


def forget(session: Session, session_id: UUID, *, from_seq: int) -> None:
    """Delete what covers a message: it has changed, or will have another reply."""
    session.execute(
        delete(ContextSummary)
        .where(ContextSummary.session_id == session_id, ContextSummary.covered_seq >= from_seq)
        .execution_options(synchronize_session=False)
    )


def forget_message(session: Session, message: Message) -> None:
    """Delete what covers a message; a reply is covered with its question."""
    question = select(Message.seq).join(LlmJob, LlmJob.message_id == Message.id)
    seq = session.scalar(question.where(LlmJob.id == message.job_id)) if message.job_id else message.seq
    if seq is not None:
        forget(session, message.session_id, from_seq=seq)
