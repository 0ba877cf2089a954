"""Every route, asked by every kind of user. A new route without a row here fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask

from chat_backend.web.auth import OPEN, STREAMS
from tests.support.pretend_worker import PretendWorker
from tests.support.rest import NEW_SESSION, PREFIX, Rest

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
    "PUT /messages/<uuid:message_id>": Row({"content": "x"}, (200, 403, 403, 404)),
    "POST /sessions/<uuid:session_id>/process-llm": Row({"prompt": "x", "stream": True}, (202, 202, 403, 404)),
    "POST /messages/<uuid:message_id>/regenerate": Row({"stream": True}, (202, 202, 403, 404)),
    "GET /jobs/<uuid:job_id>": Row(),
    "POST /jobs/<uuid:job_id>/cancel": Row(answers=(200, 200, 403, 404)),
    "GET /sessions/<uuid:session_id>/participants": Row(),
    "POST /sessions/<uuid:session_id>/participants": Row({"user_id": "dan", "role": "viewer"}, (201, 403, 403, 404)),
    "DELETE /sessions/<uuid:session_id>/participants/<path:user_id>": Row(answers=(204, 403, 403, 404)),
    "POST /sessions/<uuid:session_id>/ws-ticket": Row(answers=(201, 201, 201, 404)),
    "GET /quota": Row(answers=(200, 200, 200, 200), of_everyone=True),
    "GET /providers": Row(answers=(200, 200, 200, 200), of_everyone=True),
    "GET /providers/<string:name>/models": Row(answers=(200, 200, 200, 200), of_everyone=True),
    "GET /stats": Row(answers=(200, 200, 200, 200), of_everyone=True),
}
USERS = ("ann", "mem", "vic", "stranger")


@pytest.fixture
def place(sqlite_rest: Rest) -> dict[str, str]:
    """A session of ann's with a member, a viewer, an answered question, and someone who may be removed."""
    session_id = sqlite_rest.new_session()
    for user, role in (("mem", "member"), ("vic", "viewer"), ("dismissed", "member")):
        sqlite_rest.admit(session_id, user, role)
    job = sqlite_rest.say(session_id, process=True)["job"]
    PretendWorker(sqlite_rest.app.extensions["backend"]).answer(job["id"])
    return {
        "uuid:session_id": session_id,
        "uuid:message_id": job["assistant_message_id"],
        "uuid:job_id": job["id"],
        "path:user_id": "dismissed",
        "string:name": "OPENAI",
    }


def at(row: str, place: dict[str, str]) -> tuple[str, str]:
    method, _, path = row.partition(" ")
    for name, value in place.items():
        path = path.replace(f"<{name}>", value)
    return method, path


def routes(app: Flask) -> set[str]:
    return {
        f"{method} {rule.rule.removeprefix(PREFIX)}"
        for rule in app.url_map.iter_rules()
        if rule.endpoint not in OPEN and not rule.rule.endswith(STREAMS)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def test_every_route_has_its_row(sqlite_app: Flask) -> None:
    assert routes(sqlite_app) == set(TABLE)


def test_the_streams_are_the_only_routes_that_ask_by_themselves(sqlite_app: Flask) -> None:
    asking = {rule.rule for rule in sqlite_app.url_map.iter_rules() if rule.rule.endswith(STREAMS)}

    assert asking == {f"{PREFIX}/sessions/<session_id>/{name}" for name in ("websocket", "events")}


@pytest.mark.parametrize("number", range(len(USERS)), ids=USERS)
@pytest.mark.parametrize("route", TABLE)
def test_each_kind_of_user_may_do_just_this(sqlite_rest: Rest, place: dict[str, str], route: str, number: int) -> None:
    row = TABLE[route]
    method, path = at(route, place)

    response = sqlite_rest.of(USERS[number]).ask(method, path, row.body)

    assert response.status_code == row.answers[number], response.text


@pytest.mark.parametrize("route", [route for route, row in TABLE.items() if not row.of_everyone])
def test_a_stranger_can_not_tell_what_is_there_from_what_is_not(
    sqlite_rest: Rest, place: dict[str, str], route: str
) -> None:
    stranger, missing = sqlite_rest.of("stranger"), dict.fromkeys(place, MISSING) | {"path:user_id": "dismissed"}
    asked = {"headers": {"X-Request-ID": "same"}}

    answers = [stranger.ask(*at(route, where), TABLE[route].body, **asked).get_json() for where in (place, missing)]

    assert answers[0] | {"timestamp": ""} == answers[1] | {"timestamp": ""}


@pytest.mark.parametrize("route", TABLE)
def test_who_does_not_say_who_they_are_is_turned_away(jwt_app: Flask, route: str) -> None:
    method, path = at(route, dict.fromkeys(("uuid:session_id", "uuid:message_id", "uuid:job_id"), MISSING))

    response = Rest(jwt_app).ask(method, path.replace("<path:user_id>", "x"), TABLE[route].body)

    assert response.status_code == 401


def test_a_member_may_change_their_own_message(sqlite_rest: Rest, place: dict[str, str]) -> None:
    member = sqlite_rest.of("mem")
    mine = member.say(place["uuid:session_id"], "Mine")

    response = member.put(f"/messages/{mine['id']}", {"content": "Still mine"})

    assert response.status_code == 200


def test_stats_are_over_my_sessions(sqlite_rest: Rest, place: dict[str, str]) -> None:
    counts = [sqlite_rest.of(user).get("/stats").get_json()["total_sessions"] for user in ("ann", "stranger")]

    assert counts == [1, 0]
