"""The audit log."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from chat_backend.schemas.audit import AuditList
from chat_backend.schemas.paging import PageQuery
from chat_backend.services import audit
from chat_backend.services.paging import Page
from chat_backend.web.auth import current_user
from chat_backend.web.context import backend
from chat_backend.web.openapi import Blueprint

bp = Blueprint("audit", __name__)


@bp.get("/sessions/<uuid:session_id>/audit")
@bp.arguments(PageQuery, location="query")
@bp.response(200, AuditList)
@bp.alt_response(403, "FORBIDDEN")
def list_entries(asked: dict[str, Any], session_id: UUID) -> dict[str, Any]:
    """List who changed what in a chat session; for its owner."""
    with backend().reading() as session:
        return audit.page(session, session_id, current_user(), Page.of(**asked))
