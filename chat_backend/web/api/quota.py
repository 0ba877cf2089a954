"""Quotas."""

from __future__ import annotations

from typing import Any

from chat_backend.schemas.quota import QuotaShape
from chat_backend.services import quotas, storage
from chat_backend.web.auth import current_user
from chat_backend.web.context import backend, settings
from chat_backend.web.openapi import Blueprint

bp = Blueprint("quota", __name__)


@bp.get("/quota")
@bp.response(200, QuotaShape)
def show_quota() -> dict[str, Any]:
    """Show what I may have of the models today, what I had (counted while there is a quota), and what I store."""
    quota = settings().quota
    with backend().reading() as session:
        standing = quotas.standing(session, current_user().id)
        stored = storage.used(session, current_user().id)
    shown: dict[str, Any] = {
        what: {
            "limit": getattr(quota, what) or None,
            "used": getattr(standing.used, what),
            "reserved": getattr(standing.reserved, what),
        }
        for what in ("requests", "tokens")
    }
    shown["storage_bytes"] = {"limit": settings().max_storage_bytes_per_user or None, "used": stored}
    return shown | {"resets_at": quotas.resets_at()}
