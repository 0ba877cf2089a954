"""Jobs as clients see them: ask for a reply, look at it, stop it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from chat_backend.domain import limits
from chat_backend.domain.enums import (
    Action,
    AuditAction,
    JobStatus,
    MessageStatus,
    OnBusy,
    Role,
    has_ended,
    is_finished,
)
from chat_backend.domain.errors import Conflict, ErrorCode, InvalidInput
from chat_backend.domain.model_reference import read_model_reference
from chat_backend.domain.quota import Quota, Reservation
from chat_backend.domain.trace import current_trace
from chat_backend.domain.user import User
from chat_backend.models import ChatSession, LlmJob, Message
from chat_backend.models.base import database_clock, new_id, now
from chat_backend.models.llm_job import UNFINISHED
from chat_backend.protocol.events import Happening
from chat_backend.row_locks import Level, lock_next
from chat_backend.services import backlog, idempotency, quotas, summaries
from chat_backend.services.access import WRITE, enter, no_such, session_of
from chat_backend.services.idempotency import Intent
from chat_backend.services.transcript import add_message
from chat_backend.unit_of_work import UnitOfWork

NO_QUOTA = Quota()
# Made once: to put a statement together costs as much as to execute it.
_JOB = (
    select(LlmJob)
    .where(LlmJob.id == bindparam("job_id"), LlmJob.session_id == bindparam("session_id"))
    .execution_options(populate_existing=True)
)
_JOB_NOW, _JOB_WAIT = (_JOB.with_for_update(skip_locked=skip) for skip in (True, False))
_UNFINISHED = select(LlmJob).where(LlmJob.session_id == bindparam("session_id"), UNFINISHED).order_by(LlmJob.position)
_UNFINISHED_NOW, _UNFINISHED_WAIT = (
    _UNFINISHED.with_for_update(skip_locked=skip).execution_options(populate_existing=True) for skip in (True, False)
)


def ask(
    uow: UnitOfWork,
    chat: ChatSession,
    question: Message,
    user: User,
    *,
    provider: str | None = None,
    model: str | None = None,
    options: dict[str, Any] | None = None,
    on_busy: str | None = None,
    fallbacks: tuple[str, ...] = (),
    quota: Quota = NO_QUOTA,
    action: AuditAction = AuditAction.REPLY_ASKED,
) -> LlmJob:
    """Ask for a reply to a message: a job and a pending reply, told to everyone, a worker woken.

    Returns the unfinished job that the message has already. The caller holds the chat session's lock.
    Raises Conflict where the session is busy and the client would not wait, TooMany where the quota is used up or the
    user has too many unfinished, Unavailable where everyone has.
    """
    waiting = unfinished(uow.session, chat.id)
    for job in waiting:
        if job.message_id == question.id:
            return job
    backlog.check(uow.session, user.id, quota.backlog)
    _make_room(uow, chat, waiting, on_busy or chat.settings.get("on_busy", OnBusy.QUEUE), user)
    chain, options = _chain(chat, provider, model, fallbacks), options or {}
    held = _reserve(uow, chat, question, user, quota=quota, first=chain[0], options=options, waiting=waiting)
    if question.seq < chat.last_seq:
        summaries.forget(uow.session, chat.id, from_seq=question.seq)
    job_id = new_id()
    reply = add_message(
        uow,
        chat,
        user,
        content="",
        role=Role.ASSISTANT,
        status=MessageStatus.PENDING,
        job_id=job_id,
        parent_message_id=question.parent_message_id,
        message_metadata={},
        llm_provider=chain[0]["provider"],
        llm_model=chain[0]["model"],
    )
    job = _queue(uow, job_id, question, reply, user=user, chain=chain, options=options, held=held)
    uow.tell(chat, Happening.message(Action.NEW_MESSAGE, reply, user_id=user.id))
    uow.tell(chat, Happening.job(job, user_id=user.id))
    uow.record(chat, action, user, message_id=question.id, job_id=job.id)
    if all(other.status == JobStatus.CANCELLED for other in waiting):
        uow.wake(job.id)
    return job


def _reserve(
    uow: UnitOfWork,
    chat: ChatSession,
    question: Message,
    user: User,
    *,
    quota: Quota,
    first: dict[str, str],
    options: dict[str, Any],
    waiting: list[LlmJob],
) -> Reservation | None:
    if not quota.is_set:
        return None
    wanted = chat.settings | options
    asked = first | {name: wanted.get(name) for name in ("max_tokens", "context_tokens")}
    return quotas.reserve(uow.session, chat, question, user.id, quota=quota, asked=asked, waiting=waiting)


def _queue(
    uow: UnitOfWork,
    job_id: UUID,
    question: Message,
    reply: Message,
    *,
    user: User,
    chain: list[dict[str, str]],
    options: dict[str, Any],
    held: Reservation | None,
) -> LlmJob:
    job = LlmJob(
        id=job_id,
        session_id=question.session_id,
        message_id=question.id,
        assistant_message_id=reply.id,
        question=question,
        reply=reply,
        position=reply.seq,
        user_id=user.id,
        status=JobStatus.QUEUED,
        attempt=0,
        chain=chain,
        chain_position=0,
        options=options if held is None else {**options, **held.options},
        failures=0,
        abandonments=0,
        not_before=database_clock(),
        created_at=now(),
        attempts=[],
        trace_id=current_trace(),
        reserved_prompt_tokens=None if held is None else held.prompt_tokens,
        reserved_reply_tokens=None if held is None else held.reply_tokens,
    )
    uow.session.add(job)
    return job


def _chain(
    chat: ChatSession, provider: str | None, model: str | None, fallbacks: tuple[str, ...]
) -> list[dict[str, str]]:
    first = {"provider": provider or chat.llm_provider, "model": model or chat.llm_model}
    chain = [first]
    for reference in chat.settings.get("fallbacks", fallbacks):
        try:
            name, its_model = read_model_reference(reference)
        except ValueError:
            continue  # a provider that only a newer release knows
        link = {"provider": name, "model": its_model}
        if link not in chain:
            chain.append(link)
    return chain


def unfinished(session: Session, session_id: UUID) -> list[LlmJob]:
    """Return a chat session's unfinished jobs in the order they run."""
    return list(session.scalars(_UNFINISHED, {"session_id": session_id}))


