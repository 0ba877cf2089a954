"""The documents: OpenAPI against the app by schemathesis, AsyncAPI against what is said, the page without a CDN."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema_rs import Draft202012Validator
from schemathesis.config import SchemathesisConfig
from schemathesis.generation import GenerationMode

from chat_backend.domain.cursor import Cursor
from chat_backend.domain.enums import Action, EventType
from chat_backend.domain.user import is_user_id
from chat_backend.protocol import events
from chat_backend.protocol.commands import COMMANDS
from tests.integration.conftest import MakeApp
from tests.support.pretend_worker import PretendWorker
from tests.support.rest import NEW_SESSION, OWNER, PREFIX, Rest
from tests.support.tokens import KEY, bearer

DOCUMENT = f"{PREFIX}/openapi.json"
# NUL deep in a free form can't be stored, which no schema can say.
# 413 is our answer to what violates a schema by a mebibyte; schemathesis knows no such rejection.
CONFIG = {
    "generation": {"allow-x00": False},
    "checks": {"negative_data_rejection": {"expected-statuses": [400, 401, 403, 404, 405, 409, 413, 415, 422]}},
}
EXAMPLES = settings(
    max_examples=16, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


@dataclass
class Owner:
    """Someone over whose own things the documents are tried, so that not every question is answered 403 or 404."""

    rest: Rest
    headers: dict[str, str]

    def ids(self) -> dict[str, str]:
        """Make a session with a participant and an answered question, and return what its paths need."""
        session_id = self.rest.made("/sessions", NEW_SESSION, headers=self.headers)["id"]
        body = {"user_id": "dismissed", "role": "member"}
        self.rest.made(f"/sessions/{session_id}/participants", body, headers=self.headers)
        sent = self.rest.made(
            f"/sessions/{session_id}/messages", {"content": "Hello", "process": True}, headers=self.headers
        )
        PretendWorker(self.rest.app.extensions["backend"]).answer(sent["job"]["id"])
        return {
            "session_id": session_id,
            "message_id": sent["job"]["assistant_message_id"],
            "job_id": sent["job"]["id"],
            "user_id": "dismissed",
            "name": "OPENAI",
        }


@pytest.fixture(params=["dev", "jwt"])
def owner(request: pytest.FixtureRequest, make_app: MakeApp) -> Owner:
    """Ann, by name and by token; nothing is limited, for much is asked."""
    unlimited = {"RATE_LIMIT_PER_USER": "0", "RATE_LIMIT_PER_ADDRESS": "0", "RATE_LIMIT_ASKS_PER_USER": "0"}
    app = make_app(AUTH_MODE=request.param, JWT_SECRET=KEY, MAX_JOBS_PER_USER="0", **unlimited)
    by = {"dev": {"X-User-ID": OWNER}, "jwt": bearer(OWNER)}
    return Owner(Rest(app, None), by[request.param])


def operations(app: Flask, *, any_json: bool = False) -> list[schemathesis.APIOperation]:
    """Return what the document describes; with any_json, values in objects of the client's own are not described."""
    config = SchemathesisConfig.from_dict(CONFIG)
    document = app.test_client().get(DOCUMENT).get_json()
    if any_json:
        document["components"]["schemas"]["JsonValue"] = {}
    schema = schemathesis.openapi.from_dict(document, config=config)
    schema.app, schema.location = app, DOCUMENT
    return [found.ok() for found in schema.get_all_operations()]


def takes_input(operation: schemathesis.APIOperation) -> bool:
    return any(True for _ in operation.iter_parameters()) or bool(operation.body)


@pytest.mark.timeout(300)
def test_every_valid_request_of_the_owner_is_taken_and_answered_as_documented(owner: Owner) -> None:
    taken = {operation.label: tried(operation, owner) for operation in operations(owner.rest.app)}

    assert [label for label, times in taken.items() if not times] == []


def tried(operation: schemathesis.APIOperation, owner: Owner) -> int:
    """Ask for an operation as its document allows, and return how often that was taken."""
    taken, ids = 0, owner.ids()
    removes = operation.method.upper() == "DELETE"

    @settings(EXAMPLES, max_examples=10)
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def ask(case: schemathesis.Case) -> None:
        nonlocal taken
        if not (removes and taken):  # what is removed can be removed once
            there = owner.ids() if removes else ids
            case.path_parameters |= {name: there[name] for name in case.path_parameters if name in there}
        if isinstance(case.body, dict):
            # Must be the path's, must lie in the session: relations that no schema can say.
            for name in ("session_id", "parent_message_id", "message_id"):
                case.body.pop(name, None)
            if case.body.get("role") == "system":
                case.body.pop("process", None)  # the system is not answered
            if not is_user_id(case.body.get("user_id", "bob")):
                case.body["user_id"] = "bob"  # no schema can say that a text is in form NFC
            if case.body.get("role") == "owner":
                case.body["role"] = "member"  # there is one already
            if operation.path.endswith("process-llm"):
                case.body.setdefault("prompt", "Hello")
        case.query.pop("cursor", None)  # opaque: what is valid, only an answer can say
        case.headers.update({"Prefer": "respond-async"} | owner.headers)
        if "Idempotency-Key" in case.headers:
            case.headers["Idempotency-Key"] = uuid4().hex  # used once: it stands for one payload
        taken += case.call_and_validate().status_code < 300

    ask()
    return taken


