"""The header `Idempotency-Key`: the client's name for an effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import request

from chat_backend.services.idempotency import Intent
from chat_backend.web.context import settings

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"


def intent_of(operation: str, payload: Mapping[str, Any]) -> Intent | None:
    """Return what this request means to do under its key; None where it has none.

    Raises MalformedRequest for a key that is none.
    """
    key = given_key()
    if key is None:
        return None
    return Intent.of(key, operation, payload, kept_seconds=settings().idempotency_retention_seconds)


def given_key() -> str | None:
    return request.headers.get(HEADER)


def replayed(known: bool) -> dict[str, str]:
    """Return the header that says so where an effect is shown again."""
    return {REPLAYED: "true"} if known else {}
