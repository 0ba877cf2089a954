"""Every route and every frame, from every kind of user. A new one without a row here fails."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from chat_backend.domain.enums import ParticipantRole
from chat_backend.domain.errors import ChatError, NotFound
from chat_backend.domain.user import User
from chat_backend.protocol.commands import COMMANDS
from chat_backend.web.auth import OPEN, STREAMS
from chat_backend.web.websocket.connection import Connection
from chat_backend.web.websocket.dispatch import Dispatch
from chat_backend.web.websocket.endpoint import admit
from tests.integration.conftest import JWT_AUDIENCE, JWT_ISSUER
from tests.support import tokens
from tests.support.pretend_worker import PretendWorker
from tests.support.rest import NEW_SESSION, PREFIX, Rest
from tests.support.session_world import PaperOutbox, frames

MISSING = "01890a5d-ac96-774b-bcce-b302099a8057"


@dataclass(frozen=True)
class Row:
    """What owner, member, viewer and stranger are answered, each over a session of its own."""

    body: Any = None
    answers: tuple[int, int, int, int] = (200, 200, 200, 404)
    # Not about one session: nobody is a stranger here.
    of_everyone: bool = False


TABLE = {
    "GET /sessions": Row(answers=(200, 200, 200, 200), of_everyone=True),
    "POST /sessions": Row(NEW_SESSION, (201, 201, 201, 201), of_everyone=True),
    "GET /sessions/<uuid:session_id>": Row(),
    "PUT /sessions/<uuid:session_id>": Row({"title": "New"}, (200, 403, 403, 404)),
    "DELETE /sessions/<uuid:session_id>": Row(answers=(200, 403, 403, 404)),
    "GET /sessions/<uuid:session_id>/messages": Row(),
    "POST /sessions/<uuid:session_id>/messages": Row({"content": "x"}, (201, 201, 403, 404)),
    "GET /messages/<uuid:message_id>": Row(),
    "PUT /messages/<uuid:message_id>": Row({"content": "x"}, (200, 403, 403, 404)),
    "POST /sessions/<uuid:session_id>/process-llm": Row({"prompt": "x", "stream": True}, (202, 202, 403, 404)),
    "POST /messages/<uuid:message_id>/regenerate": Row({"stream": True}, (202, 202, 403, 404)),
    "GET /jobs/<uuid:job_id>": Row(),
    "POST /jobs/<uuid:job_id>/cancel": Row(answers=(200, 200, 403, 404)),
    "GET /sessions/<uuid:session_id>/participants": Row(),
    "POST /sessions/<uuid:session_id>/participants": Row({"user_id": "dan", "role": "viewer"}, (201, 403, 403, 404)),
    "DELETE /sessions/<uuid:session_id>/participants/<path:user_id>": Row(answers=(204, 403, 403, 404)),
    "GET /sessions/<uuid:session_id>/audit": Row(answers=(200, 403, 403, 404)),
    "POST /sessions/<uuid:session_id>/ws-ticket": Row(answers=(201, 201, 201, 404)),
    "GET /quota": Row(answers=(200, 200, 200, 200), of_everyone=True),
    "GET /providers": Row(answers=(200, 200, 200, 200), of_everyone=True),
    "GET /providers/<string:name>/models": Row(answers=(200, 200, 200, 200), of_everyone=True),
    "GET /stats": Row(answers=(200, 200, 200, 200), of_everyone=True),
}
# What a connection says, and what owner, member and viewer are answered: an error's code, or nothing.
DONE, NO = None, "FORBIDDEN"
FRAMES: dict[str, tuple[dict[str, Any], tuple[str | None, str | None, str | None]]] = {
    "send_message": ({"content": "x"}, (DONE, DONE, NO)),
    "cancel": ({"job_id": "<uuid:job_id>"}, (DONE, DONE, NO)),
    "typing_start": ({}, (DONE, DONE, NO)),
    "typing_stop": ({}, (DONE, DONE, NO)),
    "ping": ({}, (DONE, DONE, DONE)),
}
USERS = ("ann", "mem", "vic", "stranger")
ROLES = {"ann": ParticipantRole.OWNER, "mem": ParticipantRole.MEMBER, "vic": ParticipantRole.VIEWER}


def place(rest: Rest) -> dict[str, str]:
    """A session of ann's with a member, a viewer, an answered question, and someone who may be removed."""
    session_id = rest.new_session()
    for user, role in (("mem", "member"), ("vic", "viewer"), ("dismissed", "member")):
        rest.admit(session_id, user, role)
    job = rest.say(session_id, process=True)["job"]
    PretendWorker(rest.app.extensions["backend"]).answer(job["id"])
    return {
        "uuid:session_id": session_id,
        "uuid:message_id": job["assistant_message_id"],
        "uuid:job_id": job["id"],
        "path:user_id": "dismissed",
        "string:name": "OPENAI",
    }


