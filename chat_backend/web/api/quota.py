"""Quotas."""

from __future__ import annotations

from typing import Any

from chat_backend.schemas.quota import QuotaShape
from chat_backend.services import quotas
from chat_backend.web.auth import current_user
from chat_backend.web.context import backend, settings
from chat_backend.web.openapi import Blueprint

bp = Blueprint("quota", __name__)


@bp.get("/quota")
@bp.response(200, QuotaShape)
def show_quota() -> dict[str, Any]:
    """Show what I may have of the models today, and what I had; it is counted while there is a quota."""
    quota = settings().quota
    with backend().reading() as session:
        standing = quotas.standing(session, current_user().id)
    shown: dict[str, Any] = {
        what: {
            "limit": getattr(quota, what) or None,
            "used": getattr(standing.used, what),
            "reserved": getattr(standing.reserved, what),
        }
        for what in ("requests", "tokens")
    }
    return shown | {"resets_at": quotas.resets_at()}
