"""Jobs as workers see them: claim, keep, finish, fail, hand over.

Whoever writes here holds the chat session's lock, then the job's, and its attempt number must still be
the current one: a worker that slept past its lease is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any
from uuid import UUID

from sqlalchemy import and_, bindparam, select
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from chat_backend.domain import summary, thoughts, tokens
from chat_backend.domain.enums import Action, JobStatus, MessageStatus, Outcome, Purpose, Titles
from chat_backend.domain.errors import ErrorCode, InternalFault, LeaseLost, ProviderError, ReplyTooLong
from chat_backend.domain.prompt import OPTIONS, ContextLimits, PromptRequest, Turn
from chat_backend.domain.retry import RetryPolicy
from chat_backend.domain.usage import Usage
from chat_backend.models import ChatSession, LlmAttempt, LlmJob, Message
from chat_backend.models.base import database_clock, now
from chat_backend.models.llm_job import DUE, FOLLOWING, LOST, MUST_WAIT
from chat_backend.protocol.events import Happening
from chat_backend.row_locks import Level, lock_next
from chat_backend.services import prompts, summaries, titles
from chat_backend.services.access import lock_session_of
from chat_backend.services.llm_jobs import end
from chat_backend.services.prompts import Outside
from chat_backend.unit_of_work import UnitOfWork

NOT_READY = {ErrorCode.MODEL_LOADING, ErrorCode.PROVIDER_UNREACHABLE}


@dataclass(frozen=True)
class Terms:
    """Under which terms a worker claims: who it is, how long it holds, and when a job is past help."""

    worker: str
    lease_seconds: float
    max_abandonments: int
    expiry_seconds: float
    context_tokens: int
    windows: Mapping[str, int] = field(default_factory=dict)
    sums_up: bool = False


@dataclass(frozen=True)
class Claim:
    """An attempt that this worker owns, and what is to be asked."""

    job_id: UUID
    session_id: UUID
    message_id: UUID
    number: int
    provider: str
    request: PromptRequest
    trace_id: str | None = None
    purpose: Purpose = Purpose.REPLY
    # Of a summary: what it is to cover, and the offset at which that was read.
    outside: Outside | None = None
    as_of: int = 0
    # Whether no other model is left to be asked.
    is_last: bool = True
    # Who asked for the reply.
    user_id: str = field(kw_only=True)


@dataclass(frozen=True)
class Takeover:
    """Whether expired leases may be taken over now, and which of them prove no death.

    `outage` is when the database was unavailable, by its own clock: a lease that expired then could not be renewed, and
    does not count as abandoned.
    """

    allowed: bool = True
    outage: tuple[float, float] = (0.0, 0.0)

    def counts(self, lease_until: float) -> bool:
        """Tell whether an expired lease counts against its job."""
        return not self.outage[0] <= lease_until <= self.outage[1]


@dataclass(frozen=True)
class Asked:
    """Which model a job would ask now, and for whom."""

    provider: str
    model: str
    user_id: str


@dataclass(frozen=True)
class Measured:
    """What an attempt came to, however it ended."""

    text: str
    duration_ms: int
    time_to_first_token_ms: int | None = None
    counts: Usage = field(default_factory=Usage)
    usage: dict[str, Any] | None = None
    http_status: int | None = None
    generation_id: str | None = None
    finish_reason: str | None = None


@dataclass
class Owned:
    """A job under lock, with its chat session, reply and current attempt, and the time by the database's clock."""

    chat: ChatSession
    job: LlmJob
    reply: Message
    attempt: LlmAttempt | None
    clock: float
    waits: bool
    following: UUID | None

    def end(self, uow: UnitOfWork, status: JobStatus, **more: Any) -> None:
        """End the job, and let the next of its chat session begin."""
        end(uow, self.chat, self.job, self.reply, status=status, following=self.following, **more)


ANY_TAKEOVER = Takeover()

# Made once: to put a statement together costs as much as to execute it.
_OWNED = (
    select(LlmJob, Message, LlmAttempt, database_clock(), MUST_WAIT, FOLLOWING)
    .join(Message, Message.id == LlmJob.assistant_message_id)
    .outerjoin(LlmAttempt, and_(LlmAttempt.job_id == LlmJob.id, LlmAttempt.number == LlmJob.attempt))
    .where(LlmJob.id == bindparam("job_id"))
    .execution_options(populate_existing=True)
)
_OWNED_NOW, _OWNED_WAIT = (_OWNED.with_for_update(of=[LlmJob, Message], skip_locked=skip) for skip in (True, False))
_ASKED = select(LlmJob.chain, LlmJob.chain_position, LlmJob.user_id).where(LlmJob.id == bindparam("job_id"), DUE | LOST)


