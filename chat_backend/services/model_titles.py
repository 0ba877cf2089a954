"""Titles by the model: a call after a job has ended, on record like every other.

The attempt is opened in the transaction that ends the job, so that a call is known before it is made. It holds no
lease: nobody makes it again, and where it comes to nothing the first words are the title.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from chat_backend.domain import thoughts, titles, tokens
from chat_backend.domain.enums import JobStatus, Outcome, Purpose
from chat_backend.domain.errors import ErrorCode, ProviderError
from chat_backend.domain.prompt import ContextLimits, PromptRequest
from chat_backend.domain.quota import Quota
from chat_backend.models import ChatSession, LlmAttempt, LlmJob, Message
from chat_backend.models.base import database_now, now
from chat_backend.protocol.events import Happening
from chat_backend.services import quotas
from chat_backend.services.access import lock_session_of
from chat_backend.services.attempts import Claim, Measured, close, name_of
from chat_backend.services.titles import give
from chat_backend.unit_of_work import UnitOfWork

# Longer than any such call can take.
LOST_SECONDS = 180.0
_AT_ONCE = 100
UNLIMITED = ContextLimits()


def begin(uow: UnitOfWork, reply: Claim, *, worker: str, context: ContextLimits = UNLIMITED) -> Claim | None:
    """Open the call for the title of a chat session whose reply has just been stored.

    None: it has one, or is about to.
    """
    session = uow.session
    chat, job = session.get(ChatSession, reply.session_id), session.get(LlmJob, reply.job_id)
    if chat is None or job is None or chat.title is not None or job.status != JobStatus.SUCCEEDED:
        return None
    if _is_asked_for(session, chat.id):
        return None
    question, answer = session.get(Message, job.message_id), session.get(Message, job.assistant_message_id)
    assert question is not None
    assert answer is not None
    turns = titles.task(question.content, answer.content)
    taken = tokens.estimate_turns(turns)
    job.attempt += 1
    attempt = LlmAttempt(
        job_id=job.id,
        number=job.attempt,
        provider=reply.provider,
        model=reply.request.model,
        purpose=Purpose.TITLE,
        worker=worker,
        prompt_tokens=taken,
        usage_estimated=True,
        started_at=database_now(),
    )
    job.attempts.append(attempt)
    session.flush()
    uow.tell(chat, Happening.job(job))
    model = reply.request.model
    options = thoughts.options(titles.TITLE_TOKENS, reply.request.options)
    options["max_tokens"] = context.reply(reply.provider, model, max_tokens=options["max_tokens"], budget=taken)
    request = PromptRequest(model, turns, options, name=name_of(job))
    ids = (job.id, chat.id, answer.id)
    return Claim(*ids, job.attempt, reply.provider, request, job.trace_id, purpose=Purpose.TITLE, user_id=job.user_id)


def _is_asked_for(session: Session, session_id: UUID) -> bool:
    asked = (
        select(LlmAttempt.number)
        .join(LlmJob, LlmJob.id == LlmAttempt.job_id)
        .where(LlmJob.session_id == session_id, LlmAttempt.purpose == Purpose.TITLE, LlmAttempt.outcome.is_(None))
    )
    return session.scalar(asked.limit(1)) is not None


def finish(
    uow: UnitOfWork, claim: Claim, measured: Measured, *, error: ProviderError | None, stopped: bool, quota: Quota
) -> None:
    """Close the call, and name the session unless somebody has meanwhile."""
    outcome = Outcome.CANCELLED if stopped else Outcome.FAILED if error else Outcome.SUCCEEDED
    open_call = _open_call(uow, claim.job_id)
    if open_call is None:
        return
    chat, job, attempt = open_call
    close(attempt, measured, outcome, error)
    if quota.is_set:
        quotas.charge(uow.session, job, attempt)
    _end(uow, chat, job, titles.from_model(measured.text) if outcome == Outcome.SUCCEEDED else None)


def lost(session: Session) -> list[UUID]:
    """Return jobs whose call for a title was lost with its worker."""
    query = select(LlmAttempt.job_id).where(
        LlmAttempt.purpose == Purpose.TITLE,
        LlmAttempt.outcome.is_(None),
        LlmAttempt.started_at < database_now(-LOST_SECONDS),
    )
    return list(session.scalars(query.limit(_AT_ONCE)))


def give_up(uow: UnitOfWork, job_id: UUID, *, quota: Quota) -> None:
    """Close a call that was lost with its worker; it may be billed, so it counts as it was estimated."""
    open_call = _open_call(uow, job_id)
    if open_call is not None:
        chat, job, attempt = open_call
        attempt.outcome, attempt.error_code, attempt.finished_at = Outcome.ABANDONED, ErrorCode.WORKER_LOST, now()
        if quota.is_set:
            quotas.charge(uow.session, job, attempt)
        _end(uow, chat, job, None)


def _open_call(uow: UnitOfWork, job_id: UUID) -> tuple[ChatSession, LlmJob, LlmAttempt] | None:
    chat = lock_session_of(uow.session, job_id)
    job = uow.session.get(LlmJob, job_id, populate_existing=True) if chat else None
    if chat is None or job is None:
        return None  # deleted meanwhile
    attempt = next((a for a in job.attempts if a.purpose == Purpose.TITLE and a.outcome is None), None)
    return (chat, job, attempt) if attempt else None


def _end(uow: UnitOfWork, chat: ChatSession, job: LlmJob, title: str | None) -> None:
    uow.session.flush()
    uow.tell(chat, Happening.job(job))
    give(uow, chat, title)
