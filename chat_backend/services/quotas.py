"""Quotas: reserve before a job is queued, settle when it ends.

A reservation is two numbers in the job that holds it. It is made in the transaction that queues the job, and what
ends or deletes the job takes it away: there is no second count that could be left behind.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from chat_backend.domain import thoughts, tokens
from chat_backend.domain.enums import JobStatus, Outcome
from chat_backend.domain.errors import ErrorCode, TooMany
from chat_backend.domain.quota import Amount, Quota, Reservation, Standing
from chat_backend.models import ChatSession, LlmAttempt, LlmJob, Message, QuotaDay
from chat_backend.models.base import now
from chat_backend.row_locks import Level, lock_next
from chat_backend.services import prompts

# What is only reserved may be released at any moment.
SOON_SECONDS = 10
_DAY_NOW = (
    select(QuotaDay.user_id)
    .where(QuotaDay.user_id == bindparam("user_id"), QuotaDay.day == bindparam("day"))
    .with_for_update(skip_locked=True)
)


def reserve(
    session: Session,
    chat: ChatSession,
    question: Message,
    user_id: str,
    *,
    quota: Quota,
    asked: Mapping[str, Any],
    waiting: Iterable[LlmJob] = (),
) -> Reservation:
    """Return what a job for this question has to hold of its user's quota; the day is locked until the commit.

    Whoever has anything left may ask once more: what is used and reserved never exceeds a quota by more than one
    reservation. `asked` names provider, model, max_tokens and context_tokens; `waiting` are the session's jobs whose
    replies will be in the prompt. Raises TooMany.
    """
    at = now()
    session.flush()  # what this transaction has settled holds nothing any more
    _lock_day(session, user_id, _day(at))
    standing = _standing(session, user_id, at)
    _check("requests", quota.requests, standing.used.requests, standing.reserved.requests, at)
    _check("tokens", quota.tokens, standing.used.tokens, standing.reserved.tokens, at)
    most = asked["max_tokens"] or quota.reply_tokens
    if not quota.tokens:
        return Reservation(0, most)
    model = (asked["provider"], asked["model"])
    budget = quota.context.budget(*model, asked=asked["context_tokens"], max_tokens=most)
    reply = quota.context.reply(*model, max_tokens=most, budget=budget)
    prompt = _prompt_tokens(session, chat, question, quota, budget)
    # Each reply comes between two of the user's messages, which are one turn of the prompt until then.
    growth = sum((job.reserved_reply_tokens or 0) + 2 * tokens.TURN_OVERHEAD for job in waiting)
    # Settings may change before the job starts: it is held to what is reserved for it now.
    held = {"max_tokens": reply, "context_tokens": budget}
    return Reservation(max(prompt, min(prompt + growth, budget)), reply, held)


def _check(what: str, limit: int, used: int, reserved: int, at: datetime) -> None:
    if not limit or used + reserved < limit:
        return
    resets_at = _next_midnight(at)
    seconds = math.ceil((resets_at - at).total_seconds()) if used >= limit else SOON_SECONDS
    standing = {"quota": what, "limit": limit, "used": used, "reserved": reserved}
    raise TooMany(
        f"Your quota of {what} for today is used up.",
        code=ErrorCode.QUOTA_EXCEEDED,
        details={**standing, "resets_at": _rfc3339(resets_at), "retry_after_seconds": seconds},
        retry_after_seconds=seconds,
    )


def _prompt_tokens(session: Session, chat: ChatSession, question: Message, quota: Quota, budget: int) -> int:
    prompt = prompts.put_together(session, chat, question, budget=budget, summed_up=quota.summed_up)
    if prompt.outside is None:
        return tokens.estimate_turns(prompt.turns)
    # The summary is a call of its own, and then part of the prompt.
    both = tokens.estimate_turns((*prompt.turns, *prompt.outside.turns))
    return both + 2 * prompt.outside.most_tokens + thoughts.ROOM_TOKENS


def hold_days(session: Session, user_id: str, jobs: Iterable[LlmJob]) -> None:
    """Lock everything that settling these jobs, and then asking as a user, will write to.

    Always in one order: two transactions that settle jobs of several users must not wait for each other.
    """
    days = {(job.user_id, _day(job.created_at)) for job in jobs if job.holds_reservation}
    if days:
        for user, day in sorted(days | {(user_id, _day(now()))}):
            _lock_day(session, user, day)


def settle(session: Session, job: LlmJob, text: str) -> None:
    """Turn a reservation into what was really used, once; `text` is the reply's, as far as it is known.

    A failed job is no request used up, unless it was the reply that had no end; what its attempts cost is.
    """
    if not job.holds_reservation:
        return
    in_vain = job.status == JobStatus.FAILED and job.error_code != ErrorCode.REPLY_TOO_LONG
    requests = 1 if job.attempts and not in_vain else 0
    spent = sum(_cost(attempt, job, text) for attempt in job.attempts)
    _lock_day(session, job.user_id, _day(job.created_at))
    _add(session, job.user_id, _day(job.created_at), Amount(requests, spent))
    job.reserved_prompt_tokens = job.reserved_reply_tokens = None


def charge(session: Session, job: LlmJob, attempt: LlmAttempt) -> None:
    """Count what a call took that was made after its job had been settled."""
    _lock_day(session, job.user_id, _day(job.created_at))
    _add(session, job.user_id, _day(job.created_at), Amount(0, _cost(attempt, job, "")))


def _cost(attempt: LlmAttempt, job: LlmJob, text: str) -> int:
    prompt, written = attempt.prompt_tokens, attempt.completion_tokens
    if attempt.outcome in (None, Outcome.ABANDONED):
        # Nobody was there to count it, and it may be billed.
        prompt = job.reserved_prompt_tokens if prompt is None else prompt
        written = tokens.estimate(text) if written is None and attempt.number == job.attempt else written
    return (prompt or 0) + (written or 0)


def standing(session: Session, user_id: str) -> Standing:
    """Return how a user stands today."""
    return _standing(session, user_id, now())


def _standing(session: Session, user_id: str, at: datetime) -> Standing:
    used = session.execute(
        select(QuotaDay.requests_used, QuotaDay.tokens_used).where(
            QuotaDay.user_id == user_id, QuotaDay.day == _day(at)
        )
    ).one_or_none()
    both = LlmJob.reserved_prompt_tokens + LlmJob.reserved_reply_tokens
    requests, reserved = session.execute(
        select(func.count(), func.coalesce(func.sum(both), 0)).where(
            LlmJob.user_id == user_id,
            LlmJob.reserved_prompt_tokens.is_not(None),
            LlmJob.created_at >= _next_midnight(at) - timedelta(days=1),
        )
    ).one()
    return Standing(Amount(*used) if used else Amount(), Amount(requests, reserved or 0))


def resets_at() -> datetime:
    """Return when the day ends."""
    return _next_midnight(now())


def _lock_day(session: Session, user_id: str, day: date) -> None:
    """Lock a user's day until the commit, and create it where it is missing."""
    which = {"user_id": user_id, "day": day}
    # An upsert in the end: a row that does not exist can't be locked by a select.
    lock_next(
        session,
        Level.QUOTA_DAY,
        now=lambda: session.scalar(_DAY_NOW, which),
        blocking=lambda: _add(session, user_id, day, Amount()),
    )


def _add(session: Session, user_id: str, day: date, amount: Amount) -> None:
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    new = insert(QuotaDay).values(user_id=user_id, day=day, requests_used=amount.requests, tokens_used=amount.tokens)
    grown = {name: getattr(QuotaDay, name) + new.excluded[name] for name in ("requests_used", "tokens_used")}
    session.execute(new.on_conflict_do_update(index_elements=[QuotaDay.user_id, QuotaDay.day], set_=grown))


def _day(at: datetime) -> date:
    return at.astimezone(UTC).date()


def _next_midnight(at: datetime) -> datetime:
    return datetime.combine(_day(at) + timedelta(days=1), datetime.min.time(), UTC)


def _rfc3339(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
