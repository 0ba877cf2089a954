"""What a worker does for all of its jobs at once: heartbeat, checkpoint, and finding what was forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, exists, func, select, text, update
from sqlalchemy.orm import Session

from chat_backend.models import LlmJob, Message
from chat_backend.models.base import database_clock
from chat_backend.models.llm_job import DUE, LOST, RUNNING, USER_IS_SERVED

# More than a worker has places to give at once.
LOOKED_AT = 500


@dataclass(frozen=True)
class Held:
    """A job that a worker holds by the database's word."""

    job_id: UUID
    attempt: int
    cancel_requested: bool


def renew(session: Session, worker: str, job_ids: Collection[UUID], *, lease_seconds: float) -> None:
    """Renew a worker's leases on the jobs it has in hand.

    A job that it holds and has lost from its hands (a commit that nobody heard of) is left to run out.
    """
    mine = _mine(worker, job_ids)
    # A row that is locked is being written by its own end: it is skipped rather than waited for.
    unlocked = select(LlmJob.id).where(*mine).with_for_update(skip_locked=True)
    session.execute(
        update(LlmJob)
        .where(LlmJob.id.in_(unlocked.scalar_subquery()), *mine)
        .values(lease_until=database_clock() + lease_seconds)
        .execution_options(synchronize_session=False)
    )


def held(session: Session, worker: str, job_ids: Collection[UUID]) -> dict[UUID, Held]:
    """Return which of these jobs a worker holds."""
    query = select(LlmJob.id, LlmJob.attempt, LlmJob.cancel_requested_at).where(*_mine(worker, job_ids))
    return {id: Held(id, attempt, cancelled is not None) for id, attempt, cancelled in session.execute(query)}


def _mine(worker: str, job_ids: Collection[UUID]) -> tuple[ColumnElement[bool], ...]:
    return (LlmJob.id.in_(job_ids), LlmJob.lease_owner == worker, RUNNING)


@dataclass(frozen=True)
class Progress:
    """How far the text of an attempt has come."""

    message_id: UUID
    attempt: int
    content: str


_POSTGRESQL_CHECKPOINT = text(
    """
    WITH news AS (
        SELECT * FROM
            unnest(CAST(:ids AS uuid[]), CAST(:attempts AS int[]), CAST(:contents AS text[]))
            AS n (id, attempt, content)
    ), free AS (
        SELECT m.id, n.content FROM chat_messages m JOIN news n ON n.id = m.id
        JOIN llm_jobs j ON j.assistant_message_id = m.id AND j.attempt = n.attempt
        WHERE j.status = 'running' FOR UPDATE OF m, j SKIP LOCKED
    )
    UPDATE chat_messages m SET content = free.content FROM free WHERE m.id = free.id
    """
)


def checkpoint(session: Session, progress: Sequence[Progress]) -> None:
    """Write running texts, all in one statement; those whose attempt is over are left alone."""
    if session.get_bind().dialect.name == "postgresql":
        columns = {
            "ids": [str(p.message_id) for p in progress],
            "attempts": [p.attempt for p in progress],
            "contents": [p.content for p in progress],
        }
        session.execute(_POSTGRESQL_CHECKPOINT, columns)
        return
    for p in progress:
        session.execute(
            update(Message)
            .where(Message.id == p.message_id, _running(p))
            .values(content=p.content)
            .execution_options(synchronize_session=False)
        )


def _running(p: Progress) -> ColumnElement[bool]:
    # Not what the message says: between two attempts it is streaming too, and holds what the last one has stored.
    running = (LlmJob.attempt == p.attempt, RUNNING)
    return exists().where(LlmJob.assistant_message_id == p.message_id, *running)


def database_time(session: Session) -> float:
    """Return the time by the database's clock."""
    return session.execute(select(database_clock())).scalar_one()


def overdue(session: Session, *, seconds: float) -> tuple[bool, float]:
    """Tell whether a lease runs out within so many seconds or has run out, and the database's time."""
    lagging = exists().where(RUNNING, LlmJob.lease_until < database_clock() + seconds)
    found, at = session.execute(select(lagging, database_clock())).one()
    return bool(found), at


@dataclass(frozen=True)
class Waiting:
    """A job that waits for a worker, and how many of its user's are being written or come before it."""

    job_id: UUID
    before: int

    @property
    def is_newcomers(self) -> bool:
        """Whether its user has no other reply in hand anywhere."""
        return not self.before


def forgotten(session: Session, *, forgotten_seconds: float, take_over: bool = True) -> list[Waiting]:
    """Return jobs that a worker should look at, in turn: due, but not claimed for a while, or with a dead worker."""
    # A retry has its time and no wake-up, and what was handed over is late already: its wake-up may be lost, for Redis
    # may be away. Anything else is given time to be woken.
    begun = LlmJob.retry_at.is_not(None) | LlmJob.started_at.is_not(None)
    waiting = DUE & (begun | (LlmJob.not_before < database_clock() - forgotten_seconds))
    return _in_turn(session, waiting | LOST if take_over else waiting)


def waiting(session: Session) -> list[Waiting]:
    """Return the jobs that wait for a place, in turn."""
    return _in_turn(session, DUE)


def may_use_reserve(session: Session, job_id: UUID) -> bool:
    """Tell whether a job waits whose user has no other reply in hand."""
    waits = select(LlmJob.id).where(LlmJob.id == job_id, DUE | LOST, ~USER_IS_SERVED)
    return session.scalar(waits) is not None


def _in_turn(session: Session, which: ColumnElement[bool]) -> list[Waiting]:
    """Return the first jobs of a fair order: those of users of whom the fewest are being written or come before it."""
    # As an expression: SQLite would take a bare column for a reason to read all jobs there ever were by its index.
    user = func.coalesce(LlmJob.user_id, "")
    nth = func.row_number().over(partition_by=user, order_by=LlmJob.not_before) - 1
    ranked = select(LlmJob.id, LlmJob.user_id, LlmJob.not_before, nth.label("nth")).where(which).subquery()
    # By rank before the limit: however many one user has waiting, the others' first ones are among these.
    first = session.execute(select(ranked).order_by(ranked.c.nth, ranked.c.not_before).limit(LOOKED_AT)).all()
    if not first:
        return []
    count = select(LlmJob.user_id, func.count().label("number")).where(RUNNING, ~LOST).group_by(LlmJob.user_id)
    written = Counter({row.user_id: row.number for row in session.execute(count)})
    jobs = [Waiting(job.id, written[job.user_id] + job.nth) for job in first]
    return sorted(jobs, key=lambda job: job.before)
