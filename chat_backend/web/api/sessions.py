"""Chat sessions."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import url_for

from chat_backend.models import ChatSession
from chat_backend.schemas.chat_session import (
    NewSession,
    SessionChange,
    SessionDeleted,
    SessionList,
    SessionQuery,
    SessionShape,
)
from chat_backend.services import chat_sessions
from chat_backend.services.paging import Page
from chat_backend.web.auth import current_user
from chat_backend.web.context import backend, settings
from chat_backend.web.idempotency_key import intent_of, replayed
from chat_backend.web.openapi import LOCATION, REPLAYED, Blueprint, keyed

bp = Blueprint("sessions", __name__)


@bp.get("/sessions")
@bp.arguments(SessionQuery, location="query")
@bp.response(200, SessionList)
def list_sessions(asked: dict[str, Any]) -> dict[str, Any]:
    """List the chat sessions I take part in."""
    page = Page.of(**{name: asked.pop(name) for name in ("page", "page_size", "order", "cursor") if name in asked})
    with backend().reading() as session:
        return chat_sessions.page(session, current_user(), page, **asked)


@bp.post("/sessions")
@bp.arguments(NewSession)
@bp.response(201, SessionShape, headers=LOCATION | REPLAYED)
@keyed()
def make_session(new: dict[str, Any]) -> tuple[ChatSession, dict[str, str]]:
    """Make a chat session; who makes it owns it."""
    intent = intent_of("make_session", new)
    with backend().unit_of_work() as uow:
        chat, known = chat_sessions.make(
            uow, current_user(), intent=intent, most=settings().max_sessions_per_user, **new
        )
    return chat, {"Location": url_for("sessions.show_session", session_id=chat.id), **replayed(known)}


@bp.get("/sessions/<uuid:session_id>")
@bp.response(200, SessionShape)
def show_session(session_id: UUID) -> ChatSession:
    """Show a chat session."""
    with backend().reading() as session:
        return chat_sessions.show(session, session_id, current_user())


@bp.put("/sessions/<uuid:session_id>")
@bp.arguments(SessionChange)
@bp.response(200, SessionShape)
def change_session(change: dict[str, Any], session_id: UUID) -> ChatSession:
    """Change a chat session; what is absent stays, `settings` are replaced whole."""
    with backend().unit_of_work() as uow:
        return chat_sessions.change(uow, session_id, current_user(), **change)


@bp.delete("/sessions/<uuid:session_id>")
@bp.response(200, SessionDeleted)
def remove_session(session_id: UUID) -> dict[str, Any]:
    """Delete a chat session and everything below it; running jobs stop, sockets close."""
    with backend().unit_of_work() as uow:
        chat_sessions.remove(uow, session_id, current_user())
    return {"message": "The chat session was deleted.", "session_id": session_id}
