"""LLM jobs and their attempts. The row is the truth; the broker's message only a wake-up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    Index,
    ScalarSelect,
    String,
    Text,
    TextClause,
    exists,
    false,
    literal_column,
    select,
    text,
)
from sqlalchemy.orm import Mapped, aliased, mapped_column, relationship

from chat_backend.domain.enums import UNFINISHED_JOB, JobStatus, Outcome, Purpose
from chat_backend.models.base import Base, EnumText, database_clock
from chat_backend.models.message import Message

_UNFINISHED = text("status IN ('queued', 'running')")
_RUNNING = text("status = 'running'")
_QUEUED = text("status = 'queued'")
_OPEN_TITLE = text("purpose = 'title' AND outcome IS NULL")
_RESERVED = text("reserved_prompt_tokens IS NOT NULL")


def _partial(name: str, *columns: str, where: TextClause, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, postgresql_where=where, sqlite_where=where)


class LlmJob(Base):
    """One request for one reply. Times without a zone are seconds since 1970 by the database's clock."""

    __tablename__ = "llm_jobs"
    __table_args__ = (
        CheckConstraint("status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="valid_job_status"),
        CheckConstraint("(status = 'running') = (lease_until IS NOT NULL)", name="running_has_lease"),
        Index("idx_llm_jobs_session_position", "session_id", "position"),
        _partial("uq_llm_jobs_running", "session_id", where=_RUNNING, unique=True),
        _partial("uq_llm_jobs_unfinished", "message_id", where=_UNFINISHED, unique=True),
        _partial("idx_llm_jobs_due", "not_before", where=_QUEUED),
        _partial("idx_llm_jobs_lease", "lease_until", where=_RUNNING),
        _partial("idx_llm_jobs_unfinished", "session_id", "position", where=_UNFINISHED),
        _partial("idx_llm_jobs_unfinished_of_user", "user_id", where=_UNFINISHED),
        _partial("idx_llm_jobs_reserved", "user_id", where=_RESERVED),
        Index("idx_llm_jobs_message", "message_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    session_id: Mapped[UUID] = mapped_column(ForeignKey("chat_sessions.id", ondelete="CASCADE"))
    message_id: Mapped[UUID] = mapped_column(ForeignKey("chat_messages.id", ondelete="CASCADE"))
    assistant_message_id: Mapped[UUID] = mapped_column(ForeignKey("chat_messages.id", ondelete="CASCADE"), unique=True)
    # The reply's seq: jobs of a session run in this order.
    position: Mapped[int]
    user_id: Mapped[str] = mapped_column(String(255), index=True)
    status: Mapped[JobStatus] = mapped_column(EnumText(JobStatus))
    attempt: Mapped[int] = mapped_column(default=0)
    # What is asked in turn, [{provider, model}, ...], and which of them is on.
    chain: Mapped[list[dict[str, str]]] = mapped_column(type_=Base.registry.type_annotation_map[dict[str, Any]])
    chain_position: Mapped[int] = mapped_column(default=0)
    options: Mapped[dict[str, Any]]
    failures: Mapped[int] = mapped_column(default=0)
    abandonments: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[float]
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[float | None]
    cancel_requested_at: Mapped[float | None]
    retry_at: Mapped[float | None]
    # Since when its model is left alone for everyone's sake, and no other is named; null: it is not.
    passed_over_at: Mapped[float | None]
    # What of its user's quota it holds, from the moment it is queued until it ends; null: nothing, or not any more.
    reserved_prompt_tokens: Mapped[int | None]
    reserved_reply_tokens: Mapped[int | None]
    error_code: Mapped[str | None] = mapped_column(String(50))
    error_message: Mapped[str | None] = mapped_column(Text)
    # The name of the request that asked, as it stands in the logs.
    trace_id: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    attempts: Mapped[list[LlmAttempt]] = relationship(
        order_by="LlmAttempt.number", cascade="all, delete-orphan", passive_deletes=True
    )
    # Never read: they tell the order in which new rows are written, so that a turn is one flush.
    question: Mapped[Message] = relationship(foreign_keys=[message_id], lazy="raise")
    reply: Mapped[Message] = relationship(foreign_keys=[assistant_message_id], lazy="raise")

    @property
    def provider(self) -> str:
        return self.chain[self.chain_position]["provider"]

    @property
    def model(self) -> str:
        return self.chain[self.chain_position]["model"]

    @property
    def holds_reservation(self) -> bool:
        return self.reserved_prompt_tokens is not None

    @property
    def retry_time(self) -> datetime | None:
        """When a retry that waits will begin."""
        return None if self.retry_at is None else datetime.fromtimestamp(self.retry_at, UTC)


class LlmAttempt(Base):
    """One call to a provider for a job: for its reply, or for something that helps."""

    __tablename__ = "llm_attempts"
    __table_args__ = (
        CheckConstraint(
            "outcome IS NULL OR outcome IN ('succeeded', 'failed', 'cancelled', 'abandoned', 'handed_over')",
            name="valid_outcome",
        ),
        CheckConstraint("number >= 1", name="valid_number"),
        _partial("idx_llm_attempts_open_title", "started_at", where=_OPEN_TITLE),
    )

    job_id: Mapped[UUID] = mapped_column(ForeignKey("llm_jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    provider: Mapped[str] = mapped_column(String(50))
    model: Mapped[str] = mapped_column(String(100))
    purpose: Mapped[Purpose] = mapped_column(EnumText(Purpose), default=Purpose.REPLY, server_default=Purpose.REPLY)
    worker: Mapped[str] = mapped_column(String(64))
    outcome: Mapped[Outcome | None] = mapped_column(EnumText(Outcome))
    http_status: Mapped[int | None]
    error_code: Mapped[str | None] = mapped_column(String(50))
    time_to_first_token_ms: Mapped[int | None]
    duration_ms: Mapped[int | None]
    # The provider's own word for the error, where it is one.
    error_type: Mapped[str | None] = mapped_column(String(50))
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    cached_tokens: Mapped[int | None]
    reasoning_tokens: Mapped[int | None]
    cost: Mapped[float | None]
    usage_estimated: Mapped[bool] = mapped_column(default=False, server_default=false())
    # What the provider calls the call, to find it in its bill.
    generation_id: Mapped[str | None] = mapped_column(String(200))
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


def _literal(status: JobStatus) -> ColumnElement[str]:
    return literal_column(f"'{status.value}'")


# As literals and in the words of the indexes, which hold such jobs only: a planner that sees parameters reads every job
# that a chat session ever had, to find the one that is unfinished.
QUEUED = LlmJob.status == _literal(JobStatus.QUEUED)
RUNNING = LlmJob.status == _literal(JobStatus.RUNNING)
_UNFINISHED_WORDS = [_literal(status) for status in UNFINISHED_JOB]
UNFINISHED = LlmJob.status.in_(_UNFINISHED_WORDS)

_other = aliased(LlmJob)
_others = (
    _other.session_id == LlmJob.session_id,
    _other.id != LlmJob.id,
    _other.status.in_(_UNFINISHED_WORDS),
)

# Whether an earlier job of a job's session is unfinished: they run one at a time, in order.
MUST_WAIT: ColumnElement[bool] = exists().where(*_others, _other.position < LlmJob.position)

# Whether a job waits for nothing but a worker, and whether the worker that had it is gone.
DUE = QUEUED & (LlmJob.not_before <= database_clock()) & ~MUST_WAIT
LOST = RUNNING & (LlmJob.lease_until < database_clock())

# Whether another reply of a job's user is being written. The first condition on the status is the index's.
USER_IS_SERVED: ColumnElement[bool] = exists().where(
    _other.user_id == LlmJob.user_id,
    _other.id != LlmJob.id,
    _other.status.in_(_UNFINISHED_WORDS),
    _other.status == _literal(JobStatus.RUNNING),
)

# The id of the first other unfinished job of a job's session: with this one ended, it is its turn.
FOLLOWING: ScalarSelect[UUID] = select(_other.id).where(*_others).order_by(_other.position).limit(1).scalar_subquery()
