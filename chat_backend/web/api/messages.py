"""Messages."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Response, jsonify

from chat_backend.models import Message
from chat_backend.schemas.llm_job import JobShape
from chat_backend.schemas.message import MessageChange, MessageList, MessageQuery, MessageShape, NewMessage, SentMessage
from chat_backend.services import messages
from chat_backend.services.messages import Sent
from chat_backend.services.paging import Page
from chat_backend.web.auth import current_user
from chat_backend.web.context import backend, settings
from chat_backend.web.idempotency_key import given_key, replayed
from chat_backend.web.openapi import REPLAYED, Blueprint, keyed
from chat_backend.web.rate_limits import rate_limits

bp = Blueprint("messages", __name__)
_message, _job = MessageShape(), JobShape()


@bp.get("/sessions/<uuid:session_id>/messages")
@bp.arguments(MessageQuery, location="query")
@bp.response(200, MessageList)
def list_messages(asked: dict[str, Any], session_id: UUID) -> dict[str, Any]:
    """List messages, and the offset they are current to: connect with it as `since` and nothing falls between."""
    before = asked.pop("before", None)
    with backend().reading() as session:
        return messages.page(session, session_id, current_user(), Page.of(**asked), before=before)


@bp.post("/sessions/<uuid:session_id>/messages")
@bp.arguments(NewMessage)
@bp.response(201, SentMessage, headers=REPLAYED)
@keyed()
def send_message(new: dict[str, Any], session_id: UUID) -> tuple[Response, int, dict[str, str]]:
    """Send a message; with `process` also ask for the reply, which arrives on the socket."""
    key, kept_seconds = given_key(), settings().idempotency_retention_seconds
    intent = None if key is None else messages.send_intent(key, new, kept_seconds=kept_seconds)
    if new["process"]:
        rate_limits().ask(current_user())
    with backend().unit_of_work() as uow:
        how: dict[str, Any] = {"fallbacks": settings().llm_fallbacks, "quota": settings().quota}
        sent = messages.send(uow, session_id, current_user(), intent=intent, **how, **new)
    return jsonify(_shown(sent)), 201, replayed(sent.replayed)


def _shown(sent: Sent) -> dict[str, Any]:
    job = {} if sent.job is None else {"job": _job.dump(sent.job)}
    return {**_message.dump(sent.message), **job}


@bp.put("/messages/<uuid:message_id>")
@bp.arguments(MessageChange)
@bp.response(200, MessageShape)
def change_message(change: dict[str, Any], message_id: UUID) -> Message:
    """Change a message; what is absent stays, and nothing is asked again."""
    with backend().unit_of_work() as uow:
        return messages.change(uow, message_id, current_user(), **change)
