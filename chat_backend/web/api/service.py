"""The service itself: its health, and its numbers."""

from __future__ import annotations

from typing import Any

from flask import current_app

from chat_backend.config import Settings
from chat_backend.schemas.service import ClientConfig, ErrorShape, Health, Stats
from chat_backend.services import stats
from chat_backend.web.auth import current_user
from chat_backend.web.context import backend, settings
from chat_backend.web.health import UNHEALTHY, HealthCheck
from chat_backend.web.openapi import Blueprint

bp = Blueprint("service", __name__)


@bp.get("/health")
@bp.response(200, Health)
@bp.alt_response(503, schema=Health)
@bp.doc(security=[])
def health() -> tuple[dict[str, Any], int]:
    """Tell how the service is: 503 where the database is away; nobody needs to say who they are."""
    check: HealthCheck = current_app.extensions["health"]
    hub = current_app.extensions["chat_hub"]
    report = check.report(process_id=hub.id, local_connections=hub.count)
    return report, 503 if report["status"] == UNHEALTHY else 200


@bp.get("/client-config")
@bp.response(200, ClientConfig)
@bp.alt_response(500, schema=ErrorShape)
@bp.doc(security=[])
def client_config() -> dict[str, Any]:
    """Tell a page what it must know before it can say who is asking."""
    of = settings()
    return {"auth_mode": of.auth_mode, "flower_url": _flower_url(of), "session_titles": of.session_titles}


def _flower_url(of: Settings) -> str | None:
    # Elsewhere Flower is not where its port says: only the operator can tell.
    return of.flower_url or (f"http://127.0.0.1:{of.flower_port}" if of.is_dev else None)


@bp.get("/stats")
@bp.response(200, Stats)
def show_stats() -> dict[str, Any]:
    """Show the numbers of my chat sessions; for an admin, of all."""
    with backend().reading() as session:
        return stats.stats(session, current_user())
