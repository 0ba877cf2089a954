"""WebSocket tickets, for browsers: they can't set headers on a socket."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from chat_backend.schemas.chat_session import TicketShape
from chat_backend.services import tickets
from chat_backend.web.auth import current_user
from chat_backend.web.context import backend, settings
from chat_backend.web.openapi import Blueprint

bp = Blueprint("tickets", __name__)


@bp.post("/sessions/<uuid:session_id>/ws-ticket")
@bp.response(201, TicketShape)
def issue_ticket(session_id: UUID) -> dict[str, Any]:
    """Issue a ticket for one connection to the session, to be given as `?ticket=` within 30 seconds."""
    with backend().unit_of_work() as uow:
        ticket, expires_at = tickets.issue(uow, session_id, current_user(), seconds=settings().ticket_seconds)
    return {"ticket": ticket, "expires_at": expires_at}
