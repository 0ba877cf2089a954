"""Participants and tickets over REST."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from chat_backend.config import Settings
from chat_backend.web.app import create_app
from tests.integration.conftest import MakeApp
from tests.support.rest import NEW_SESSION, Rest, fault


@pytest.fixture
def session_id(rest: Rest) -> str:
    return rest.new_session()


def roles(rest: Rest, session_id: str) -> dict[str, str]:
    listed = rest.get(f"/sessions/{session_id}/participants").get_json()["participants"]
    return {participant["user_id"]: participant["role"] for participant in listed}


def admit(rest: Rest, session_id: str, user: str, role: str = "member", **more: Any) -> Any:
    return rest.post(f"/sessions/{session_id}/participants", {"user_id": user, "role": role}, **more)


def test_who_makes_a_session_owns_it(rest: Rest, session_id: str) -> None:
    listed = rest.get(f"/sessions/{session_id}/participants").get_json()

    assert [set(participant) for participant in listed["participants"]] == [{"user_id", "role", "created_at"}]
    assert roles(rest, session_id) == {"ann": "owner"}


def test_a_user_is_admitted_and_then_given_another_role(rest: Rest, session_id: str) -> None:
    answers = [admit(rest, session_id, "bob", role) for role in ("member", "viewer", "viewer")]

    assert [answer.status_code for answer in answers] == [201, 200, 200]
    assert [answer.get_json()["role"] for answer in answers] == ["member", "viewer", "viewer"]
    assert roles(rest, session_id) == {"ann": "owner", "bob": "viewer"}


@pytest.mark.parametrize("user", ["bob", "боб", "a/b", "auth0|5e9", "bob@example.com", "%2F", "x" * 255])
def test_any_user_id_can_be_admitted_and_removed(rest: Rest, session_id: str, user: str) -> None:
    admitted = admit(rest, session_id, user)

    removed = rest.delete(f"/sessions/{session_id}/participants/{quote(user, safe='')}")

    assert (admitted.status_code, removed.status_code, removed.data) == (201, 204, b"")
    assert roles(rest, session_id) == {"ann": "owner"}


def test_a_participant_may_leave(rest: Rest, session_id: str) -> None:
    bob = rest.admit(session_id, "bob", "viewer")

    response = bob.delete(f"/sessions/{session_id}/participants/bob")

    assert response.status_code == 204
    assert bob.get(f"/sessions/{session_id}").status_code == 404


def test_a_user_is_added_to_so_many_sessions_of_others_and_can_leave(make_app: MakeApp) -> None:
    ann = Rest(make_app(MAX_MEMBERSHIPS_PER_USER="2"))
    own = [ann.of("bob").new_session() for _ in range(3)]
    first, second, third = (ann.of(user).new_session() for user in ("ann", "ann", "cat"))
    answers = [admit(ann, first, "bob").status_code, admit(ann, second, "bob", "viewer").status_code]

    refused = admit(ann.of("cat"), third, "bob")
    role_changed = admit(ann, second, "bob", "member")
    one_more_of_his_own = ann.of("bob").post("/sessions", NEW_SESSION)
    left = ann.of("bob").delete(f"/sessions/{first}/participants/bob")
    admitted = admit(ann.of("cat"), third, "bob")

    assert answers == [201, 201]
    assert fault(refused) == (422, "INVALID_INPUT", "user_id")
    assert (role_changed.status_code, one_more_of_his_own.status_code) == (200, 201)
    assert (left.status_code, admitted.status_code, len(own)) == (204, 201, 3)


@pytest.mark.parametrize("user", ["bob ", "Zoe\u0308", "a\u200bb", "\u202ebob"])
def test_an_id_that_looks_like_another_is_not_admitted(rest: Rest, session_id: str, user: str) -> None:
    response = admit(rest, session_id, user)

    assert fault(response) == (422, "INVALID_INPUT", "user_id")
    assert "form NFC" in response.get_json()["details"]["message"]


@pytest.mark.parametrize("user", ["nobody", "%00", "x" * 300])
def test_who_takes_no_part_can_not_be_removed(rest: Rest, session_id: str, user: str) -> None:
    response = rest.delete(f"/sessions/{session_id}/participants/{user}")

    assert fault(response) == (404, "NOT_FOUND", None)


def test_the_owner_stays(rest: Rest, session_id: str) -> None:
    answers = [
        fault(rest.delete(f"/sessions/{session_id}/participants/ann")),
        fault(admit(rest, session_id, "ann", "viewer")),
    ]

    assert answers == [(409, "OWNER_IS_FIXED", "user_id")] * 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"user_id": "bob", "role": "owner"}, "role"),
        ({"user_id": "bob", "role": "admin"}, "role"),
        ({"user_id": "", "role": "member"}, "user_id"),
        ({"user_id": "b\nb", "role": "member"}, "user_id"),
        ({"user_id": "x" * 256, "role": "member"}, "user_id"),
        ({"role": "member"}, "user_id"),
    ],
)
def test_who_can_not_be_admitted_is_refused(rest: Rest, session_id: str, body: dict[str, Any], field: str) -> None:
    response = rest.post(f"/sessions/{session_id}/participants", body)

    assert fault(response) == (422, "INVALID_INPUT", field)


def test_a_repeated_admission_answers_as_the_first(rest: Rest, session_id: str) -> None:
    answers = [admit(rest, session_id, "bob", key="k") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [None, "true"]


def test_a_repeated_admission_does_not_admit_again_who_was_removed(rest: Rest, session_id: str) -> None:
    admit(rest, session_id, "bob", key="k")
    rest.delete(f"/sessions/{session_id}/participants/bob")

    again = admit(rest, session_id, "bob", key="k")

    assert again.status_code == 404
    assert roles(rest, session_id) == {"ann": "owner"}


def test_a_ticket_is_given_with_its_end(rest: Rest, session_id: str) -> None:
    response = rest.post(f"/sessions/{session_id}/ws-ticket")

    given = response.get_json()
    assert response.status_code == 201
    assert set(given) == {"ticket", "expires_at"}
    assert len(given["ticket"]) >= 43


def test_a_session_has_a_limited_number_of_participants(sqlite_url: str) -> None:
    environ = {"AUTH_MODE": "dev", "DATABASE_URL": sqlite_url, "MAX_PARTICIPANTS": "2"}
    ann = Rest(create_app(Settings.from_environment(environ | {"REDIS_URL": "redis://127.0.0.1:1"})))
    session_id = ann.new_session()
    ann.admit(session_id, "bob")

    refused = ann.post(f"/sessions/{session_id}/participants", {"user_id": "cat", "role": "member"})
    changed = ann.post(f"/sessions/{session_id}/participants", {"user_id": "bob", "role": "viewer"})

    assert fault(refused) == (422, "INVALID_INPUT", "user_id")
    assert changed.status_code == 200
