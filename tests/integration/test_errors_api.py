"""Bad input of every kind, and the exact answer to each."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from flask import Flask

from tests.support.rest import NEW_SESSION, PREFIX, Rest, fault

MISSING = "01890a5d-ac96-774b-bcce-b302099a8057"
MALFORMED = (400, "MALFORMED_JSON", None)
NO_SUCH = (404, "NOT_FOUND", None)


def wrong(field: str | None) -> tuple[int, str, str | None]:
    return (422, "INVALID_INPUT", field)


def session_body(**fields: Any) -> str:
    return json.dumps({**NEW_SESSION, **fields})


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


RAW_BODIES = {
    "cut off": ('{"llm_provider": ', MALFORMED),
    "a list": ("[1]", wrong(None)),
    "null": ("null", wrong(None)),
    "text": ('"x"', wrong(None)),
    "two objects": ("{} {}", MALFORMED),
    "100,000 nested lists": ("[" * 100_000 + "]" * 100_000, MALFORMED),
    "100,000 nested objects": ('{"a":' * 100_000 + "1" + "}" * 100_000, MALFORMED),
    "NaN": ('{"settings": {"temperature": NaN}}', MALFORMED),
    "Infinity": ('{"settings": {"temperature": Infinity}}', MALFORMED),
    "minus Infinity": ('{"settings": {"temperature": -Infinity}}', MALFORMED),
    "too large a number": ('{"settings": {"temperature": 1e999}}', MALFORMED),
    "an endless number": ('{"settings": {"x": ' + "9" * 5000 + "}}", MALFORMED),
    "a name twice": ('{"title": "a", "title": "b"}', MALFORMED),
    "no UTF-8": (b'{"title": "\xff"}', MALFORMED),
    "UTF-16": ('{"title": "a"}'.encode("utf-16"), MALFORMED),
    "a byte order mark": (b"\xef\xbb\xbf{}", MALFORMED),
    "single quotes": ("{'title': 1}", MALFORMED),
    "a comment": ("{/* */}", MALFORMED),
    "NUL in a text": (session_body(title="a\0b"), wrong("title")),
    "NUL in a setting": (session_body(settings={"note": "\0"}), wrong("settings")),
    "a lone surrogate": ('{"llm_provider": "LOCAL", "llm_model": "\\ud800"}', wrong("llm_model")),
    "NUL in a name": ('{"a\\u0000": 1}', wrong("a\N{REPLACEMENT CHARACTER}")),
}

SESSION_BODIES = {
    "nothing": ({}, wrong("llm_provider")),
    "an unknown field": ({**NEW_SESSION, "colour": "red"}, wrong("colour")),
    "an id of one's own": ({**NEW_SESSION, "id": MISSING}, wrong("id")),
    "a number as title": ({**NEW_SESSION, "title": 5}, wrong("title")),
    "a title too long": ({**NEW_SESSION, "title": "x" * 501}, wrong("title")),
    "a model too long": ({**NEW_SESSION, "llm_model": "x" * 101}, wrong("llm_model")),
    "an empty model": ({**NEW_SESSION, "llm_model": ""}, wrong("llm_model")),
    "an unknown provider": ({**NEW_SESSION, "llm_provider": "local"}, wrong("llm_provider")),
    "a list as provider": ({**NEW_SESSION, "llm_provider": ["LOCAL"]}, wrong("llm_provider")),
    "null as model": ({**NEW_SESSION, "llm_model": None}, wrong("llm_model")),
    "a list as settings": ({**NEW_SESSION, "settings": []}, wrong("settings")),
    "null as settings": ({**NEW_SESSION, "settings": None}, wrong("settings")),
    "a temperature as text": ({**NEW_SESSION, "settings": {"temperature": "1"}}, wrong("settings.temperature")),
    "true as temperature": ({**NEW_SESSION, "settings": {"temperature": True}}, wrong("settings.temperature")),
    "too hot": ({**NEW_SESSION, "settings": {"temperature": 2.01}}, wrong("settings.temperature")),
    "a huge temperature": ({**NEW_SESSION, "settings": {"temperature": 10**400}}, wrong("settings.temperature")),
    "true as max_tokens": ({**NEW_SESSION, "settings": {"max_tokens": True}}, wrong("settings.max_tokens")),
    "half a token": ({**NEW_SESSION, "settings": {"max_tokens": 1.5}}, wrong("settings.max_tokens")),
    "10^30 tokens": ({**NEW_SESSION, "settings": {"max_tokens": 10**30}}, wrong("settings.max_tokens")),
    "a fallback without model": ({**NEW_SESSION, "settings": {"fallbacks": ["LOCAL"]}}, wrong("settings.fallbacks.0")),
    "six fallbacks": ({**NEW_SESSION, "settings": {"fallbacks": ["LOCAL:m"] * 6}}, wrong("settings.fallbacks")),
    "settings too large": ({**NEW_SESSION, "settings": {"x": "y" * 16_384}}, wrong("settings")),
    "settings too deep": ({**NEW_SESSION, "settings": nested(11)}, wrong("settings")),
}

QUERIES = {
    "page=abc": "page",
    "page=": "page",
    "page=0": "page",
    "page=-1": "page",
    "page=--1": "page",
    "page=1.0": "page",
    "page=1e3": "page",
    "page=+1": "page",
    f"page={10**30}": "page",
    "page=%D9%A3": "page",
    "page_size=0": "page_size",
    "page_size=201": "page_size",
    "page=1&page=2": "page",
    "order=up": "order",
    "is_active=maybe": "is_active",
    "llm_provider=nobody": "llm_provider",
    "user_id=": "user_id",
    "user_id=%00": "user_id",
    "cursor=%00": "cursor",
    "limit=5": "limit",
}

PATHS = [
    "/sessions/1",
    "/sessions/msg-123",
    f"/sessions/{2**80}",
    "/sessions/%00",
    f"/sessions/{MISSING}%00",
    f"/sessions/{{{MISSING}}}",
    f"/sessions/{MISSING.replace('-', '')}",
    f"/sessions/urn:uuid:{MISSING}",
    f"/sessions/{MISSING}/",
    f"//sessions/{MISSING}",
    f"/sessions/{MISSING}",
    f"/sessions/{MISSING}/messages",
    f"/sessions/{MISSING}/participants",
    f"/jobs/{MISSING}",
    "/jobs/..%2f..%2fetc%2fpasswd",
    "/nothing",
]


def send(rest: Rest, data: str | bytes, content_type: str | None = "application/json", **more: Any) -> Any:
    return rest.post("/sessions", data=data, content_type=content_type, **more)


@pytest.mark.parametrize(("data", "answer"), RAW_BODIES.values(), ids=RAW_BODIES)
def test_a_body_that_can_not_be_read_is_refused(
    sqlite_rest: Rest, data: str | bytes, answer: tuple[int, str, str | None]
) -> None:
    response = send(sqlite_rest, data)

    assert fault(response) == answer


@pytest.mark.parametrize(("body", "answer"), SESSION_BODIES.values(), ids=SESSION_BODIES)
def test_a_wrong_field_is_refused_by_name(rest: Rest, body: Any, answer: tuple[int, str, str | None]) -> None:
    response = rest.post("/sessions", body)

    assert fault(response) == answer


def test_the_largest_that_is_allowed_is_taken(rest: Rest) -> None:
    settings = {"temperature": 2, "max_tokens": 1_000_000, "fallbacks": ["LOCAL:a:b"] * 5, "deep": nested(9)}
    settings |= {"pad": "y" * (16_384 - len(json.dumps({**settings, "pad": ""})))}
    body = {"title": "💬" * 500, "llm_provider": "OPENROUTER", "llm_model": "м" * 100, "settings": settings}

    response = rest.post("/sessions", body)

    shown = response.get_json()
    assert response.status_code == 201
    assert (shown["title"], shown["settings"]) == (body["title"], settings)


@pytest.mark.parametrize(("query", "field"), QUERIES.items())
def test_a_wrong_query_is_refused_by_name(rest: Rest, query: str, field: str) -> None:
    response = rest.get(f"/sessions?{query}")

    assert fault(response) == wrong(field)


@pytest.mark.parametrize("before", ["yesterday", "2025-13-01T00:00:00Z", "0", "1e5", "%00", "2025-01-01T25:00:00Z", ""])
def test_a_time_that_is_none_is_refused(sqlite_rest: Rest, before: str) -> None:
    session_id = sqlite_rest.new_session()

    response = sqlite_rest.get(f"/sessions/{session_id}/messages?before={before}")

    assert fault(response) == wrong("before")


@pytest.mark.parametrize("path", PATHS)
def test_an_address_that_leads_nowhere_is_not_found(rest: Rest, path: str) -> None:
    response = rest.get(path)

    assert fault(response) == NO_SUCH


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "application/json; charset=latin-1",
        "",
        None,
    ],
)
def test_what_is_not_json_by_its_own_words_is_not_read(sqlite_rest: Rest, content_type: str | None) -> None:
    response = send(sqlite_rest, session_body(), content_type)

    assert fault(response) == (415, "UNSUPPORTED_MEDIA_TYPE", None)


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