def lock_unfinished(session: Session, session_id: UUID, known: list[LlmJob]) -> list[LlmJob]:
    """Lock the unfinished jobs of a chat session, whose lock the caller holds; a heartbeat may hold theirs."""
    if not known:
        return known
    which = {"session_id": session_id}

    def now() -> list[LlmJob] | None:
        found = list(session.scalars(_UNFINISHED_NOW, which))
        return found if len(found) == len(known) else None

    return lock_next(session, Level.JOB, now=now, blocking=lambda: list(session.scalars(_UNFINISHED_WAIT, which))) or []


def _make_room(uow: UnitOfWork, chat: ChatSession, waiting: list[LlmJob], on_busy: str, user: User) -> None:
    # A setting of a newer release that is not known here means: wait.
    if on_busy == OnBusy.REJECT and waiting:
        details = {"job_id": str(waiting[0].id)}
        raise Conflict("Another prompt is being answered.", code=ErrorCode.SESSION_BUSY, details=details)
    if on_busy == OnBusy.INTERRUPT:
        lock_unfinished(uow.session, chat.id, waiting)
        quotas.hold_days(uow.session, user.id, waiting)
        # From the back, so that no waiting job is woken by the end of the one before it.
        for job in reversed(waiting):
            stop(uow, chat, job, user)
    elif len(waiting) > limits.QUEUED_JOBS:  # the first of them runs, or is about to
        raise Conflict(f"{limits.QUEUED_JOBS} prompts are waiting already.", code=ErrorCode.QUEUE_FULL)


