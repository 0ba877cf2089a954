"""By what name a web process may be called that believes whoever asks.

A page of any name can have that name resolve to this machine (DNS rebinding), and is then of the same origin
as what answers here. What gives it away is the name that its browser still calls us by.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Flask, request

from chat_backend.config import Settings
from chat_backend.domain.errors import ErrorCode, Forbidden

LOCAL = ("localhost", "127.0.0.1", "::1")


def install(app: Flask, settings: Settings) -> None:
    """Refuse foreign names, on one's own machine; elsewhere whoever asks has to bring a token."""
    if settings.is_dev and settings.is_on_loopback:
        pages = (urlsplit(origin) for origin in settings.allowed_origins)
        # The host of an app's or extension's origin is no name that resolves.
        named = (page.hostname for page in pages if page.scheme in ("http", "https"))
        names = {*LOCAL, settings.bind_host, *named}
        app.before_request(lambda: _check(names))


def _check(names: set[str | None]) -> None:
    name = _name_in(request.host)
    if name not in names and not name.endswith(".localhost"):
        raise Forbidden(
            "In dev mode this machine is called localhost: name others in ALLOWED_ORIGINS.",
            code=ErrorCode.ORIGIN_NOT_ALLOWED,
        )


def _name_in(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
