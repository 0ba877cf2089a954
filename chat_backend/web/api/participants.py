"""Participants."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Response

from chat_backend.models import Participant
from chat_backend.schemas.chat_session import NewParticipant, ParticipantList, ParticipantShape
from chat_backend.services import participants
from chat_backend.web.auth import current_user
from chat_backend.web.context import backend, settings
from chat_backend.web.idempotency_key import intent_of, replayed
from chat_backend.web.openapi import REPLAYED, Blueprint, keyed

bp = Blueprint("participants", __name__)


@bp.get("/sessions/<uuid:session_id>/participants")
@bp.response(200, ParticipantList)
def list_participants(session_id: UUID) -> dict[str, Any]:
    """List everyone who takes part."""
    with backend().reading() as session:
        return {"participants": participants.everyone(session, session_id, current_user())}


@bp.post("/sessions/<uuid:session_id>/participants")
@bp.arguments(NewParticipant)
@bp.response(201, ParticipantShape, headers=REPLAYED)
@bp.alt_response(200, schema=ParticipantShape, headers=REPLAYED, success=True)
@keyed()
def admit(new: dict[str, Any], session_id: UUID) -> tuple[Participant, int, dict[str, str]]:
    """Admit a user, 201, or change a participant's role, 200."""
    intent = intent_of("admit", new)
    with backend().unit_of_work() as uow:
        admitted = participants.admit(
            uow,
            session_id,
            current_user(),
            intent=intent,
            most=settings().max_participants,
            most_memberships=settings().max_memberships_per_user,
            **new,
        )
    return admitted.participant, 201 if admitted.new else 200, replayed(admitted.replayed)


# A user id may hold a slash.
@bp.delete("/sessions/<uuid:session_id>/participants/<path:user_id>")
@bp.response(204)
def dismiss(session_id: UUID, user_id: str) -> Response:
    """Remove a participant, whose sockets are cut; one's own: leaving."""
    with backend().unit_of_work() as uow:
        participants.dismiss(uow, session_id, current_user(), user_id)
    return Response(status=204)
