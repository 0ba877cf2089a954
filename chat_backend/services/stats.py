"""Stats over chat sessions: one's own, or for an admin all."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from chat_backend.domain.enums import Outcome, Purpose
from chat_backend.domain.user import User
from chat_backend.models import ChatSession, LlmAttempt, LlmJob, Message, Participant
from chat_backend.models.base import now


def stats(session: Session, user: User) -> dict[str, Any]:
    """Return the counts of the contract; null where there is nothing to average or to rank."""
    counts: Any = select(
        func.count(),
        func.coalesce(func.sum(ChatSession.message_count), 0),
        func.count().filter(ChatSession.is_active),
    )
    sessions, messages, active = session.execute(_mine(counts.select_from(ChatSession), user)).one()
    return {
        "total_sessions": sessions,
        "total_messages": messages,
        "active_sessions": active,
        "messages_today": session.scalar(_today(user)),
        "average_response_time_ms": _average(session, user),
        "most_used_provider": _most_used(session, user, LlmAttempt.provider),
        "most_used_model": _most_used(session, user, LlmAttempt.model),
        "providers": _providers(session, user),
    }


def _mine(query: Select[Any], user: User) -> Select[Any]:
    if user.is_admin:
        return query.where(ChatSession.deleted_at.is_(None))
    mine = select(Participant.session_id).where(Participant.user_id == user.id)
    return query.where(ChatSession.id.in_(mine))


def _today(user: User) -> Select[Any]:
    midnight = now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    query = select(func.count()).select_from(Message).where(Message.created_at >= midnight)
    if user.is_admin:
        deleted = select(ChatSession.id).where(ChatSession.deleted_at.is_not(None))
        return query.where(Message.session_id.not_in(deleted))
    mine = select(Participant.session_id).where(Participant.user_id == user.id)
    return query.where(Message.session_id.in_(mine))


def _attempts(user: User, *what: Any) -> Select[Any]:
    joined = (
        select(*what)
        .select_from(ChatSession)
        .join(LlmJob, LlmJob.session_id == ChatSession.id)
        .join(LlmAttempt, LlmAttempt.job_id == LlmJob.id)
    )
    return _mine(joined, user)


def _succeeded(what: Any, user: User) -> Select[Any]:
    return _attempts(user, what).where(LlmAttempt.outcome == Outcome.SUCCEEDED, LlmAttempt.purpose == Purpose.REPLY)


def _providers(session: Session, user: User) -> list[dict[str, Any]]:
    """Return what was asked of each provider, failures included: that is what bills are made of."""
    columns: dict[str, Any] = {
        "provider": LlmAttempt.provider,
        "attempts": func.count(),
        **{outcome.value: func.count().filter(LlmAttempt.outcome == outcome) for outcome in Outcome},
        "estimated": func.count().filter(LlmAttempt.usage_estimated),
        "prompt_tokens": func.coalesce(func.sum(LlmAttempt.prompt_tokens), 0),
        "completion_tokens": func.coalesce(func.sum(LlmAttempt.completion_tokens), 0),
        "cost": func.sum(LlmAttempt.cost),
        "average_time_to_first_token_ms": func.avg(LlmAttempt.time_to_first_token_ms),
    }
    labelled = [column.label(name) for name, column in columns.items()]
    query = _attempts(user, *labelled).group_by(LlmAttempt.provider).order_by(LlmAttempt.provider)
    return [dict(row) for row in session.execute(query).mappings()]


def _average(session: Session, user: User) -> float | None:
    found = session.scalar(_succeeded(func.avg(LlmAttempt.duration_ms), user))
    return None if found is None else float(found)


def _most_used(session: Session, user: User, column: Any) -> str | None:
    grouped: ColumnElement[Any] = column
    query = _succeeded(grouped, user).group_by(grouped).order_by(func.count().desc(), grouped).limit(1)
    return session.scalar(query)