def claim(uow: UnitOfWork, job_id: UUID, terms: Terms, takeover: Takeover = ANY_TAKEOVER) -> Claim | None:
    """Take a job that is due, or whose worker is gone, for one attempt. None: there is nothing to claim."""
    owned = _due(uow, job_id, terms, takeover)
    if owned is None:
        return None
    return _next_call(uow, owned, terms, may_sum_up=terms.sums_up)


def next_asked(session: Session, job_id: UUID) -> Asked | None:
    """Return what a job would ask now; None where it is not to be taken up.

    Whoever asks the circuit breaker for leave takes the place of the one probe: it must be about to ask.
    """
    asked = session.execute(_ASKED, {"job_id": job_id}).one_or_none()
    if asked is None:
        return None
    link = asked.chain[asked.chain_position]
    return Asked(link["provider"], link["model"], asked.user_id)


def standing(session: Session, job_id: UUID) -> tuple[JobStatus | None, str | None]:
    """Return a job's status and error code; None, None where it is gone."""
    row = session.execute(select(LlmJob.status, LlmJob.error_code).where(LlmJob.id == job_id)).one_or_none()
    return (row.status, row.error_code) if row else (None, None)


def pass_over(
    uow: UnitOfWork,
    job_id: UUID,
    terms: Terms,
    *,
    wait_seconds: float,
    patience_seconds: float,
    takeover: Takeover = ANY_TAKEOVER,
) -> float | None:
    """Leave alone a model whose circuit is open: turn to the next of the chain, else wait, else give up.

    No attempt is made, so none is counted. Patience begins when a job is first left waiting for the circuit, however
    long it had waited for its turn. Returns the seconds until the next look, or None.
    """
    owned = _due(uow, job_id, terms, takeover)
    if owned is None:
        return None
    job, wait = owned.job, 0.0
    if job.chain_position + 1 < len(job.chain):
        job.chain_position += 1
        job.failures = 0
    elif job.passed_over_at is not None and owned.clock - job.passed_over_at > patience_seconds:
        error = "The model has been failing for everyone; it is left alone for a while."
        owned.end(uow, JobStatus.FAILED, code=ErrorCode.CIRCUIT_OPEN, error=error)
        return None
    else:
        wait = wait_seconds
        job.passed_over_at = job.passed_over_at or owned.clock
    _back_to_queue(owned, delay=wait)
    job.retry_at = job.not_before
    uow.session.flush()
    uow.tell(owned.chat, Happening.job(job))
    return wait


def _due(uow: UnitOfWork, job_id: UUID, terms: Terms, takeover: Takeover) -> Owned | None:
    """Lock a job that someone should take up now; what is past help is ended on the way."""
    owned = _lock(uow, job_id)
    if owned is None or not _claimable(owned):
        return None
    if owned.job.status == JobStatus.RUNNING:
        assert owned.job.lease_until is not None
        if not takeover.allowed:
            return None
        _abandon(owned, counts=takeover.counts(owned.job.lease_until))
    ending = _past_help(owned, terms)
    if ending is not None:
        owned.end(uow, **ending)
        return None
    return owned


def _lock(uow: UnitOfWork, job_id: UUID) -> Owned | None:
    chat = lock_session_of(uow.session, job_id)
    if chat is None:
        return None
    row = lock_next(
        uow.session,
        Level.JOB,
        now=lambda: uow.session.execute(_OWNED_NOW, {"job_id": job_id}).one_or_none(),
        blocking=lambda: uow.session.execute(_OWNED_WAIT, {"job_id": job_id}).one_or_none(),
    )
    if row is None:
        return None
    job, reply, attempt, clock, waits, following = row
    if job.attempt <= 1:
        set_committed_value(job, "attempts", [attempt] if attempt else [])  # there are no others to be looked for
    return Owned(chat, job, reply, attempt, clock, waits, following)


def _claimable(owned: Owned) -> bool:
    job = owned.job
    if job.status == JobStatus.QUEUED:
        return job.not_before <= owned.clock and not owned.waits
    return job.status == JobStatus.RUNNING and job.lease_until is not None and job.lease_until < owned.clock


def _abandon(owned: Owned, *, counts: bool) -> None:
    owned.job.abandonments += counts
    if owned.attempt is not None and owned.attempt.outcome is None:
        owned.attempt.outcome = Outcome.ABANDONED
        owned.attempt.finished_at = now()
        owned.attempt.error_code = ErrorCode.WORKER_LOST
        if owned.reply.content:
            # What the lost worker had read since its last checkpoint nobody knows, but it may be billed.
            owned.attempt.completion_tokens = tokens.estimate(owned.reply.content)


