"""What errors look like, whoever finds them, and what is just about allowed. Bad input itself: test_bad_input."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from flask import Flask

from tests.support.rest import NEW_SESSION, PREFIX, Rest, fault


def session_body(**fields: Any) -> str:
    return json.dumps({**NEW_SESSION, **fields})


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


def send(rest: Rest, data: str | bytes, content_type: str | None = "application/json", **more: Any) -> Any:
    return rest.post("/sessions", data=data, content_type=content_type, **more)


def test_the_largest_that_is_allowed_is_taken(rest: Rest) -> None:
    settings = {"temperature": 2, "max_tokens": 1_000_000, "fallbacks": ["LOCAL:a:b"] * 5, "deep": nested(9)}
    settings |= {"pad": "y" * (16_384 - len(json.dumps({**settings, "pad": ""})))}
    body = {"title": "💬" * 500, "llm_provider": "OPENROUTER", "llm_model": "м" * 100, "settings": settings}

    response = rest.post("/sessions", body)

    shown = response.get_json()
    assert response.status_code == 201
    assert (shown["title"], shown["settings"]) == (body["title"], settings)


@pytest.mark.parametrize(("depth", "status"), [(30, 201), (31, 422)])
def test_the_form_of_a_reply_may_be_nested_deeper_than_other_objects(
    sqlite_rest: Rest, depth: int, status: int
) -> None:
    form = {"type": "json_schema", "json_schema": nested(depth - 1)}
    body = {"llm_provider": "LOCAL", "llm_model": "m", "settings": {"response_format": form}}
    session_id = sqlite_rest.new_session()

    made = sqlite_rest.post("/sessions", body)
    asked = sqlite_rest.post(f"/sessions/{session_id}/messages", {"content": "x", "response_format": form})

    assert (made.status_code, asked.status_code) == (status, status)


def test_a_compressed_body_is_not_read(sqlite_rest: Rest) -> None:
    response = send(sqlite_rest, b"\x1f\x8b", headers={"Content-Encoding": "gzip"})

    assert fault(response) == (415, "UNSUPPORTED_MEDIA_TYPE", None)


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=UTF-8", "application/merge-patch+json"]
)
def test_json_by_any_of_its_names_is_read(sqlite_rest: Rest, content_type: str) -> None:
    response = send(sqlite_rest, session_body(), content_type)

    assert response.status_code == 201


@pytest.mark.parametrize("length", ["announced", "chunked"])
def test_a_body_over_a_mebibyte_is_refused(sqlite_rest: Rest, length: str) -> None:
    body = session_body(title="x" * 1_048_576).encode()
    chunked = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}

    response = send(sqlite_rest, body, environ_overrides=chunked if length == "chunked" else {})

    assert fault(response) == (413, "PAYLOAD_TOO_LARGE", None)


def test_a_chunked_body_is_read(sqlite_rest: Rest) -> None:
    chunked = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}

    response = send(sqlite_rest, session_body(), environ_overrides=chunked)

    assert response.status_code == 201


@pytest.mark.parametrize("method", ["PATCH", "DELETE", "PUT", "TRACE"])
def test_another_method_is_refused_with_those_that_are_known(sqlite_rest: Rest, method: str) -> None:
    response = sqlite_rest.ask(method, "/sessions", headers={"X-HTTP-Method-Override": "GET"})

    assert fault(response) == (405, "METHOD_NOT_ALLOWED", None)
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}


def test_an_error_has_every_field_and_names_every_fault(sqlite_rest: Rest) -> None:
    response = sqlite_rest.post("/sessions", {"llm_provider": "X", "size": 1}, headers={"X-Request-ID": "my-1.a_B"})

    said = response.get_json()
    assert set(said) == {"error", "error_code", "details", "errors", "timestamp", "trace_id"}
    assert (said["error"], said["trace_id"]) == ("ValidationError", "my-1.a_B")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", said["timestamp"])
    assert [one["field"] for one in said["errors"]] == ["llm_provider", "llm_model", "size"]
    assert said["details"] == said["errors"][0]


@pytest.mark.parametrize("given", [None, "x" * 65, "a b", "<script>", "ключ", ""])
def test_a_request_without_a_sane_name_is_given_one(sqlite_rest: Rest, given: str | None) -> None:
    name = None if given is None else given.encode().decode("latin-1")

    response = sqlite_rest.get("/nothing", headers={"X-Request-ID": name})

    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["X-Request-ID"])
    assert response.get_json()["trace_id"] == response.headers["X-Request-ID"]


def test_every_answer_names_its_request(sqlite_rest: Rest) -> None:
    response = sqlite_rest.get("/sessions", headers={"X-Request-ID": "abc"})

    assert (response.status_code, response.headers["X-Request-ID"]) == (200, "abc")


def test_our_own_fault_is_told_without_a_stack(sqlite_app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    sqlite_app.add_url_rule(f"{PREFIX}/broken", view_func=lambda: 1 / 0)

    response = Rest(sqlite_app).get("/broken", headers={"X-Request-ID": "find-me"})

    assert fault(response) == (500, "INTERNAL_ERROR", None)
    assert "division" not in response.text
    logged = next(record for record in caplog.records if record.exc_info)
    assert (logged.trace_id, logged.exc_info[0]) == ("find-me", ZeroDivisionError)  # type: ignore[attr-defined,index]


def test_without_its_database_the_service_asks_to_come_back(postgresql_url: str) -> None:
    from chat_backend.config import Settings
    from chat_backend.web.app import create_app

    gone = postgresql_url.replace("/test_", "/gone_")
    app = create_app(
        Settings.from_environment({"AUTH_MODE": "dev", "DATABASE_URL": gone, "REDIS_URL": "redis://127.0.0.1:1"})
    )

    response = Rest(app).get("/sessions")

    assert fault(response) == (503, "DATABASE_UNAVAILABLE", None)
    assert int(response.headers["Retry-After"]) > 0


def test_an_empty_body_is_an_empty_object(sqlite_rest: Rest) -> None:
    session_id = sqlite_rest.new_session(title="Stays")

    response = sqlite_rest.put(f"/sessions/{session_id}")

    assert (response.status_code, response.get_json()["title"]) == (200, "Stays")


def test_browsers_are_told_to_be_careful(sqlite_rest: Rest) -> None:
    headers = sqlite_rest.get("/sessions").headers

    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:3000", True),
        ("http://127.0.0.1", True),
        ("http://[::1]:8080", True),
        ("https://evil.example", False),
        ("http://localhost.evil.example", False),
        ("null", False),
    ],
)
def test_only_pages_of_this_machine_may_call_in_dev_mode(sqlite_rest: Rest, origin: str, allowed: bool) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "prefer"}

    headers = sqlite_rest.ask("OPTIONS", "/sessions", headers=asked).headers

    assert headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)
    assert "Access-Control-Allow-Credentials" not in headers