def request(
    uow: UnitOfWork,
    session_id: UUID,
    user: User,
    *,
    message_id: UUID | None = None,
    prompt: str | None = None,
    intent: Intent | None = None,
    fallbacks: tuple[str, ...] = (),
    **how: Any,
) -> tuple[LlmJob, bool]:
    """Ask for the reply to a message, or to a prompt that is stored as one first.

    Returns the job and whether it was asked for before under this key.
    """
    chat = enter(uow.session, session_id, user, to=WRITE, lock=True)
    if made := idempotency.begin(uow, user, intent, scope=chat.id):
        return _made_before(uow, made.job_id), True
    if message_id is not None:
        question = _question(uow, chat, message_id, prompt)
    elif prompt is not None:
        question = add_message(
            uow,
            chat,
            user,
            content=prompt,
            role=Role.USER,
            user_id=user.id,
            message_metadata={},
            parent_message_id=None,
        )
        uow.tell(chat, Happening.message(Action.NEW_MESSAGE, question, user_id=user.id))
        uow.record(chat, AuditAction.MESSAGE_SENT, user, message_id=question.id)
    else:
        raise InvalidInput("Either message_id or prompt must be given.", field="message_id")
    job = ask(uow, chat, question, user, fallbacks=fallbacks, **how)
    idempotency.made(uow, user, intent, scope=chat.id, message_id=question.id, job_id=job.id)
    return job, False


def _made_before(uow: UnitOfWork, job_id: UUID | None) -> LlmJob:
    if job_id is None:
        raise no_such("job")
    return find(uow.session, job_id)


def _question(uow: UnitOfWork, chat: ChatSession, message_id: UUID, prompt: str | None) -> Message:
    query = select(Message).where(Message.id == message_id, Message.session_id == chat.id)
    question = uow.session.scalar(query)
    if question is None:
        raise no_such("message")
    if question.role != Role.USER:
        raise InvalidInput("Only a user's message can be answered.", field="message_id")
    if prompt is not None and prompt != question.content:
        raise InvalidInput("The prompt differs from the message: give one of them.", field="prompt")
    return question


def regenerate(
    uow: UnitOfWork, message_id: UUID, user: User, *, intent: Intent | None = None, **how: Any
) -> tuple[LlmJob, bool]:
    """Ask for a sibling of a finished reply: the same question, a new reply."""
    session_id = session_of(uow.session, Message, message_id, user)
    chat = enter(uow.session, session_id, user, to=WRITE, lock=True)
    if made := idempotency.begin(uow, user, intent, scope=chat.id):
        return _made_before(uow, made.job_id), True
    reply = uow.session.get(Message, message_id, populate_existing=True)
    if reply is None or reply.session_id != chat.id:
        raise no_such("message")
    if reply.job_id is None:
        raise Conflict("Only a reply can be regenerated.", code=ErrorCode.NOT_A_REPLY)
    if not is_finished(reply.status):
        raise Conflict("The reply is still being written.", code=ErrorCode.MESSAGE_BUSY)
    question = uow.session.scalars(
        select(Message).join(LlmJob, LlmJob.message_id == Message.id).where(LlmJob.id == reply.job_id)
    ).one()
    job = ask(uow, chat, question, user, action=AuditAction.REPLY_REGENERATED, **how)
    idempotency.made(uow, user, intent, scope=chat.id, message_id=question.id, job_id=job.id)
    return job, False


def show(session: Session, job_id: UUID, user: User) -> LlmJob:
    """Return a job to a participant."""
    session_of(session, LlmJob, job_id, user)
    return find(session, job_id)


def show_reply(session: Session, job_id: UUID, user: User) -> tuple[LlmJob, Message]:
    """Return a job and the reply it fills to a participant."""
    job = show(session, job_id, user)
    reply = session.get(Message, job.assistant_message_id)
    if reply is None:
        raise no_such("job")
    return job, reply