def filled(text: str, place: dict[str, str]) -> str:
    for name, value in place.items():
        text = text.replace(f"<{name}>", value)
    return text


def at(row: str, place: dict[str, str]) -> tuple[str, str]:
    method, _, path = row.partition(" ")
    return method, filled(path, place)


def routes(app: Flask) -> set[str]:
    return {
        f"{method} {rule.rule.removeprefix(PREFIX)}"
        for rule in app.url_map.iter_rules()
        if rule.endpoint not in OPEN and not rule.rule.endswith(STREAMS)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def test_every_route_has_its_row(sqlite_app: Flask) -> None:
    assert routes(sqlite_app) == set(TABLE)


def test_every_frame_has_its_row() -> None:
    assert set(COMMANDS) == set(FRAMES)


def test_the_streams_are_the_only_routes_that_ask_by_themselves(sqlite_app: Flask) -> None:
    asking = {rule.rule for rule in sqlite_app.url_map.iter_rules() if rule.rule.endswith(STREAMS)}

    assert asking == {f"{PREFIX}/sessions/<session_id>/{name}" for name in ("websocket", "events")}


@pytest.mark.parametrize("route", TABLE)
def test_each_kind_of_user_may_do_just_this(rest: Rest, route: str) -> None:
    row = TABLE[route]

    answers = [rest.of(user).ask(*at(route, place(rest)), row.body).status_code for user in USERS]

    assert dict(zip(USERS, answers, strict=True)) == dict(zip(USERS, row.answers, strict=True))


@pytest.mark.parametrize("kind", FRAMES)
def test_each_kind_of_participant_may_say_just_this(rest: Rest, kind: str) -> None:
    body, answers = FRAMES[kind]

    said = [answer_to(rest, user, {"type": kind, **body}) for user in ROLES]

    assert dict(zip(ROLES, said, strict=True)) == dict(zip(ROLES, answers, strict=True))


def answer_to(rest: Rest, user: str, frame: dict[str, Any]) -> str | None:
    """Return the code of the error that a frame is answered with, if it is."""
    where, outbox = place(rest), PaperOutbox()
    connection = Connection(UUID(where["uuid:session_id"]), User(user), outbox, role=ROLES[user])
    dispatch = Dispatch(rest.app.extensions["chat_hub"], connection, rest.app.extensions["rate_limits"])

    dispatch(filled(rest.app.json.dumps(frame), where))

    return next((said["error_code"] for said in frames(outbox) if said["type"] == "error"), None)


@pytest.mark.parametrize("kind", ["send_message", "cancel"])
def test_who_was_removed_changes_nothing_by_a_socket_that_is_still_open(rest: Rest, kind: str) -> None:
    body, _ = FRAMES[kind]
    where, outbox = place(rest), PaperOutbox()
    connection = Connection(UUID(where["uuid:session_id"]), User("dismissed"), outbox, role=ParticipantRole.MEMBER)
    dispatch = Dispatch(rest.app.extensions["chat_hub"], connection, rest.app.extensions["rate_limits"])
    rest.delete(f"/sessions/{where['uuid:session_id']}/participants/dismissed")

    dispatch(filled(rest.app.json.dumps({"type": kind, **body}), where))

    assert [said["error_code"] for said in frames(outbox)] == ["NOT_FOUND"]


@pytest.mark.parametrize("stream", STREAMS)
def test_streams_are_opened_by_participants_alone(rest: Rest, stream: str) -> None:
    session_id = place(rest)["uuid:session_id"]

    opened = {user: _opens(rest.app, f"/sessions/{session_id}{stream}", session_id, user) for user in USERS}

    assert opened == {"ann": 200, "mem": 200, "vic": 200, "stranger": 404}


@pytest.mark.parametrize("stream", STREAMS)
def test_nobody_opens_a_stream(jwt_app: Flask, stream: str) -> None:
    assert _opens(jwt_app, f"/sessions/{MISSING}{stream}", MISSING, "ann") == 401


def _opens(app: Flask, path: str, session_id: str, user: str) -> int:
    with app.test_request_context(PREFIX + path, headers={"X-User-ID": user}):
        try:
            admit(app.extensions["chat_hub"], session_id, PaperOutbox())
        except ChatError as refused:
            return refused.status
    return 200


@pytest.mark.parametrize("route", [route for route, row in TABLE.items() if not row.of_everyone])
def test_a_stranger_can_not_tell_what_is_there_from_what_is_not(rest: Rest, route: str) -> None:
    there = place(rest)
    stranger, missing = rest.of("stranger"), dict.fromkeys(there, MISSING) | {"path:user_id": "dismissed"}
    asked = {"headers": {"X-Request-ID": "same"}}

    answers = [stranger.ask(*at(route, where), TABLE[route].body, **asked).get_json() for where in (there, missing)]

    assert answers[0] | {"timestamp": ""} == answers[1] | {"timestamp": ""}


@pytest.mark.parametrize("route", TABLE)
def test_who_does_not_say_who_they_are_is_turned_away(jwt_app: Flask, route: str) -> None:
    method, path = at(route, dict.fromkeys(("uuid:session_id", "uuid:message_id", "uuid:job_id"), MISSING))

    response = Rest(jwt_app).ask(method, path.replace("<path:user_id>", "x"), TABLE[route].body)

    assert response.status_code == 401


def bearer(user: str, **claims: Any) -> dict[str, str]:
    return tokens.bearer(user, iss=JWT_ISSUER, aud=JWT_AUDIENCE, **claims)


@pytest.mark.parametrize("route", TABLE)
def test_an_admin_who_is_no_participant_is_a_stranger(jwt_app: Flask, route: str) -> None:
    owner = Rest(jwt_app, None)
    owner.ask = partial(owner.ask, headers=bearer("ann"))  # type: ignore[method-assign]
    where, row = place(owner), TABLE[route]

    response = Rest(jwt_app, None).ask(*at(route, where), row.body, headers=bearer("root", roles=["admin"]))

    assert response.status_code == row.answers[3]


@pytest.mark.parametrize("stream", STREAMS)
def test_an_admin_who_is_no_participant_watches_nothing(jwt_app: Flask, stream: str) -> None:
    session_id = Rest(jwt_app, None).made("/sessions", NEW_SESSION, headers=bearer("ann"))["id"]
    path = f"{PREFIX}/sessions/{session_id}{stream}"

    with jwt_app.test_request_context(path, headers=bearer("root", roles=["admin"])), pytest.raises(NotFound):
        admit(jwt_app.extensions["chat_hub"], session_id, PaperOutbox())


@pytest.mark.parametrize(("user", "status"), [("ann", 201), ("mem", 403), ("vic", 403), ("stranger", 404)])
def test_what_the_system_says_the_owner_alone_may_write(rest: Rest, user: str, status: int) -> None:
    session_id = place(rest)["uuid:session_id"]
    before = rest.get(f"/sessions/{session_id}").get_json()["message_count"]

    response = rest.of(user).post(f"/sessions/{session_id}/messages", {"content": "x", "role": "system"})

    after = rest.get(f"/sessions/{session_id}").get_json()["message_count"]
    assert response.status_code == status
    assert after - before == (status == 201)


@pytest.mark.parametrize("route", TABLE)
def test_no_answer_sets_a_cookie(sqlite_rest: Rest, route: str) -> None:
    where = place(sqlite_rest)

    answers = [sqlite_rest.of(user).ask(*at(route, where), TABLE[route].body) for user in ("stranger", "ann")]

    assert [answer.headers.getlist("Set-Cookie") for answer in answers] == [[], []]


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/docs/", "/client/app.js", f"{PREFIX}/health", f"{PREFIX}/openapi.json", "/x"]
)
def test_no_page_sets_a_cookie(sqlite_app: Flask, path: str) -> None:
    with sqlite_app.test_client().get(path) as answer:
        assert answer.headers.getlist("Set-Cookie") == []


def test_a_member_may_change_their_own_message(sqlite_rest: Rest) -> None:
    member = sqlite_rest.of("mem")
    mine = member.say(place(sqlite_rest)["uuid:session_id"], "Mine")

    response = member.put(f"/messages/{mine['id']}", {"content": "Still mine"})

    assert response.status_code == 200


def test_stats_are_over_my_sessions(sqlite_rest: Rest) -> None:
    place(sqlite_rest)

    counts = [sqlite_rest.of(user).get("/stats").get_json()["total_sessions"] for user in ("ann", "stranger")]

    assert counts == [1, 0]
