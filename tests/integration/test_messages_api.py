"""Messages over REST."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.pretend_worker import PretendWorker
from tests.support.rest import Rest, fault

MISSING = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture
def session_id(rest: Rest) -> str:
    return rest.new_session()


def contents(page: dict[str, Any]) -> list[str]:
    return [message["content"] for message in page["messages"]]


def test_a_sent_message_has_the_seeds_fields_and_ours(rest: Rest, session_id: str) -> None:
    body = {"content": "Привет 👋", "role": "user", "metadata": {"client_info": "flutter_web"}}

    response = rest.post(f"/sessions/{session_id}/messages", body)

    sent = response.get_json()
    assert response.status_code == 201
    assert sent.pop("id")
    assert sent.pop("created_at") == sent.pop("updated_at")
    assert sent == {
        "session_id": session_id,
        "seq": 1,
        "role": "user",
        "content": "Привет 👋",
        "status": "complete",
        "user_id": "ann",
        "parent_message_id": None,
        "job_id": None,
        "attempt": 0,
        "is_streaming": False,
        "llm_provider": None,
        "llm_model": None,
        "response_time_ms": None,
        "tokens_used": 0,
        "error_message": None,
        "metadata": {"client_info": "flutter_web"},
    }


def test_asking_for_the_reply_makes_it_at_once_and_shows_its_job(rest: Rest, session_id: str) -> None:
    sent = rest.say(session_id, "Hi", process=True)

    reply = rest.get(f"/sessions/{session_id}/messages").get_json()["messages"][1]
    job = sent["job"]
    assert (job["status"], job["message_id"], job["attempts"]) == ("queued", sent["id"], [])
    assert job["assistant_message_id"] == reply["id"]
    assert (reply["role"], reply["status"], reply["is_streaming"], reply["user_id"]) == (
        "assistant",
        "pending",
        True,
        None,
    )


def test_without_a_wish_for_a_reply_there_is_no_job(rest: Rest, session_id: str) -> None:
    sent = rest.say(session_id, "Hi")

    assert "job" not in sent


def test_messages_are_listed_in_the_order_of_seq_with_the_offset_they_are_current_to(
    rest: Rest, session_id: str
) -> None:
    for number in range(5):
        rest.say(session_id, str(number))

    page = rest.get(f"/sessions/{session_id}/messages?page=2&page_size=2").get_json()

    assert contents(page) == ["2", "3"]
    assert (page["total_count"], page["page"], page["page_size"], page["has_more"]) == (5, 2, 2, True)
    assert (page["session_id"], page["offset"]) == (session_id, 5)


@pytest.mark.parametrize(
    ("query", "found", "more"),
    [
        ("page_size=2", ["0", "1"], True),
        ("page=3&page_size=2", ["4"], False),
        ("page=9&page_size=2", [], False),
        ("page=1000000000&page_size=200", [], False),
        ("order=desc&page_size=2", ["4", "3"], True),
        ("order=desc&page=3&page_size=2", ["0"], False),
    ],
)
def test_a_page_is_chosen_by_number_and_order(
    rest: Rest, session_id: str, query: str, found: list[str], more: bool
) -> None:
    for number in range(5):
        rest.say(session_id, str(number))

    page = rest.get(f"/sessions/{session_id}/messages?{query}").get_json()

    assert (contents(page), page["has_more"]) == (found, more)


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_cursor_walks_through_all_messages_once(rest: Rest, session_id: str, order: str) -> None:
    for number in range(5):
        rest.say(session_id, str(number))
    seen, query = [], f"page_size=2&order={order}"

    while query:
        page = rest.get(f"/sessions/{session_id}/messages?{query}").get_json()
        seen += contents(page)
        query = f"page_size=2&cursor={page['next_cursor']}" if page["has_more"] else ""

    assert seen == (["0", "1", "2", "3", "4"] if order == "asc" else ["4", "3", "2", "1", "0"])


def test_before_gives_the_newest_before_it_and_says_whether_there_are_older_ones(rest: Rest, session_id: str) -> None:
    sent = [rest.say(session_id, str(number)) for number in range(5)]
    before = quote(sent[4]["created_at"])

    page = rest.get(f"/sessions/{session_id}/messages?before={before}&page_size=3&page=7").get_json()

    assert (contents(page), page["has_more"], page["page"]) == (["1", "2", "3"], True, 1)


@pytest.mark.parametrize("hours", [3, 5.75, -3.5, 0])
def test_before_is_understood_as_it_is_typed(rest: Rest, session_id: str, hours: float) -> None:
    sent = [datetime.fromisoformat(rest.say(session_id, str(number))["created_at"]) for number in range(3)]
    moment = sent[2].astimezone(timezone(timedelta(hours=hours)))
    written = moment.isoformat(timespec="microseconds")

    for typed in (written, written.replace("T", " "), written.replace("T", "t"), written.replace("+00:00", "z")):
        # Not escaped: a plus arrives as a space.
        page = rest.get(f"/sessions/{session_id}/messages?before={typed}").get_json()

        assert contents(page) == ["0", "1"], typed


@pytest.mark.parametrize("typed", ["2026-11-27", "1764244800", "2026-11-27T12:00:00%252B03:00", "2026-11-27T12:00Z30"])
def test_what_is_no_time_is_told_how_to_write_one(rest: Rest, session_id: str, typed: str) -> None:
    response = rest.get(f"/sessions/{session_id}/messages?before={typed}")

    assert fault(response) == (422, "INVALID_INPUT", "before")
    assert "write + as %2B" in response.get_json()["details"]["message"]


def test_before_takes_any_offset_from_utc(rest: Rest, session_id: str) -> None:
    rest.say(session_id, "now")

    page = rest.get(f"/sessions/{session_id}/messages?before={quote('2099-01-01T00:00:00+05:00')}").get_json()

    assert (contents(page), page["has_more"]) == (["now"], False)


def test_a_change_leaves_what_it_does_not_name(rest: Rest, session_id: str) -> None:
    sent = rest.say(session_id, "Typo", metadata={"a": 1})
    change = {"content": "Mended", "tokens_used": 150, "response_time_ms": 2500, "is_streaming": False}

    changed = rest.put(f"/messages/{sent['id']}", change)

    shown = changed.get_json()
    assert changed.status_code == 200
    assert (shown["content"], shown["tokens_used"], shown["response_time_ms"]) == ("Mended", 150, 2500)
    assert (shown["metadata"], shown["seq"], shown["is_streaming"]) == ({"a": 1}, 1, False)


def test_a_reply_being_written_can_not_be_changed(rest: Rest, session_id: str) -> None:
    reply_id = rest.say(session_id, process=True)["job"]["assistant_message_id"]

    response = rest.put(f"/messages/{reply_id}", {"content": "Mine"})

    assert fault(response) == (409, "MESSAGE_BUSY", None)


def test_a_finished_reply_can_be_changed_by_the_owner(rest: Rest, session_id: str, worker: PretendWorker) -> None:
    job = rest.say(session_id, process=True)["job"]
    worker.answer(job["id"])

    response = rest.put(f"/messages/{job['assistant_message_id']}", {"content": "Better"})

    assert (response.status_code, response.get_json()["content"]) == (200, "Better")


def test_what_a_client_counts_is_shown_and_not_counted(rest: Rest, session_id: str, worker: PretendWorker) -> None:
    job = rest.say(session_id, process=True)["job"]
    worker.answer(job["id"])

    rest.put(f"/messages/{job['assistant_message_id']}", {"response_time_ms": 1})

    assert rest.get("/stats").get_json()["average_response_time_ms"] == 1500


def test_a_member_may_not_change_what_others_said(rest: Rest, session_id: str) -> None:
    sent = rest.say(session_id, "Mine")

    response = rest.admit(session_id, "bob").put(f"/messages/{sent['id']}", {"content": "Yours"})

    assert fault(response) == (403, "FORBIDDEN", None)


def test_the_owner_may_speak_as_the_system_and_a_member_may_not(rest: Rest, session_id: str) -> None:
    body = {"content": "Be brief.", "role": "system"}

    answers = [
        someone.post(f"/sessions/{session_id}/messages", body).status_code
        for someone in (rest, rest.admit(session_id, "bob"))
    ]

    assert answers == [201, 403]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"content": "x", "role": "assistant"}, "role"),
        ({"content": "", "role": "user"}, "content"),
        ({"content": "x" * 32_001}, "content"),
        ({"content": "x", "role": "system", "process": True}, "process"),
        ({"content": "x", "parent_message_id": MISSING}, "parent_message_id"),
        ({"content": "x", "on_busy": "shout"}, "on_busy"),
    ],
)
def test_what_can_not_be_sent_is_refused_by_name(rest: Rest, session_id: str, body: dict[str, Any], field: str) -> None:
    response = rest.post(f"/sessions/{session_id}/messages", body)

    assert fault(response) == (422, "INVALID_INPUT", field)
    assert rest.get(f"/sessions/{session_id}/messages").get_json()["total_count"] == 0


def test_a_thread_hangs_below_its_parent(rest: Rest, session_id: str) -> None:
    parent = rest.say(session_id, "Above")

    child = rest.say(session_id, "Below", parent_message_id=parent["id"])

    assert child["parent_message_id"] == parent["id"]


def test_the_same_key_stores_one_message_and_asks_once(rest: Rest, session_id: str, worker: PretendWorker) -> None:
    body = {"content": "Once", "process": True}
    first = rest.post(f"/sessions/{session_id}/messages", body, key="k")
    worker.answer(first.get_json()["job"]["id"])

    again = rest.post(f"/sessions/{session_id}/messages", body, key="k")

    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert again.get_json()["id"] == first.get_json()["id"]
    assert again.get_json()["job"]["status"] == "succeeded"
    assert [attempt["number"] for attempt in again.get_json()["job"]["attempts"]] == [1]
    assert rest.get(f"/sessions/{session_id}/messages").get_json()["total_count"] == 2


def test_a_default_that_is_spelled_out_is_the_same_payload(rest: Rest, session_id: str) -> None:
    rest.post(f"/sessions/{session_id}/messages", {"content": "x"}, key="k")

    again = rest.post(f"/sessions/{session_id}/messages", {"role": "user", "content": "x", "process": False}, key="k")

    assert (again.status_code, again.headers.get("Idempotency-Replayed")) == (201, "true")


def test_one_key_stands_for_different_effects_in_different_sessions(rest: Rest, session_id: str) -> None:
    other = rest.new_session()
    first = rest.made(f"/sessions/{session_id}/messages", {"content": "x"}, key="k")

    second = rest.made(f"/sessions/{other}/messages", {"content": "y"}, key="k")

    assert first["id"] != second["id"]