def find(session: Session, job_id: UUID) -> LlmJob:
    """Return a job with its attempts, for who has been let in already. Raises NotFound."""
    job = session.get(LlmJob, job_id)
    if job is None:
        raise no_such("job")
    _ = job.attempts  # read within the transaction, to be shown after it
    return job


def cancel(uow: UnitOfWork, job_id: UUID, user: User, *, intent: Intent | None = None) -> tuple[LlmJob, bool]:
    """Stop a job; return it and whether that was asked for before under this key.

    A job that runs is unfinished still: its worker has to confirm.
    """
    session_id = session_of(uow.session, LlmJob, job_id, user)
    chat = enter(uow.session, session_id, user, to=WRITE, lock=True)
    which = {"job_id": job_id, "session_id": chat.id}
    job = lock_next(
        uow.session,
        Level.JOB,
        now=lambda: uow.session.scalar(_JOB_NOW, which),
        blocking=lambda: uow.session.scalar(_JOB_WAIT, which),
    )
    if job is None:
        raise no_such("job")
    known = idempotency.begin(uow, user, intent, scope=chat.id) is not None
    stop(uow, chat, job, user)
    idempotency.made(uow, user, intent, scope=chat.id, message_id=job.message_id, job_id=job.id)
    _ = job.attempts  # read within the transaction, to be shown after it
    return job, known


def stop(uow: UnitOfWork, chat: ChatSession, job: LlmJob, user: User) -> None:
    """Cancel a queued job at once; note the request on one that runs and tell its worker. Ended: do nothing.

    On a job whose status is not known the request is noted as well, for the release that knows it.
    """
    if not has_ended(job.status) and job.cancel_requested_at is None:
        uow.record(chat, AuditAction.REPLY_CANCELLED, user, message_id=job.message_id, job_id=job.id)
    if job.status == JobStatus.QUEUED:
        reply = uow.session.get(Message, job.assistant_message_id, populate_existing=True)
        assert reply is not None
        uow.session.flush()  # those that were stopped with it are not following
        others = (other for other in unfinished(uow.session, chat.id) if other is not job)
        following = next((other.id for other in others if other.status == JobStatus.QUEUED), None)
        end(uow, chat, job, reply, status=JobStatus.CANCELLED, following=following, user_id=user.id)
    elif not has_ended(job.status):
        if job.cancel_requested_at is None:
            job.cancel_requested_at = uow.session.scalar(select(database_clock()))
        uow.cancel(job.id)


_ENDS = {
    JobStatus.SUCCEEDED: (MessageStatus.COMPLETE, Action.COMPLETED),
    JobStatus.FAILED: (MessageStatus.FAILED, Action.FAILED),
    JobStatus.CANCELLED: (MessageStatus.CANCELLED, Action.CANCELLED),
}


def end(
    uow: UnitOfWork,
    chat: ChatSession,
    job: LlmJob,
    reply: Message,
    *,
    status: JobStatus,
    following: UUID | None,
    code: ErrorCode | None = None,
    error: str | None = None,
    user_id: str | None = None,
) -> None:
    """End a job and its reply, tell everyone, and wake the job that follows in the session."""
    reply.status, action = _ENDS[status]
    reply.error_message = error
    reply.updated_at = chat.updated_at = max(now(), reply.updated_at, chat.updated_at)
    job.status, job.error_code, job.error_message = status, code, error
    job.lease_until = job.lease_owner = job.retry_at = None
    job.finished_at = now()
    quotas.settle(uow.session, job, reply.content)
    if reply.storage_user_id is not None:
        # The reply was accepted: it is kept, whatever its user has stored meanwhile.
        uow.charge_storage(reply.storage_user_id, reply.stored_bytes, check=False)
    uow.tell(chat, Happening.message(action, reply, user_id=user_id))
    uow.tell(chat, Happening.job(job, user_id=user_id))
    if following is not None:
        uow.wake(following)
