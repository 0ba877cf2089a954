"""Chat sessions over REST."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import event, text

from chat_backend.config import Settings
from chat_backend.web.app import create_app
from tests.integration.conftest import MakeApp
from tests.support.rest import NEW_SESSION, Rest, fault
from tests.support.waiting import wait_until

MISSING = "01890a5d-ac96-774b-bcce-b302099a8057"


def test_a_new_session_has_the_seeds_fields_and_its_address(rest: Rest) -> None:
    body = {"title": "Разбор", "settings": {"temperature": 0.7, "theme": "dark"}, **NEW_SESSION}

    response = rest.post("/sessions", body)

    made = response.get_json()
    assert response.status_code == 201
    assert response.headers["Location"] == f"/api/v1/chat/sessions/{made['id']}"
    assert UUID(made.pop("id")).version == 7
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", made.pop("created_at"))
    assert made.pop("updated_at")
    assert made == {
        "title": "Разбор",
        "user_id": "ann",
        "llm_provider": "LOCAL",
        "llm_model": "tiny",
        "settings": {"temperature": 0.7, "theme": "dark"},
        "is_active": True,
        "message_count": 0,
    }


def test_a_session_is_shown_as_it_was_made(rest: Rest) -> None:
    made = rest.made("/sessions", NEW_SESSION)

    shown = rest.get(f"/sessions/{made['id']}")

    assert (shown.status_code, shown.get_json()) == (200, made)


def test_what_is_not_there_is_not_found(rest: Rest) -> None:
    response = rest.get(f"/sessions/{MISSING}")

    assert fault(response) == (404, "NOT_FOUND", None)


def test_a_list_holds_the_sessions_i_take_part_in_oldest_first(rest: Rest) -> None:
    mine, shared, foreign = rest.new_session(), rest.of("bob").new_session(), rest.of("bob").new_session()
    rest.of("bob").admit(shared, "ann", "viewer")

    listed = rest.get("/sessions").get_json()

    assert foreign not in [mine, shared]
    assert [session["id"] for session in listed["sessions"]] == [mine, shared]
    assert (listed["total_count"], listed["page"], listed["page_size"]) == (2, 1, 50)
    assert (listed["has_more"], listed["next_cursor"]) == (False, None)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("user_id=bob", ["shared"]),
        ("user_id=carl", []),
        ("is_active=true", ["mine", "shared"]),
        ("is_active=false", ["off"]),
        ("llm_provider=OPENROUTER", ["off"]),
        ("order=desc", ["off", "shared", "mine"]),
        ("page=2&page_size=2", ["off"]),
        ("page=3&page_size=2", []),
        ("page=1000000000&page_size=200", []),
    ],
)
def test_a_list_is_narrowed_by_its_query(rest: Rest, query: str, found: list[str]) -> None:
    rest.new_session(title="mine")
    rest.of("bob").admit(rest.of("bob").new_session(title="shared"), "ann")
    off = rest.new_session(title="off", llm_provider="OPENROUTER")
    rest.put(f"/sessions/{off}", {"is_active": False})

    listed = rest.get(f"/sessions?{query}").get_json()

    assert [session["title"] for session in listed["sessions"]] == found


@pytest.mark.parametrize(
    ("title", "term"),
    [
        ("Привет, мир", "ПРИВЕТ"),
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
        ("οδυσσευς", "ΣΕΥΣ"),
        ("Straße", "STRASSE"),
        ("İstanbul", "istanbul"),
        ("Ａｐｐｌｅ", "apple"),
        ("apple", "ＡＰＰＬＥ"),
        ("caf\u00e9", "CAFE\u0301"),
        ("cafe\u0301", "caf\u00e9"),
        ("ｱｯﾌﾟﾙ", "アップル"),
        ("如何烤麵包", "烤麵"),
        ("co\u00adoperate", "cooperate"),
        ("100% _sure_ C:\\new", "% _s"),
        ("100% _sure_ C:\\new", "c:\\n"),
        ("it's", "T'S"),
    ],
)
def test_title_is_found_by_what_reads_the_same(rest: Rest, title: str, term: str) -> None:
    session_id = rest.new_session(title=title)
    rest.new_session(title="Other")
    rest.new_session()

    listed = rest.get(f"/sessions?title={quote(term)}").get_json()

    assert [session["id"] for session in listed["sessions"]] == [session_id]
    assert listed["total_count"] == 1


@pytest.mark.parametrize("term", ["_", "%", "a%e", "e", "\\"])
def test_title_search_is_literal(rest: Rest, term: str) -> None:
    rest.new_session(title="caf\u00e9")

    assert rest.get(f"/sessions?title={quote(term)}").get_json()["sessions"] == []


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_cursor_goes_on_where_the_page_before_ended(rest: Rest, order: str) -> None:
    made = [rest.new_session() for _ in range(5)]
    seen, query = [], f"page_size=2&order={order}"

    while query:
        page = rest.get(f"/sessions?{query}").get_json()
        seen += [session["id"] for session in page["sessions"]]
        query = f"page_size=2&cursor={page['next_cursor']}" if page["has_more"] else ""

    assert seen == (made if order == "asc" else made[::-1])


@pytest.mark.parametrize("cursor", ["x", "W10=", "WyJhIiwgZmFsc2Vd", "%F0%9F%98%80", "MQ=="])
def test_a_foreign_cursor_is_refused_by_name(rest: Rest, cursor: str) -> None:
    response = rest.get(f"/sessions?cursor={cursor}")

    assert fault(response) == (422, "INVALID_INPUT", "cursor")


def test_a_change_leaves_what_it_does_not_name_and_replaces_settings_whole(rest: Rest) -> None:
    session_id = rest.new_session(title="Old", settings={"temperature": 1, "theme": "dark"})

    changed = rest.put(f"/sessions/{session_id}", {"settings": {"max_tokens": 5}})

    assert changed.status_code == 200
    assert changed.get_json()["title"] == "Old"
    assert changed.get_json()["settings"] == {"max_tokens": 5}
    assert rest.get(f"/sessions/{session_id}").get_json() == changed.get_json()


def test_every_message_counts_and_moves_updated_at(rest: Rest) -> None:
    before = rest.made("/sessions", NEW_SESSION)

    rest.say(before["id"], process=True)

    after = rest.get(f"/sessions/{before['id']}").get_json()
    assert after["message_count"] == 2
    assert after["updated_at"] > before["updated_at"]


def test_a_deleted_session_is_gone_with_everything_below(rest: Rest) -> None:
    session_id = rest.new_session()
    message = rest.say(session_id, process=True)

    response = rest.delete(f"/sessions/{session_id}")

    assert (response.status_code, response.get_json()["session_id"]) == (200, session_id)
    assert response.get_json()["message"]
    for path in (f"/sessions/{session_id}", f"/sessions/{session_id}/messages", f"/jobs/{message['job']['id']}"):
        assert rest.get(path).status_code == 404


WRITES_BELOW: dict[str, Any] = {
    "/ws-ticket": None,
    "/messages": {"content": "Hello"},
    "/process-llm": {"prompt": "Hello"},
    "/participants": {"user_id": "bob", "role": "member"},
}


def test_what_is_written_below_a_session_as_it_is_deleted_finds_none(make_app: MakeApp, postgresql_url: str) -> None:
    rest = Rest(make_app(DATABASE_URL=postgresql_url))
    engine, session_id = rest.app.extensions["backend"].engine, rest.new_session()

    def write(path: str) -> tuple[int, str, str | None]:
        return fault(rest.of("ann").post(f"/sessions/{session_id}{path}", WRITES_BELOW[path]))

    def waiting() -> int | None:
        with engine.connect() as looking:
            held_up = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            return looking.scalar(text(f"{held_up} AND wait_event_type = 'Lock'"))

    with engine.begin() as deleting, ThreadPoolExecutor() as writers:
        deleting.execute(text("DELETE FROM chat_sessions WHERE id = :id"), {"id": session_id})
        answers = [writers.submit(write, path) for path in WRITES_BELOW]
        wait_until(lambda: waiting() == 1, why="the first waits, the others queue behind it")
        deleting.commit()

    assert [answer.result() for answer in answers] == [(404, "NOT_FOUND", None)] * len(WRITES_BELOW)


def test_the_same_key_makes_one_session(rest: Rest) -> None:
    first = rest.post("/sessions", NEW_SESSION, key="k1")
    rest.put(f"/sessions/{first.get_json()['id']}", {"title": "Renamed"})

    again = rest.post("/sessions", NEW_SESSION, key="k1")

    assert (first.headers.get("Idempotency-Replayed"), again.headers.get("Idempotency-Replayed")) == (None, "true")
    assert (again.status_code, again.get_json()["id"]) == (201, first.get_json()["id"])
    assert again.get_json()["title"] == "Renamed"
    assert rest.get("/sessions").get_json()["total_count"] == 1


def test_a_key_for_something_else_is_refused(rest: Rest) -> None:
    rest.post("/sessions", NEW_SESSION, key="k1")

    response = rest.post("/sessions", {**NEW_SESSION, "title": "Other"}, key="k1")

    assert fault(response) == (422, "IDEMPOTENCY_KEY_REUSED", "Idempotency-Key")


def test_keys_of_different_users_do_not_meet(rest: Rest) -> None:
    mine = rest.made("/sessions", NEW_SESSION, key="k1")

    theirs = rest.of("bob").made("/sessions", NEW_SESSION, key="k1")

    assert theirs["id"] != mine["id"]


def test_a_refusal_is_not_remembered_under_its_key(rest: Rest) -> None:
    refused = rest.post("/sessions", {**NEW_SESSION, "title": 5}, key="k1")

    taken = rest.post("/sessions", NEW_SESSION, key="k1")

    assert (refused.status_code, taken.status_code) == (422, 201)


@pytest.mark.parametrize("key", ["", "two words", "ключ", "x" * 256, "a\tb"])
def test_a_key_that_is_none_is_refused(rest: Rest, key: str) -> None:
    response = rest.post("/sessions", NEW_SESSION, headers={"Idempotency-Key": key.encode().decode("latin-1")})

    assert fault(response) == (400, "INVALID_IDEMPOTENCY_KEY", "Idempotency-Key")


def test_a_user_owns_a_limited_number_of_sessions(sqlite_url: str) -> None:
    environ = {"AUTH_MODE": "dev", "DATABASE_URL": sqlite_url, "MAX_SESSIONS_PER_USER": "2"}
    ann = Rest(create_app(Settings.from_environment(environ | {"REDIS_URL": "redis://127.0.0.1:1"})))
    first, _ = ann.new_session(), ann.made("/sessions", NEW_SESSION, key="second")

    refused = ann.post("/sessions", NEW_SESSION)
    repeated = ann.post("/sessions", NEW_SESSION, key="second")
    others = ann.of("bob").post("/sessions", NEW_SESSION)
    ann.delete(f"/sessions/{first}")
    after = ann.post("/sessions", NEW_SESSION)

    assert fault(refused) == (409, "TOO_MANY_SESSIONS", None)
    assert [response.status_code for response in (repeated, others, after)] == [201, 201, 201]


def test_titles_are_not_searched_by_pattern(rest: Rest, web_app: Flask) -> None:
    # LIKE takes the product of two lengths for some titles: 7 s for one request over a user's 10,000 sessions.
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    engine = web_app.extensions["backend"].engine
    event.listen(engine, "before_cursor_execute", note)
    rest.get("/sessions", query_string={"title": "a" * 499 + "b"})

    assert statements
    assert not any("LIKE" in statement for statement in statements)