@pytest.mark.timeout(300)
def test_no_invalid_request_is_taken(sqlite_app: Flask) -> None:
    # A value that breaks one of JsonValue's alternatives may still be another one.
    for operation in filter(takes_input, operations(sqlite_app, any_json=True)):

        @EXAMPLES
        @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
        def ask(case: schemathesis.Case) -> None:
            case.headers["Prefer"] = "respond-async"
            case.call_and_validate()

        ask()


def test_every_route_is_documented_with_all_its_methods(sqlite_app: Flask, sqlite_rest: Rest) -> None:
    streams = ("/websocket", "/events")
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in sqlite_app.url_map.iter_rules()
        if rule.rule.startswith(PREFIX) and not rule.rule.endswith((*streams, ".json"))
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }

    document = sqlite_rest.get("/openapi.json").get_json()

    documented = {
        (path, method) for path, methods in document["paths"].items() for method in methods if method != "parameters"
    }
    assert document["openapi"] == "3.1.0"
    assert documented == routes


def test_every_operation_is_named_and_documents_the_one_error(sqlite_rest: Rest) -> None:
    document = sqlite_rest.get("/openapi.json").get_json()

    for path, methods in document["paths"].items():
        for operation in (methods[name] for name in ("get", "post", "put", "delete") if name in methods):
            assert operation["summary"], path
            refusals = [status for status in operation["responses"] if status >= "400"]
            assert refusals, path
    shape = document["components"]["responses"]["UNAUTHORIZED"]["content"]["application/json"]["schema"]
    assert shape == {"$ref": "#/components/schemas/ErrorShape"}


def test_the_page_loads_nothing_from_elsewhere(sqlite_app: Flask) -> None:
    client = sqlite_app.test_client()

    page = client.get("/docs")

    sources = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert page.status_code == 200
    assert DOCUMENT in page.text
    assert "'self'" in page.headers["Content-Security-Policy"]
    assert "http" not in page.headers["Content-Security-Policy"]
    assert sources
    for source in sources:
        assert source.startswith("/docs/")
        with client.get(source) as found:
            assert found.status_code == 200


def test_the_socket_document_knows_every_event_action_and_command(sqlite_rest: Rest) -> None:
    document = sqlite_rest.get("/asyncapi.json").get_json()

    said = {reference["$ref"].rpartition("/")[2] for reference in document["operations"]["hear"]["messages"]}
    heard = {reference["$ref"].rpartition("/")[2] for reference in document["operations"]["say"]["messages"]}
    actions = document["components"]["schemas"]["MessageUpdateFrame"]["properties"]["action"]["enum"]
    assert document["asyncapi"] == "3.0.0"
    assert (said, heard) == ({event.value for event in EventType}, set(COMMANDS))
    assert set(document["components"]["messages"]) == said | heard == set(document["channels"]["session"]["messages"])
    assert actions == [action.value for action in Action]


def frames(message: dict[str, Any], session: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        events.message_update(message, Action.UPDATED) | {"offset": 1},
        events.message_delta(message["id"], 1, start=0, text="x"),
        events.connection_established(
            "ann",
            "c1",
            cursor=Cursor(3, "1f"),
            recovered=False,
            online={"ann"},
            streaming=[{"message_id": message["id"], "job_id": message["id"], "attempt": 0}],
        ),
        events.presence(EventType.USER_JOINED, "ann", {"ann"}),
        events.presence(EventType.USER_LEFT, "ann", set()),
        {"type": "session_update", "session": session, "offset": 2},
        {"type": "job_update", "job": message["job"], "offset": 3},
        events.typing_indicator("ann", True),
        events.pong(3),
    ]


def test_what_the_server_says_is_what_the_document_says(sqlite_rest: Rest) -> None:
    document = sqlite_rest.get("/asyncapi.json").get_json()
    session = sqlite_rest.get(f"/sessions/{sqlite_rest.new_session()}").get_json()
    said = frames(sqlite_rest.say(session["id"], process=True), session)
    refusal = events.error(sqlite_rest.get("/nothing").get_json(), "r1")

    for body in [*said, refusal]:
        frame = events.framed(body, uuid4(), datetime.now(UTC))
        payload = document["components"]["messages"][frame["type"]]["payload"]
        Draft202012Validator({**payload, "components": document["components"]}).validate(frame)

    assert {body["type"] for body in [*said, refusal]} == {event.value for event in EventType}