def _past_help(owned: Owned, terms: Terms) -> dict[str, Any] | None:
    job = owned.job
    # When it was queued, or first passed over, by the database's clock.
    waiting_since = job.passed_over_at or job.not_before
    if job.cancel_requested_at is not None:
        return {"status": JobStatus.CANCELLED}
    if job.abandonments >= terms.max_abandonments:
        error = "The workers that tried to write this reply were lost."
        return {"status": JobStatus.FAILED, "code": ErrorCode.WORKER_LOST, "error": error}
    if job.started_at is None and owned.clock - waiting_since > terms.expiry_seconds:
        error = "No worker could begin this reply in time."
        return {"status": JobStatus.FAILED, "code": ErrorCode.JOB_EXPIRED, "error": error}
    return None


def _begin(uow: UnitOfWork, owned: Owned, terms: Terms, purpose: Purpose, turns: tuple[Turn, ...]) -> None:
    job, reply = owned.job, owned.reply
    job.attempt += 1
    job.status = JobStatus.RUNNING
    job.lease_owner = terms.worker
    job.lease_until = owned.clock + terms.lease_seconds
    job.started_at = job.started_at or now()
    job.retry_at = job.passed_over_at = None
    attempt = LlmAttempt(
        job_id=job.id,
        number=job.attempt,
        provider=job.provider,
        model=job.model,
        purpose=purpose,
        worker=terms.worker,
        # Stands until the provider's count comes: of a call that is cut short none will.
        prompt_tokens=tokens.estimate_turns(turns),
        usage_estimated=True,
        started_at=now(),
    )
    job.attempts.append(attempt)
    # What a lost worker has shown since its last checkpoint is not known here.
    last = owned.attempt
    was_lost = last is not None and last.outcome == Outcome.ABANDONED and last.purpose == Purpose.REPLY
    had_text = bool(reply.content) or was_lost
    reply.status, reply.attempt, reply.content = MessageStatus.STREAMING, job.attempt, ""
    reply.llm_provider, reply.llm_model = job.provider, job.model
    reply.updated_at = max(now(), reply.updated_at)
    uow.session.flush()
    if had_text:
        uow.tell(owned.chat, Happening.message(Action.RESTARTED, reply))
    uow.tell(owned.chat, Happening.job(job))


def _next_call(uow: UnitOfWork, owned: Owned, terms: Terms, *, may_sum_up: bool) -> Claim:
    """Begin the attempt that is due: the reply, or before it the summary of what its prompt can't hold."""
    job, chat = owned.job, owned.chat
    question = uow.session.get(Message, job.message_id)
    assert question is not None
    wanted = chat.settings | job.options
    context = ContextLimits(terms.context_tokens, terms.windows)
    most = wanted.get("max_tokens")
    budget = context.budget(job.provider, job.model, asked=wanted.get("context_tokens"), max_tokens=most)
    if most is not None:
        wanted["max_tokens"] = context.reply(job.provider, job.model, max_tokens=most, budget=budget)
    prompt = prompts.put_together(uow.session, chat, question, budget=budget, summed_up=terms.sums_up)
    if may_sum_up and prompt.outside and not summaries.left_alone(uow.session, job):
        purpose, turns = Purpose.SUMMARY, prompt.outside.turns
        size = prompt.outside.most_tokens  # its prompt is smaller by so much
        options = thoughts.options(size, wanted)
        options["max_tokens"] = context.reply(
            job.provider, job.model, max_tokens=options["max_tokens"], budget=budget - size
        )
    else:
        purpose, turns = Purpose.REPLY, prompt.turns
        options = {name: wanted[name] for name in OPTIONS if wanted.get(name) is not None}
    _begin(uow, owned, terms, purpose, turns)
    # A server that was loading the model when we hung up begins to load it anew.
    patient = _timed_out(owned.attempt, job)
    request = PromptRequest(job.model, turns, options, name=name_of(job), patient=patient)
    return Claim(
        *(job.id, chat.id, owned.reply.id, job.attempt, job.provider, request, job.trace_id),
        purpose=purpose,
        outside=prompt.outside,
        as_of=chat.last_offset,
        user_id=job.user_id,
        is_last=_is_last(job),
    )


def name_of(job: LlmJob) -> str:
    """Return the name by which a job's newest attempt is found in logs, here and at the provider."""
    return ".".join(filter(None, [job.trace_id, str(job.id), str(job.attempt)]))


