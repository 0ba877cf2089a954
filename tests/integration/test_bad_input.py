"""Bad input of every kind, to every route, and the exact answer to each: never 5xx, and nothing is stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select
from werkzeug.test import TestResponse

from chat_backend.config import Settings
from chat_backend.models import Base
from chat_backend.web.app import create_app
from tests.conftest import TIMINGS
from tests.integration.conftest import JWT_AUDIENCE, JWT_ISSUER
from tests.integration.test_auth import ATTACKS
from tests.support.databases import POSTGRESQL, SQLITE, Databases
from tests.support.pretend_worker import PretendWorker
from tests.support.rest import NEW_SESSION, Rest, fault
from tests.support.tokens import KEY

NOWHERE = "01890a5d-ac96-774b-bcce-b302099a8057"
Answer = tuple[int, str, str | None]
MALFORMED: Answer = (400, "MALFORMED_JSON", None)
BAD_KEY: Answer = (400, "INVALID_IDEMPOTENCY_KEY", "Idempotency-Key")
NO_JSON: Answer = (415, "UNSUPPORTED_MEDIA_TYPE", None)
NO_SUCH: Answer = (404, "NOT_FOUND", None)
NOBODY: Answer = (401, "UNAUTHENTICATED", None)
NO_METHOD: Answer = (405, "METHOD_NOT_ALLOWED", None)
TOO_LARGE: Answer = (413, "PAYLOAD_TOO_LARGE", None)


def wrong(name: str | None) -> Answer:
    return (422, "INVALID_INPUT", name)


def session_body(**fields: Any) -> str:
    return json.dumps({**NEW_SESSION, **fields})


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@dataclass(frozen=True)
class Bad:
    """A request and its answer. `{session}`, `{message}`, `{reply}` and `{job}` in a path are ids of what is there."""

    request: str
    answer: Answer
    more: dict[str, Any] = field(default_factory=dict)


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
    "two byte order marks": (b"\xef\xbb\xbf\xef\xbb\xbf{}", MALFORMED),
    "UTF-16 without a mark": ('{"title": "a"}'.encode("utf-16-le"), MALFORMED),
    "Latin-1": ('{"title": "Größe"}'.encode("latin-1"), MALFORMED),
    "windows-1251": ('{"title": "Привет"}'.encode("cp1251"), MALFORMED),
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
    "an id of one's own": ({**NEW_SESSION, "id": NOWHERE}, wrong("id")),
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
    "user_id=%ff": "user_id",
    "title=%ED%A0%80": "title",
    "cursor=%00": "cursor",
    "limit=5": "limit",
}

PATHS = [
    "/sessions/1",
    "/sessions/msg-123",
    f"/sessions/{2**80}",
    "/sessions/%00",
    f"/sessions/{NOWHERE}%00",
    f"/sessions/{{{NOWHERE}}}",
    f"/sessions/{NOWHERE.replace('-', '')}",
    f"/sessions/urn:uuid:{NOWHERE}",
    f"/sessions/{NOWHERE}/",
    f"//sessions/{NOWHERE}",
    f"/sessions/{NOWHERE}",
    f"/sessions/{NOWHERE}/messages",
    f"/sessions/{NOWHERE}/participants",
    f"/jobs/{NOWHERE}",
    "/jobs/..%2f..%2fetc%2fpasswd",
    "/nothing",
]


SESSION, MESSAGES = "/sessions/{session}", "/sessions/{session}/messages"
PROCESS, PARTICIPANTS = "/sessions/{session}/process-llm", "/sessions/{session}/participants"
# Every route that takes a body, with one that would be taken.
TAKING = {
    "POST /sessions": NEW_SESSION,
    f"PUT {SESSION}": {"title": "New"},
    f"POST {MESSAGES}": {"content": "x"},
    "PUT /messages/{message}": {"content": "x"},
    f"POST {PROCESS}": {"prompt": "x", "stream": True},
    "POST /messages/{reply}/regenerate": {"stream": True},
    f"POST {PARTICIPANTS}": {"user_id": "bob", "role": "member"},
}
BROKEN = {
    "cut off": ('{"a": ', MALFORMED),
    "a list": ("[]", wrong(None)),
    "a number": ("1", wrong(None)),
    "Latin-1": ('{"ü": 1}'.encode("latin-1"), MALFORMED),
    "200,000 brackets": ("[" * 200_000, MALFORMED),
    "a mebibyte": (b'{"a": "' + b"x" * 1_048_576 + b'"}', TOO_LARGE),
}
FIELDS: list[tuple[str, dict[str, Any], str | None]] = [
    (f"PUT {SESSION}", {"title": 1}, "title"),
    (f"PUT {SESSION}", {"title": "x" * 501}, "title"),
    (f"PUT {SESSION}", {"llm_provider": "GOOGLE"}, "llm_provider"),
    (f"PUT {SESSION}", {"llm_model": ""}, "llm_model"),
    (f"PUT {SESSION}", {"is_active": "true"}, "is_active"),
    (f"PUT {SESSION}", {"is_active": 1}, "is_active"),
    (f"PUT {SESSION}", {"settings": {"on_busy": "wait"}}, "settings.on_busy"),
    (f"PUT {SESSION}", {"settings": {"context_tokens": 255}}, "settings.context_tokens"),
    (f"PUT {SESSION}", {"settings": {"system_prompt": 5}}, "settings.system_prompt"),
    (f"PUT {SESSION}", {"user_id": "eve"}, "user_id"),
    (f"POST {MESSAGES}", {}, "content"),
    (f"POST {MESSAGES}", {"content": ""}, "content"),
    (f"POST {MESSAGES}", {"content": None}, "content"),
    (f"POST {MESSAGES}", {"content": ["x"]}, "content"),
    (f"POST {MESSAGES}", {"content": "x" * 32_001}, "content"),
    (f"POST {MESSAGES}", {"content": "a\0b"}, "content"),
    (f"POST {MESSAGES}", {"content": "x", "role": "assistant"}, "role"),
    (f"POST {MESSAGES}", {"content": "x", "role": "root"}, "role"),
    (f"POST {MESSAGES}", {"content": "x", "role": "system", "process": True}, "process"),
    (f"POST {MESSAGES}", {"content": "x", "process": "yes"}, "process"),
    (f"POST {MESSAGES}", {"content": "x", "process": 1}, "process"),
    (f"POST {MESSAGES}", {"content": "x", "metadata": []}, "metadata"),
    (f"POST {MESSAGES}", {"content": "x", "metadata": nested(11)}, "metadata"),
    (f"POST {MESSAGES}", {"content": "x", "metadata": {"a": "y" * 16_384}}, "metadata"),
    (f"POST {MESSAGES}", {"content": "x", "on_busy": "hurry"}, "on_busy"),
    (f"POST {MESSAGES}", {"content": "x", "parent_message_id": 5}, "parent_message_id"),
    (f"POST {MESSAGES}", {"content": "x", "parent_message_id": NOWHERE}, "parent_message_id"),
    (f"POST {MESSAGES}", {"content": "x", "parent_message_id": "../1"}, "parent_message_id"),
    (f"POST {MESSAGES}", {"content": "x", "seq": 1}, "seq"),
    (f"POST {MESSAGES}", {"content": "x", "user_id": "eve"}, "user_id"),
    ("PUT /messages/{message}", {"content": ""}, "content"),
    ("PUT /messages/{message}", {"content": "x" * 32_001}, "content"),
    ("PUT /messages/{message}", {"content": 5}, "content"),
    ("PUT /messages/{message}", {"tokens_used": -1}, "tokens_used"),
    ("PUT /messages/{message}", {"tokens_used": 10**30}, "tokens_used"),
    ("PUT /messages/{message}", {"tokens_used": "7"}, "tokens_used"),
    ("PUT /messages/{message}", {"tokens_used": True}, "tokens_used"),
    ("PUT /messages/{message}", {"response_time_ms": 1.5}, "response_time_ms"),
    ("PUT /messages/{message}", {"is_streaming": True}, "is_streaming"),
    ("PUT /messages/{message}", {"role": "system"}, "role"),
    ("PUT /messages/{reply}", {"content": "x" * 200_001}, "content"),
    (f"POST {PROCESS}", {}, "message_id"),
    (f"POST {PROCESS}", {"prompt": ""}, "prompt"),
    (f"POST {PROCESS}", {"prompt": 5}, "prompt"),
    (f"POST {PROCESS}", {"prompt": "x" * 32_001}, "prompt"),
    (f"POST {PROCESS}", {"message_id": "1"}, "message_id"),
    (f"POST {PROCESS}", {"message_id": 2**80}, "message_id"),
    (f"POST {PROCESS}", {"prompt": "x", "session_id": NOWHERE}, "session_id"),
    (f"POST {PROCESS}", {"prompt": "x", "provider": "http://evil.example"}, "provider"),
    (f"POST {PROCESS}", {"prompt": "x", "base_url": "http://169.254.169.254"}, "base_url"),
    (f"POST {PROCESS}", {"prompt": "x", "model_name": "m" * 101}, "model_name"),
    (f"POST {PROCESS}", {"prompt": "x", "temperature": 2.1}, "temperature"),
    (f"POST {PROCESS}", {"prompt": "x", "temperature": "hot"}, "temperature"),
    (f"POST {PROCESS}", {"prompt": "x", "max_tokens": 0}, "max_tokens"),
    (f"POST {PROCESS}", {"prompt": "x", "max_tokens": 1.5}, "max_tokens"),
    (f"POST {PROCESS}", {"prompt": "x", "stream": "true"}, "stream"),
    ("POST /messages/{reply}/regenerate", {"provider": "X"}, "provider"),
    ("POST /messages/{reply}/regenerate", {"model_name": ""}, "model_name"),
    ("POST /messages/{reply}/regenerate", {"temperature": 3}, "temperature"),
    (f"POST {PARTICIPANTS}", {}, "user_id"),
    (f"POST {PARTICIPANTS}", {"user_id": "bob"}, "role"),
    (f"POST {PARTICIPANTS}", {"user_id": "bob", "role": "owner"}, "role"),
    (f"POST {PARTICIPANTS}", {"user_id": "bob", "role": "admin"}, "role"),
    (f"POST {PARTICIPANTS}", {"user_id": "", "role": "member"}, "user_id"),
    (f"POST {PARTICIPANTS}", {"user_id": "x" * 256, "role": "member"}, "user_id"),
    (f"POST {PARTICIPANTS}", {"user_id": "a\nb", "role": "member"}, "user_id"),
    (f"POST {PARTICIPANTS}", {"user_id": "../ann", "role": "member"}, "user_id"),
    (f"POST {PARTICIPANTS}", {"user_id": ["bob"], "role": "member"}, "user_id"),
]
BAD_QUERIES = {
    MESSAGES: {
        **{f"before={text}": "before" for text in ("yesterday", "2025-13-01T00:00:00Z", "0", "1e5", "%00", "")},
        "before=2025-01-01T25:00:00Z": "before",
        "page_size=1e2": "page_size",
        "cursor=abc": "cursor",
        "since=5": "since",
    },
    f"{SESSION}/audit": {"page=0": "page", "cursor=%ff": "cursor", "user_id=ann": "user_id"},
    "/sessions/{session}/events": {
        **{f"since={text}": "since" for text in ("-1", "1.5", "abc", "9" * 41, "%D9%A3", "+1", "0x1")},
    },
}
ELSEWHERE = [
    *(f"{method} /sessions/{NOWHERE}{below}" for method, below in [
        ("PUT", ""), ("DELETE", ""), ("POST", "/messages"), ("POST", "/process-llm"), ("POST", "/ws-ticket"),
        ("GET", "/audit"), ("GET", "/events"), ("POST", "/participants"), ("DELETE", "/participants/bob"),
    ]),
    f"PUT /messages/{NOWHERE}", f"POST /messages/{NOWHERE}/regenerate", f"POST /jobs/{NOWHERE}/cancel",
    "PUT /messages/1", "POST /jobs/1/cancel", "GET /sessions/{job}", "GET /jobs/{session}", "PUT /messages/{job}",
    "POST /jobs/{reply}/cancel", "DELETE /sessions/{session}/participants/nobody", "GET /sessions/{session}/nothing",
    "GET /sessions/{session}%00", "GET /sessions/{session}/events/", "DELETE /sessions/{session}/participants/%00",
]  # fmt: skip
KEYS = ["", " ", "x" * 256, "a b", "ключ".encode().decode("latin-1"), "a\x7f", "\x80"]
METHODS = [
    "PATCH /sessions",
    "TRACE /sessions",
    "PUT /sessions",
    f"POST {SESSION}",
    f"DELETE {MESSAGES}",
    f"PUT {PROCESS}",
    f"DELETE {SESSION}/audit",
    "PATCH /messages/{message}",
    "DELETE /jobs/{job}",
    "POST /stats",
]
NO_USERS = ["", "x" * 256, "a\x1fb", "\x7f", "\xff\xfe", "../ann", "/ann", "."]
CONTENT_TYPES = [
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/jsonx",
    "application/json; charset=latin-1",
    "",
    None,
]


def raw(data: str | bytes, content_type: str | None = "application/json") -> dict[str, Any]:
    return {"data": data, "content_type": content_type}


def rows() -> Iterator[tuple[str, Bad]]:
    """Yield every bad request with its name."""
    for name, (data, answer) in RAW_BODIES.items():
        yield f"session: {name}", Bad("POST /sessions", answer, raw(data))
    for name, (body, answer) in SESSION_BODIES.items():
        yield f"session: {name}", Bad("POST /sessions", answer, {"body": body})
    for route, good in TAKING.items():
        for name, (data, answer) in BROKEN.items():
            yield f"{route}: {name}", Bad(route, answer, raw(data))
        yield f"{route}: an unknown field", Bad(route, wrong("x_y"), {"body": {**good, "x_y": 1}})
        yield f"{route}: no JSON", Bad(route, NO_JSON, raw(json.dumps(good), "text/plain"))
        compressed = {**raw(b"\x1f\x8b"), "headers": {"Content-Encoding": "gzip"}}
        yield f"{route}: compressed", Bad(route, NO_JSON, compressed)
    for number, (route, body, name) in enumerate(FIELDS):
        yield f"{route}: {name} {number}", Bad(route, wrong(name), {"body": body})
    for route in TAKING:
        yield f"{route}: a lone surrogate", Bad(route, wrong("a"), raw('{"a": {"b": ["\\ud800"]}}'))
    for query, name in QUERIES.items():
        yield f"GET /sessions?{query}", Bad(f"GET /sessions?{query}", wrong(name))
    for path, queries in BAD_QUERIES.items():
        for query, name in queries.items():
            yield f"GET {path}?{query}", Bad(f"GET {path}?{query}", wrong(name))
    for path in PATHS:
        yield f"GET {path}", Bad(f"GET {path}", NO_SUCH)
    for request in ELSEWHERE:
        route = request.replace(NOWHERE, "{session}").replace("PUT /messages/{session}", "PUT /messages/{message}")
        body = TAKING.get(route) or ({"content": "x"} if request.startswith("PUT /messages") else None)
        yield request, Bad(request, NO_SUCH, {"body": body})
    for key in KEYS:
        yield f"key {key!r}", Bad("POST /sessions", BAD_KEY, {"body": NEW_SESSION, "key": key})
    for request in METHODS:
        yield request, Bad(request, NO_METHOD, {"headers": {"X-HTTP-Method-Override": "GET"}})
    for user in NO_USERS:
        yield f"user {user!r}", Bad("POST /sessions", NOBODY, {"body": NEW_SESSION, "headers": {"X-User-ID": user}})
    for kind in CONTENT_TYPES:
        yield f"content type {kind!r}", Bad("POST /sessions", NO_JSON, raw(session_body(), kind))


TABLE = dict(rows())


@dataclass
class Place:
    """A session of ann's with a message, a finished reply and its job, in an app that lasts for all rows."""

    rest: Rest
    ids: dict[str, str]
    before: dict[str, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.before = self.stored()

    def ask(self, bad: Bad) -> TestResponse:
        method, _, path = bad.request.partition(" ")
        for name, value in self.ids.items():
            path = path.replace(f"{{{name}}}", value)
        return self.rest.ask(method, path, **bad.more)

    def stored(self) -> dict[str, list[Any]]:
        """Return everything that is in the database."""
        with self.rest.app.extensions["backend"].reading() as session:
            return {
                table.name: sorted(map(str, session.execute(select(table)))) for table in Base.metadata.sorted_tables
            }


def lasting(databases: Databases, kind: str, folder: Path, **changes: str) -> Iterator[Flask]:
    with databases.new(kind, folder) as url:
        environ = {"DATABASE_URL": url, "REDIS_URL": "redis://127.0.0.1:1", **TIMINGS, **changes}
        app = create_app(Settings.from_environment(environ))
        yield app
        app.extensions["chat_hub"].shut_down()
        app.extensions["backend"].close()


@pytest.fixture(scope="module", params=[SQLITE, POSTGRESQL])
def place(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    for app in lasting(databases, request.param, tmp_path_factory.mktemp("bad"), AUTH_MODE="dev"):
        rest = Rest(app)
        session_id = rest.new_session()
        sent = rest.say(session_id, process=True)
        PretendWorker(app.extensions["backend"]).answer(sent["job"]["id"])
        ids = {"message": sent["id"], "reply": sent["job"]["assistant_message_id"], "job": sent["job"]["id"]}
        yield Place(rest, ids | {"session": session_id})


@pytest.fixture(scope="module")
def jwt_place(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    key = {"JWT_SECRET": KEY, "JWT_ISSUER": JWT_ISSUER, "JWT_AUDIENCE": JWT_AUDIENCE}
    for app in lasting(databases, SQLITE, tmp_path_factory.mktemp("bad"), **key):
        yield Place(Rest(app, None), {})


def test_there_are_more_than_three_hundred() -> None:
    assert len(TABLE) + len(ATTACKS) > 300


@pytest.mark.parametrize("name", TABLE)
def test_bad_input_has_its_answer_and_stores_nothing(place: Place, name: str) -> None:
    response = place.ask(TABLE[name])

    before, place.before = place.before, place.stored()
    assert fault(response) == TABLE[name].answer
    assert place.before == before


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_token_that_is_not_good_stores_nothing(jwt_place: Place, attack: str) -> None:
    headers = {"Authorization": ATTACKS[attack]()}

    response = jwt_place.ask(Bad("POST /sessions", NOBODY, {"body": NEW_SESSION, "headers": headers}))

    assert fault(response) == NOBODY
    assert not any(jwt_place.stored().values())
