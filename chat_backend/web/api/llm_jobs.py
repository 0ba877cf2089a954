"""Replies: ask for one, look at its job, stop it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Flask, current_app, request, url_for

from chat_backend.domain.enums import JobStatus, has_ended
from chat_backend.domain.errors import InvalidInput
from chat_backend.domain.prompt import OPTIONS
from chat_backend.models import LlmJob, Message
from chat_backend.schemas.llm_job import JobShape, Regeneration, ReplyRequest, ReplyShape
from chat_backend.services import llm_jobs
from chat_backend.web.auth import current_user
from chat_backend.web.context import backend, settings
from chat_backend.web.idempotency_key import intent_of, replayed
from chat_backend.web.openapi import LOCATION, PREFERENCE, REPLAYED, Blueprint, keyed
from chat_backend.web.preferences import Preference
from chat_backend.web.rate_limits import rate_limits
from chat_backend.web.waiting import wait_for_job

bp = Blueprint("llm_jobs", __name__)
HEADERS = LOCATION | PREFERENCE | REPLAYED
Answer = tuple[dict[str, Any], int, dict[str, str]]


@bp.post("/sessions/<uuid:session_id>/process-llm")
@bp.arguments(ReplyRequest)
@bp.response(200, ReplyShape, headers=HEADERS)
@bp.alt_response(202, schema=ReplyShape, headers=HEADERS, success=True)
@keyed(prefers=True)
def process_llm(asked: dict[str, Any], session_id: UUID) -> Answer:
    """Ask for the reply to a message or a prompt; wait for it, unless told otherwise."""
    stream, named = asked.pop("stream"), asked.pop("session_id", session_id)
    how = _how(asked)
    rate_limits().ask(current_user())
    with backend().unit_of_work() as uow:
        job, known = llm_jobs.request(uow, session_id, current_user(), intent=intent_of("process_llm", asked), **how)
        if named != session_id:
            raise InvalidInput("Differs from the session of the address.", field="session_id")
    return _answer(job, stream=stream, known=known)


@bp.post("/messages/<uuid:message_id>/regenerate")
@bp.arguments(Regeneration, required=False)
@bp.response(200, ReplyShape, headers=HEADERS)
@bp.alt_response(202, schema=ReplyShape, headers=HEADERS, success=True)
@keyed(prefers=True)
def regenerate(asked: dict[str, Any], message_id: UUID) -> Answer:
    """Ask for another reply to the same question, beside the one there is."""
    stream = asked.pop("stream")
    intent = intent_of("regenerate", {"message_id": message_id, **asked})
    rate_limits().ask(current_user())
    with backend().unit_of_work() as uow:
        job, known = llm_jobs.regenerate(uow, message_id, current_user(), intent=intent, **_how(asked))
    return _answer(job, stream=stream, known=known)


@bp.get("/jobs/<uuid:job_id>")
@bp.response(200, JobShape)
def show_job(job_id: UUID) -> LlmJob:
    """Show a job and its attempts."""
    with backend().reading() as session:
        return llm_jobs.show(session, job_id, current_user())


@bp.post("/jobs/<uuid:job_id>/cancel")
@bp.response(202, JobShape, headers=REPLAYED)
@bp.alt_response(200, schema=JobShape, headers=REPLAYED, success=True)
@keyed()
def cancel_job(job_id: UUID) -> tuple[LlmJob, int, dict[str, str]]:
    """Stop a job: 202 until its worker confirms, 200 where it has ended."""
    intent = intent_of("cancel", {"job_id": job_id})
    with backend().unit_of_work() as uow:
        job, known = llm_jobs.cancel(uow, job_id, current_user(), intent=intent)
    return job, 200 if has_ended(job.status) else 202, replayed(known)


def _how(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the seed's words as the services say them."""
    how = {"fallbacks": settings().llm_fallbacks, "quota": settings().quota, "model": asked.get("model_name")}
    how["options"] = {name: asked[name] for name in OPTIONS if name in asked}
    return how | {name: asked[name] for name in ("message_id", "prompt", "provider", "on_busy") if name in asked}


def _answer(job: LlmJob, *, stream: bool, known: bool) -> Answer:
    """Wait as long as the client would, then show the reply as it is."""
    preference = Preference.of(request.headers.get("Prefer", ""))
    seconds = preference.waits(stream=stream)
    if seconds:
        wait_for_job(_app(), job.id, job.session_id, user_id=current_user().id, seconds=seconds)
    with backend().reading() as session:
        job, reply = llm_jobs.show_reply(session, job.id, current_user())
    pending = not has_ended(job.status) or preference.at_once(stream=stream)
    headers = {"Location": url_for("llm_jobs.show_job", job_id=job.id), **replayed(known)}
    if preference.applied:
        headers["Preference-Applied"] = preference.applied
    return _reply(job, reply), 202 if pending else 200, headers


def _reply(job: LlmJob, reply: Message) -> dict[str, Any]:
    ended = has_ended(job.status)
    return {
        "message_id": job.message_id,
        "session_id": job.session_id,
        "response": reply.content if ended else None,
        "tokens_used": reply.tokens_used if ended else None,
        "response_time_ms": reply.response_time_ms if ended else None,
        "provider": job.provider,
        "model": job.model,
        "success": job.status == JobStatus.SUCCEEDED if ended else None,
        "error_message": _error(job),
        "job_id": job.id,
        "assistant_message_id": reply.id,
        "status": job.status,
    }


def _error(job: LlmJob) -> str | None:
    return "The reply was cancelled." if job.status == JobStatus.CANCELLED else job.error_message


def _app() -> Flask:
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    return app
