"""Messages."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Response, jsonify

from chat_backend.models import Message
from chat_backend.schemas.llm_job import JobShape
from chat_backend.schemas.message import (
    MessageChange,
    MessageList,
    MessageQuery,
    MessageShape,
    NewMessage,
    RenderedMessage,
    SentMessage,
)
from chat_backend.services import messages
from chat_backend.services.messages import Sent
from chat_backend.services.paging import Page
from chat_backend.web.auth import current_user
from chat_backend.web.context import backend, settings
from chat_backend.web.idempotency_key import given_key, replayed
from chat_backend.web.openapi import REPLAYED, Blueprint, keyed
from chat_backend.web.rate_limits import rate_limits
from chat_backend.web.rendering import RenderQuery, add_html

bp = Blueprint("messages", __name__)
_message, _messages, _job = MessageShape(), MessageList(), JobShape()


@bp.get("/sessions/<uuid:session_id>/messages")
@bp.arguments(MessageQuery, location="query")
@bp.response(200, MessageList)
def list_messages(asked: dict[str, Any], session_id: UUID) -> Response:
    """List messages, and the offset they are current to: connect with it as `since` and nothing falls between."""
    before, html = asked.pop("before", None), asked.pop("render", None)
    with backend().reading() as session:
        page = messages.page(session, session_id, current_user(), Page.of(**asked), before=before)
        shown = _messages.dump(page)
    if html:
        add_html(shown["messages"])
    return jsonify(shown)


@bp.post("/sessions/<uuid:session_id>/messages")
@bp.arguments(NewMessage)
@bp.arguments(RenderQuery, location="query")
@bp.response(201, SentMessage, headers=REPLAYED)
@keyed()
def send_message(new: dict[str, Any], asked: dict[str, Any], session_id: UUID) -> tuple[Response, int, dict[str, str]]:
    """Send a message; with `process` also ask for the reply, which arrives on the socket."""
    key, kept_seconds = given_key(), settings().idempotency_retention_seconds
    intent = None if key is None else messages.send_intent(key, new, kept_seconds=kept_seconds)
    if new["process"]:
        rate_limits().ask(current_user())
    with backend().unit_of_work() as uow:
        how: dict[str, Any] = {"fallbacks": settings().llm_fallbacks, "quota": settings().quota}
        sent = messages.send(uow, session_id, current_user(), intent=intent, **how, **new)
    return jsonify(_sent(sent, asked)), 201, replayed(sent.replayed)


@bp.get("/messages/<uuid:message_id>")
@bp.arguments(RenderQuery, location="query")
@bp.response(200, RenderedMessage)
def show_message(asked: dict[str, Any], message_id: UUID) -> Response:
    """Show a message."""
    with backend().reading() as session:
        message = messages.show(session, message_id, current_user())
    return jsonify(_shown(message, asked))


@bp.put("/messages/<uuid:message_id>")
@bp.arguments(MessageChange)
@bp.arguments(RenderQuery, location="query")
@bp.response(200, RenderedMessage)
def change_message(change: dict[str, Any], asked: dict[str, Any], message_id: UUID) -> Response:
    """Change a message; what is absent stays, and nothing is asked again."""
    with backend().unit_of_work() as uow:
        message = messages.change(uow, message_id, current_user(), **change)
    return jsonify(_shown(message, asked))


def _sent(sent: Sent, asked: dict[str, Any]) -> dict[str, Any]:
    job = {} if sent.job is None else {"job": _job.dump(sent.job)}
    return {**_shown(sent.message, asked), **job}


def _shown(message: Message, asked: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = _message.dump(message)
    if asked.get("render"):
        add_html([shown])
    return shown
