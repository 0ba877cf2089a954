"""Providers, and the models that they have."""

from __future__ import annotations

from typing import Any

from flask import current_app

from chat_backend.domain.enums import PROVIDERS
from chat_backend.domain.errors import NotFound
from chat_backend.schemas.provider import ModelListShape, ProviderList
from chat_backend.services import catalogue
from chat_backend.services.catalogue import Latency
from chat_backend.web.context import backend, settings
from chat_backend.web.health import DEGRADED, HEALTHY, HealthCheck
from chat_backend.web.model_lists import ModelCatalogue
from chat_backend.web.openapi import Blueprint

bp = Blueprint("providers", __name__)
_NAME = {"in": "path", "name": "name", "required": True, "schema": {"type": "string", "enum": list(PROVIDERS)}}


@bp.get("/providers")
@bp.response(200, ProviderList)
def list_providers() -> dict[str, Any]:
    """List the providers: which are configured, how they are, how fast they have been of late."""
    check: HealthCheck = current_app.extensions["health"]
    states = check.providers()
    for name, state in states.items():
        if state["status"] == HEALTHY and models().is_closed(name):
            state["status"] = DEGRADED
    with backend().reading() as session:
        latencies = catalogue.latencies(session)
    return {"providers": [_shown(name, states[name], latencies.get(name)) for name in PROVIDERS]}


@bp.get("/providers/<string:name>/models", parameters=[_NAME])
@bp.response(200, ModelListShape)
def list_models(name: str) -> dict[str, Any]:
    """List a provider's models; where the provider can't be asked, those known last, with the reason."""
    if name not in PROVIDERS:
        raise NotFound("There is no such provider.")
    return models().show(name)


def models() -> ModelCatalogue:
    """Return the lists of models as this process gets them."""
    found: ModelCatalogue = current_app.extensions["models"]
    return found


def _shown(name: str, state: dict[str, str], latency: Latency | None) -> dict[str, Any]:
    set_up = settings()
    return {
        "name": name,
        "configured": set_up.is_configured(name),
        "default_model": set_up.default_llm_model if name == set_up.default_llm_provider else None,
        **state,
        "time_to_first_token_ms": latency.time_to_first_token_ms if latency else None,
        "last_answer_at": latency.last_answer_at if latency else None,
    }