def go_on(
    uow: UnitOfWork,
    claim: Claim,
    measured: Measured,
    terms: Terms,
    *,
    error: ProviderError | None = None,
    may_ask: bool = True,
) -> Claim | float | None:
    """Store a summary, or that there is none, and begin the reply. None: a cancel was accepted before.

    Where the model may not be asked now, the job goes back to the queue: returns the seconds until the next look.

    A summary that failed, or says nothing, fails nothing else: the reply is written without it. Raises LeaseLost.
    """
    owned = _hold(uow, claim)
    text = summary.bounded(measured.text, claim.outside.most_tokens) if claim.outside else ""
    if error is None and not text:
        error = ProviderError("The model summed up nothing.", http_status=measured.http_status)
    _close_attempt(owned, measured, Outcome.FAILED if error else Outcome.SUCCEEDED, error)
    if owned.job.cancel_requested_at is not None:
        owned.end(uow, JobStatus.CANCELLED)
        return None
    if error is None and claim.outside is not None:
        covers = claim.outside.covers
        summaries.keep(uow.session, owned.chat, claim.job_id, text, covers=covers, as_of=claim.as_of)
    if not may_ask:
        _back_to_queue(owned, delay=0.0)
        uow.session.flush()
        uow.tell(owned.chat, Happening.job(owned.job))
        return 0.0
    return _next_call(uow, owned, terms, may_sum_up=False)


def _hold(uow: UnitOfWork, claim: Claim) -> Owned:
    """Lock what a claim is about. Raises LeaseLost where it is no longer this worker's."""
    owned = _lock(uow, claim.job_id)
    if owned is None or owned.job.status != JobStatus.RUNNING or owned.job.attempt != claim.number:
        raise LeaseLost
    return owned


def succeed(uow: UnitOfWork, claim: Claim, measured: Measured, *, titled: str = Titles.OFF) -> JobStatus:
    """Store a whole reply; where a cancel was accepted before, as a cancelled one.

    `titled`: what names a chat session that has no title by then. Raises LeaseLost.
    """
    owned = _hold(uow, claim)
    cancelled = owned.job.cancel_requested_at is not None
    _close_attempt(owned, measured, Outcome.CANCELLED if cancelled else Outcome.SUCCEEDED)
    _write_reply(owned, measured)
    status = JobStatus.CANCELLED if cancelled else JobStatus.SUCCEEDED
    owned.end(uow, status)
    if not cancelled:
        titles.name(uow, owned.chat, titled)
    return status


def stopped(uow: UnitOfWork, claim: Claim, measured: Measured) -> None:
    """Store what a stopped attempt had written: the end where a cancel was asked for, else a hand-over.

    The row decides: a word that came through Redis alone cancels nothing. Raises LeaseLost.
    """
    owned = _hold(uow, claim)
    cancelled = owned.job.cancel_requested_at is not None
    _close_attempt(owned, measured, Outcome.CANCELLED if cancelled else Outcome.HANDED_OVER)
    if claim.purpose == Purpose.REPLY:
        _write_reply(owned, measured)
    if cancelled:
        owned.end(uow, JobStatus.CANCELLED)
        return
    _back_to_queue(owned, delay=0.0)
    uow.session.flush()
    uow.tell(owned.chat, Happening.job(owned.job))
    uow.wake(owned.job.id)


def failed(
    uow: UnitOfWork, claim: Claim, measured: Measured, *, error: ProviderError, policy: RetryPolicy
) -> float | None:
    """Store a failed attempt; return the seconds until the next, or None where the job has ended.

    Next is a retry after its backoff, else the next of the chain at once, else the end. The text is kept
    until another attempt begins. Raises LeaseLost.
    """
    owned = _hold(uow, claim)
    job = owned.job
    _close_attempt(owned, measured, Outcome.FAILED, error)
    _write_reply(owned, measured)
    if job.cancel_requested_at is not None:
        owned.end(uow, JobStatus.CANCELLED)
        return None
    delay = _next(job, error, policy)
    if delay is None:
        owned.end(uow, JobStatus.FAILED, code=error.code, error=error.message)
        return None
    _back_to_queue(owned, delay=delay)
    job.retry_at = job.not_before
    uow.session.flush()
    uow.tell(owned.chat, Happening.job(job))
    return delay


