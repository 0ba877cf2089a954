"""The app behind proxies and under pages of other origins, as its settings say."""

from __future__ import annotations

import pytest
from flask import Flask, request

from chat_backend.config import ConfigError, Settings
from chat_backend.web.app import create_app
from tests.support.rest import PREFIX

FORWARDED = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "chat.example"}


def app_with(**environ: str) -> Flask:
    """Return an app that is asked nothing which needs its database."""
    needed = {"JWT_SECRET": "x" * 32, "DATABASE_URL": "sqlite:///never-opened.db", "REDIS_URL": "redis://127.0.0.1:1"}
    return create_app(Settings.from_environment(needed | environ))


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://chat.example", True),
        ("https://chat.example.evil.net", False),
        ("https://chatXexample", False),
        ("http://chat.example", False),
        ("http://localhost:3000", False),
        ("capacitor://localhost", True),
        ("capacitor://localhost.evil.net", False),
        ("tauri://localhost", False),
        ("chrome-extension://abcdef", True),
        ("chrome-extension://abcdeg", False),
        ("safari-web-extension://1A2B", True),
        ("null", False),
    ],
)
def test_only_pages_of_the_origins_named_may_call(origin: str, allowed: bool) -> None:
    named = "https://chat.example,https://b.example,capacitor://localhost,chrome-extension://abcdef"
    client = app_with(ALLOWED_ORIGINS=f"{named},safari-web-extension://1A2B").test_client()

    headers = client.get(f"{PREFIX}/stats", headers={"Origin": origin}).headers

    assert headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)


def test_without_origins_no_page_of_another_may_call() -> None:
    headers = app_with().test_client().get(f"{PREFIX}/stats", headers={"Origin": "https://chat.example"}).headers

    assert not [name for name, _ in headers if name.startswith("Access-Control")]


@pytest.mark.parametrize(
    ("proxies", "seen"),
    [("0", ("127.0.0.1", "http", "localhost")), ("1", ("203.0.113.9", "https", "chat.example"))],
)
def test_forwarded_headers_are_believed_of_as_many_proxies_as_there_are(
    proxies: str, seen: tuple[str, str, str]
) -> None:
    app = app_with(TRUSTED_PROXIES=proxies)
    app.add_url_rule("/docs/seen", "swagger_ui.seen", lambda: [request.remote_addr, request.scheme, request.host])
    app.before_request_funcs[None].clear()

    response = app.test_client().get("/docs/seen", headers=FORWARDED)

    assert tuple(response.get_json()) == seen
    assert ("Strict-Transport-Security" in response.headers) == (seen[1] == "https")


def test_it_does_not_start_without_a_key() -> None:
    with pytest.raises(ConfigError, match="set JWT_SECRET"):
        create_app(Settings.from_environment({"DATABASE_URL": "sqlite:///never-opened.db"}))


def test_it_never_debugs() -> None:
    app = app_with()

    assert (app.debug, app.testing) == (False, False)
