"""What a web process that believes whoever asks may be called."""

from __future__ import annotations

import pytest
from flask import Flask

from tests.integration.conftest import MakeApp
from tests.support.rest import Rest, fault


def called(app: Flask, name: str, path: str = "/sessions") -> int:
    return Rest(app).get(path, headers={"Host": name}).status_code


@pytest.mark.parametrize(
    "name",
    ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "chat.localhost", "a.b.localhost:1"],
)
def test_names_of_this_machine_are_answered(sqlite_app: Flask, name: str) -> None:
    assert called(sqlite_app, name) == 200


@pytest.mark.parametrize(
    "name",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "192.0.2.1", "[::2]"],
)
@pytest.mark.parametrize("path", ["/sessions", "/health", "/openapi.json", "/nothing", "/sessions/x/events"])
def test_a_page_that_has_its_name_resolve_to_this_machine_is_refused(sqlite_app: Flask, name: str, path: str) -> None:
    response = Rest(sqlite_app).get(path, headers={"Host": name})

    assert fault(response) == (403, "ORIGIN_NOT_ALLOWED", None)


def test_the_host_of_an_extension_is_no_name_of_this_machine(make_app: MakeApp) -> None:
    app = make_app(ALLOWED_ORIGINS="chrome-extension://abcdef")

    assert called(app, "abcdef") == 403


def test_hosts_of_allowed_origins_are_answered(make_app: MakeApp) -> None:
    app = make_app(ALLOWED_ORIGINS="https://chat.example.com:8443")

    assert [called(app, name) for name in ("chat.example.com", "other.example.com")] == [200, 403]


@pytest.mark.parametrize("changes", [{"HOST": "0.0.0.0"}, {"HOST": "127.0.0.1", "AUTH_MODE": "jwt"}])
def test_where_others_may_ask_any_name_will_do(make_app: MakeApp, changes: dict[str, str]) -> None:
    app = make_app(JWT_SECRET="s" * 32, **changes)

    assert called(app, "chat.example.com", "/openapi.json") == 200
