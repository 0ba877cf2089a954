"""What must hold over the whole database, whatever died in between; for operators, and after every test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, case, exists, func, or_, select
from sqlalchemy.orm import Session

from chat_backend.domain.enums import ENDED_JOB, UNFINISHED_REPLY, JobStatus, MessageStatus, Purpose
from chat_backend.models import ChatSession, LlmAttempt, LlmJob, Message, SessionEvent, StorageChange
from chat_backend.models.base import database_clock, now
from chat_backend.models.llm_job import MUST_WAIT, QUEUED, RUNNING, UNFINISHED
from chat_backend.models.message import STORAGE_IS_CHARGED, STORED_BYTES
from chat_backend.services import model_titles

EXAMPLES = 5
_HAS_ENDED = LlmJob.status.in_(ENDED_JOB)
# Of what a newer release has stored only that release can tell whether it is right.
_KNOWN = and_(LlmJob.status.in_(list(JobStatus)), Message.status.in_(list(MessageStatus)))
# Of deleted chat sessions some rows are gone already.
_HERE = ChatSession.deleted_at.is_(None)
_DELETED = select(ChatSession.id).where(~_HERE)
_END_OF = {
    JobStatus.SUCCEEDED: MessageStatus.COMPLETE,
    JobStatus.FAILED: MessageStatus.FAILED,
    JobStatus.CANCELLED: MessageStatus.CANCELLED,
}


@dataclass(frozen=True)
class Finding:
    """How often something was found, and the first few: ids of jobs, messages, chat sessions or users."""

    name: str
    meaning: str
    count: int
    examples: tuple[UUID | str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """What was found: violations, which must be none, the state of the queue, and what is still to be deleted."""

    violations: list[Finding]
    load: dict[str, int]
    deleted_sessions: int = 0

    @property
    def healthy(self) -> bool:
        return not any(finding.count for finding in self.violations)


def examine(session: Session, *, patience_seconds: float) -> Diagnosis:
    """Count what must not be. `patience_seconds`: how long workers may take to find what was forgotten."""
    violations = [
        _finding(session, name, meaning, query(patience_seconds)) for name, (meaning, query) in _RULES.items()
    ]
    deleted = session.scalar(select(func.count()).select_from(ChatSession).where(~_HERE)) or 0
    return Diagnosis(violations, load(session), deleted)


def queue_state(session: Session, *, patience_seconds: float) -> dict[str, int]:
    """Return the load and what of it nobody looks after: cheap enough to be asked at any time."""

    def count(query: Select[UUID]) -> int:
        return session.scalar(select(func.count()).select_from(query.subquery())) or 0

    forgotten = {"orphans": _orphans(patience_seconds), "overdue_leases": _overdue_leases(patience_seconds)}
    return load(session) | {name: count(query) for name, query in forgotten.items()}


def load(session: Session) -> dict[str, int]:
    """Count the jobs that wait, that run, and that back off before a retry."""
    later = and_(QUEUED, LlmJob.not_before > database_clock())
    columns = (_number(QUEUED), _number(RUNNING), _number(later))
    row = session.execute(select(*columns).where(UNFINISHED)).one()
    return dict(zip(("queued", "running", "backing_off"), (int(n or 0) for n in row), strict=True))


def _number(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))


def _finding(session: Session, name: str, meaning: str, query: Select[Any]) -> Finding:
    count = session.scalar(select(func.count()).select_from(query.subquery())) or 0
    examples = tuple(session.scalars(query.limit(EXAMPLES))) if count else ()
    return Finding(name, meaning, count, examples)


def _orphans(patience_seconds: float) -> Select[UUID]:
    due = LlmJob.not_before < database_clock() - patience_seconds
    return select(LlmJob.id).where(QUEUED, due, ~MUST_WAIT)


def _overdue_leases(patience_seconds: float) -> Select[UUID]:
    overdue = LlmJob.lease_until < database_clock() - patience_seconds
    return select(LlmJob.id).where(RUNNING, overdue)


def _lost_reservations(patience_seconds: float) -> Select[UUID]:
    return select(LlmJob.id).where(LlmJob.reserved_prompt_tokens.is_not(None), _HAS_ENDED)


def _offset_gaps(patience_seconds: float) -> Select[UUID]:
    oldest, newest = func.min(SessionEvent.offset), func.max(SessionEvent.offset)
    kept = (
        select(SessionEvent.session_id, oldest.label("oldest"), newest.label("newest"), func.count().label("count"))
        .group_by(SessionEvent.session_id)
        .subquery()
    )
    whole = and_(kept.c.newest == ChatSession.last_offset, kept.c.count == kept.c.newest - kept.c.oldest + 1)
    return (
        select(ChatSession.id)
        .outerjoin(kept, kept.c.session_id == ChatSession.id)
        .where(_HERE, ChatSession.last_offset > 0, or_(kept.c.count.is_(None), ~whole))
    )


def _lost_subjects(patience_seconds: float) -> Select[UUID]:
    message_gone = and_(SessionEvent.message_id.is_not(None), ~exists().where(Message.id == SessionEvent.message_id))
    job_gone = and_(SessionEvent.job_id.is_not(None), ~exists().where(LlmJob.id == SessionEvent.job_id))
    return select(SessionEvent.session_id).where(or_(message_gone, job_gone))


def _seq_holes(patience_seconds: float) -> Select[UUID]:
    return _counted_messages(lambda count, newest: or_(newest != ChatSession.last_seq, count != ChatSession.last_seq))


def _miscounts(patience_seconds: float) -> Select[UUID]:
    return _counted_messages(lambda count, newest: count != ChatSession.message_count)


Condition = Callable[[ColumnElement[int], ColumnElement[int]], ColumnElement[bool]]


def _counted_messages(wrong: Condition) -> Select[UUID]:
    stored = (
        select(Message.session_id, func.count().label("count"), func.max(Message.seq).label("newest"))
        .group_by(Message.session_id)
        .subquery()
    )
    count, newest = func.coalesce(stored.c.count, 0), func.coalesce(stored.c.newest, 0)
    joined = select(ChatSession.id).outerjoin(stored, stored.c.session_id == ChatSession.id)
    return joined.where(_HERE, wrong(count, newest))


def _replies_without_job(patience_seconds: float) -> Select[UUID]:
    job = exists().where(LlmJob.assistant_message_id == Message.id, ~_HAS_ENDED)
    is_deleted = Message.session_id.in_(_DELETED)
    return select(Message.id).where(Message.status.in_(UNFINISHED_REPLY), ~job, ~is_deleted)


def _mismatched_ends(patience_seconds: float) -> Select[UUID]:
    agrees = or_(
        and_(UNFINISHED, Message.status.in_(UNFINISHED_REPLY)),
        *(and_(LlmJob.status == job, Message.status == message) for job, message in _END_OF.items()),
    )
    return select(LlmJob.id).join(Message, Message.id == LlmJob.assistant_message_id).where(_KNOWN, ~agrees)


def _doubled_replies(patience_seconds: float) -> Select[UUID]:
    other = exists().where(Message.job_id == LlmJob.id, Message.id != LlmJob.assistant_message_id)
    return select(LlmJob.id).where(other)


def _open_attempts(patience_seconds: float) -> Select[UUID]:
    current = and_(RUNNING, LlmAttempt.number == LlmJob.attempt)
    # A title is asked for when its job has ended; one that was lost is found by the housekeeping.
    since = now() - timedelta(seconds=2 * model_titles.LOST_SECONDS + patience_seconds)
    named = and_(LlmAttempt.purpose == Purpose.TITLE, LlmAttempt.started_at > since)
    known = and_(LlmJob.status.in_(list(JobStatus)), LlmAttempt.purpose.in_(list(Purpose)))
    is_deleted = LlmJob.session_id.in_(_DELETED)
    open_here = (known, LlmAttempt.outcome.is_(None), ~current, ~named, ~is_deleted)
    return select(LlmJob.id).join(LlmAttempt).where(*open_here)


def _miscounted_attempts(patience_seconds: float) -> Select[UUID]:
    number = select(func.count()).where(LlmAttempt.job_id == LlmJob.id).scalar_subquery()
    return select(LlmJob.id).where(number != LlmJob.attempt)


def _wrong_storage(patience_seconds: float) -> Select[str]:
    stored = (
        select(Message.storage_user_id.label("user_id"), func.sum(STORED_BYTES).label("stored_bytes"))
        .where(STORAGE_IS_CHARGED)
        .group_by(Message.storage_user_id)
        .subquery()
    )
    counted = (
        select(StorageChange.user_id, func.sum(StorageChange.stored_bytes).label("stored_bytes"))
        .group_by(StorageChange.user_id)
        .subquery()
    )
    # Not a full outer join: SQLite has it only since 3.39.
    differs = func.coalesce(counted.c.stored_bytes, 0) != func.coalesce(stored.c.stored_bytes, 0)
    same_user = counted.c.user_id == stored.c.user_id
    found = (
        select(counted.c.user_id)
        .outerjoin(stored, same_user)
        .where(differs)
        .union(select(stored.c.user_id).outerjoin(counted, same_user).where(differs))
        .subquery()
    )
    return select(found.c.user_id)


_RULES: dict[str, tuple[str, Callable[[float], Select[Any]]]] = {
    "orphans": ("jobs that are due and that no worker has claimed", _orphans),
    "overdue_leases": ("running jobs whose worker is gone and that no other has taken over", _overdue_leases),
    "replies_without_job": ("unfinished replies that no unfinished job writes", _replies_without_job),
    "mismatched_ends": ("jobs whose state and whose reply's state differ", _mismatched_ends),
    "doubled_replies": ("jobs with more than their one reply", _doubled_replies),
    "open_attempts": ("attempts without an outcome that nobody works at", _open_attempts),
    "miscounted_attempts": ("jobs whose attempts are not numbered 1, 2, 3 ...", _miscounted_attempts),
    "lost_reservations": ("finished jobs that still hold some of their user's quota", _lost_reservations),
    "offset_gaps": ("chat sessions whose log has a hole", _offset_gaps),
    "lost_subjects": ("events whose message or job is gone; viewers are shown none of them", _lost_subjects),
    "seq_holes": ("chat sessions whose messages are not numbered 1, 2, 3 ...", _seq_holes),
    "wrong_storage": ("users whose storage count differs from what their messages take", _wrong_storage),
    "miscounts": ("chat sessions whose message_count is wrong", _miscounts),
}