def fail_internally(uow: UnitOfWork, job_id: UUID, *, worker: str) -> None:
    """End a job over which an exception of our own was raised, unless another worker holds it.

    What its attempt cost stands as it was estimated.
    """
    owned = _lock(uow, job_id)
    if owned is None:
        return
    job, fault = owned.job, InternalFault()
    if not (_claimable(owned) or (job.status == JobStatus.RUNNING and job.lease_owner == worker)):
        return
    if job.status == JobStatus.RUNNING and owned.attempt is not None and owned.attempt.outcome is None:
        owned.attempt.outcome, owned.attempt.finished_at = Outcome.FAILED, now()
        owned.attempt.error_code = fault.code
    if job.cancel_requested_at is not None:
        owned.end(uow, JobStatus.CANCELLED)
    else:
        owned.end(uow, JobStatus.FAILED, code=fault.code, error=fault.message)


def _next(job: LlmJob, error: ProviderError, policy: RetryPolicy) -> float | None:
    if policy.waits_for(error, is_last=_is_last(job)):
        waits = _not_ready(job)
        delay = policy.starting_delay(error, len(waits), (now() - waits[-1].started_at).total_seconds())
    else:
        job.failures += 1
        timeouts = [found for found in job.attempts if _timed_out(found, job) and found.purpose == Purpose.REPLY]
        delay = policy.delay(error, job.failures, timeouts=len(timeouts))
    if delay is not None:
        return delay
    if isinstance(error, ReplyTooLong | InternalFault) or _is_last(job):
        return None
    job.chain_position += 1
    job.failures = 0
    return 0.0


def _timed_out(attempt: LlmAttempt | None, job: LlmJob) -> bool:
    """Whether an attempt timed out at the model that the job is at now."""
    if attempt is None or attempt.error_code != ErrorCode.PROVIDER_TIMEOUT:
        return False
    return (attempt.provider, attempt.model) == (job.provider, job.model)


def _is_last(job: LlmJob) -> bool:
    return job.chain_position + 1 >= len(job.chain)


def _not_ready(job: LlmJob) -> list[LlmAttempt]:
    """Return the last attempts in a row that found the model's server not ready, the newest first."""
    return list(
        takewhile(
            lambda attempt: (
                attempt.error_code in NOT_READY and (attempt.provider, attempt.model) == (job.provider, job.model)
            ),
            reversed(job.attempts),
        )
    )


def _back_to_queue(owned: Owned, *, delay: float) -> None:
    job = owned.job
    job.status = JobStatus.QUEUED
    job.lease_owner = job.lease_until = None
    job.not_before = owned.clock + delay


def _close_attempt(owned: Owned, measured: Measured, outcome: Outcome, error: ProviderError | None = None) -> None:
    assert owned.attempt is not None
    close(owned.attempt, measured, outcome, error)


def close(attempt: LlmAttempt, measured: Measured, outcome: Outcome, error: ProviderError | None = None) -> None:
    """Note on an attempt how it ended and what it came to."""
    attempt.outcome = outcome
    attempt.finished_at = now()
    attempt.duration_ms = measured.duration_ms
    attempt.time_to_first_token_ms = measured.time_to_first_token_ms
    if measured.counts.prompt_tokens is None and outcome in (Outcome.CANCELLED, Outcome.HANDED_OVER):
        # Cut short before a word of its provider, that may be billing it: the estimate of its beginning stands.
        attempt.completion_tokens = measured.counts.completion_tokens
    else:
        _count(attempt, measured.counts)
    attempt.generation_id = measured.generation_id
    attempt.http_status = error.http_status if error else measured.http_status
    attempt.error_code = error.code if error else None
    attempt.error_type = error.error_type if error else None


def _count(attempt: LlmAttempt, counts: Usage) -> None:
    attempt.prompt_tokens, attempt.completion_tokens = counts.prompt_tokens, counts.completion_tokens
    attempt.cached_tokens, attempt.reasoning_tokens = counts.cached_tokens, counts.reasoning_tokens
    attempt.cost, attempt.usage_estimated = counts.cost, counts.estimated


def _write_reply(owned: Owned, measured: Measured) -> None:
    reply, usage = owned.reply, dict(measured.usage or {})
    counted, estimated = measured.counts.completion_tokens, measured.counts.estimated
    reply.content = measured.text
    reply.tokens_used = tokens.estimate(measured.text) if counted is None else counted
    reply.response_time_ms = measured.duration_ms
    reply.message_metadata = {
        "time_to_first_token_ms": measured.time_to_first_token_ms,
        **({"usage": usage} if usage else {}),
        **({"usage_estimated": True} if counted is None or estimated else {}),
        **({"generation_id": measured.generation_id} if measured.generation_id else {}),
        **({"finish_reason": measured.finish_reason} if measured.finish_reason else {}),
    }
