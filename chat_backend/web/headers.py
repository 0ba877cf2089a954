"""Headers that keep browsers careful, and say which pages of other origins may call."""

from __future__ import annotations

import re

from flask import Flask, Response, request
from flask_cors import CORS

from chat_backend.config import Settings
from chat_backend.web.idempotency_key import HEADER, REPLAYED

LOOPBACK = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?\Z")
_API_POLICY = "default-src 'none'; frame-ancestors 'none'"
_DOCS_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def install(app: Flask, settings: Settings) -> None:
    """Set the headers of every response."""
    app.after_request(_secure)
    origins = allowed_origins(settings)
    if origins:
        CORS(
            app,
            resources={r"/api/.*": {"origins": origins}},
            methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=[
                "Authorization",
                "Content-Type",
                "Last-Event-ID",
                "Prefer",
                "X-Request-ID",
                "X-User-ID",
                HEADER,
            ],
            expose_headers=["Location", "Preference-Applied", "Retry-After", "X-Request-ID", REPLAYED],
            supports_credentials=False,
            max_age=600,
        )


def allowed_origins(settings: Settings) -> list[re.Pattern[str]]:
    """Return what origins of other pages must match to call; in dev mode any of this machine."""
    named = [re.compile(re.escape(origin) + r"\Z", re.IGNORECASE) for origin in settings.allowed_origins]
    return [*named, LOOPBACK] if settings.is_dev else named


def _secure(response: Response) -> Response:
    headers = response.headers
    is_docs = request.path.startswith("/docs")
    headers.setdefault("Content-Security-Policy", _DOCS_POLICY if is_docs else _API_POLICY)
    headers.setdefault("Cache-Control", "no-store")
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("X-Frame-Options", "DENY")
    headers.setdefault("Referrer-Policy", "no-referrer")
    headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
    if request.is_secure:
        headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    return response
