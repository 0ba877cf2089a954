"""What a viewer is shown when it comes: greeting, replay, baselines, then live."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tests.support.chat import Chat, Viewer
from tests.support.provider_stub import expected_text
from tests.support.stack import Stack, dial_reading_little, refused, socket_url

ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def chat(stack: Stack) -> Chat:
    return stack.chat()


def _types(viewer: Viewer) -> list[str]:
    return [frame["type"] for frame in viewer.frames]


def _is_text(frame: dict[str, Any]) -> bool:
    return frame["type"] == "message_delta" or frame.get("action") == "streaming"


def test_the_greeting_says_where_the_viewer_stands(chat: Chat) -> None:
    session = chat.new_session()
    chat.send(session["id"], "one")

    with chat.watch(session["id"]) as viewer:
        greeting = viewer.greeting()

    assert set(greeting) == {
        *("type", "session_id", "timestamp", "user_id", "connection_id", "offset", "cursor", "recovered"),
        *("participants_online", "streaming"),
    }
    assert (greeting["session_id"], greeting["user_id"]) == (session["id"], chat.user)
    assert (greeting["offset"], greeting["recovered"]) == (1, False)
    assert (greeting["participants_online"], greeting["streaming"]) == ([chat.user], [])


@pytest.mark.parametrize(
    ("since", "recovered", "replayed"),
    [("", False, 0), ("3", True, 0), ("0", True, 3), ("2", True, 1), ("4", False, 0), ("1" + "0" * 30, False, 0)],
)
def test_all_after_since_follows_where_it_can(chat: Chat, since: str, recovered: bool, replayed: int) -> None:
    session = chat.new_session()
    for text in ("one", "two", "three"):
        chat.send(session["id"], text)

    with chat.watch(session["id"], since=since) as viewer:
        viewer.offset = int(since or 0)
        greeting = viewer.greeting()
        viewer.say("ping")
        viewer.until_type("pong")

    assert (greeting["recovered"], greeting["offset"]) == (recovered, 3)
    assert _types(viewer) == ["connection_established", *["message_update"] * replayed, "pong"]


@pytest.mark.parametrize("since", ["-1", "x", "1.5", "²", "1e3", " 1", "0" * 41])
def test_a_since_that_is_no_offset_is_refused(stack: Stack, chat: Chat, since: str) -> None:
    session = chat.new_session()

    error, code = refused(socket_url(stack.web, session["id"], user_id=chat.user, since=since))

    assert (code, error["error_code"], error["details"]["field"]) == (1008, "INVALID_INPUT", "since")
    assert error["session_id"] == session["id"]


def test_on_replay_a_message_is_shown_as_it_is_now(chat: Chat) -> None:
    session = chat.new_session()
    message = chat.send(session["id"], "old")
    chat.request("PUT", f"/messages/{message['id']}", json={"content": "new"})

    with chat.watch(session["id"], since=0) as viewer:
        viewer.greeting()
        viewer.until_action("updated")

    shown = [(f["action"], f["message"]["content"]) for f in viewer.frames[1:]]
    assert shown == [("new_message", "new"), ("updated", "new")]


def test_a_replay_larger_than_the_outbox_reaches_a_viewer_that_reads(stack: Stack, chat: Chat) -> None:
    session = chat.new_session()
    count = 150
    for _ in range(count):
        chat.send(session["id"], "\N{GRINNING FACE}" * 10_000)

    with chat.watch(session["id"], since=0) as viewer:
        assert viewer.greeting()["recovered"]
        viewer.until(lambda frame: frame.get("offset") == count)
        chat.send(session["id"], "live")
        live = viewer.next()

    assert live["message"]["content"] == "live"
    assert len(viewer.frames) == count + 2


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [("/participants/{user}", 4403, "NOT_A_PARTICIPANT"), ("", 4404, "NOT_FOUND")],
)
def test_who_is_sent_away_while_it_catches_up_is_shown_no_more(
    stack: Stack, chat: Chat, path: str, code: int, reason: str
) -> None:
    session, bob = chat.new_session(), stack.chat()
    at = f"/sessions/{session['id']}"
    chat.request("POST", f"{at}/participants", json={"user_id": bob.user, "role": "member"}, status=201)
    for _ in range(60):
        chat.send(session["id"], "\N{GRINNING FACE}" * 10_000)

    with Viewer(dial_reading_little(stack.web, session["id"], user_id=bob.user, since=0)) as viewer:
        viewer.greeting()
        assert chat.http.delete(at + path.format(user=bob.user)).is_success
        if path:
            chat.send(session["id"], "not for Bob")
        closed_with = viewer.until_closed()

    assert (closed_with, viewer.frames[-1]["error_code"]) == (code, reason)
    assert 1 < viewer.offset < 60


@pytest.mark.parametrize("deltas", [0, 1])
def test_who_joins_in_mid_stream_misses_nothing_and_sees_nothing_twice(chat: Chat, deltas: int) -> None:
    session = chat.new_session("stub:tokens=60,delay=0.02,tag=t")
    with chat.watch(session["id"], deltas=1) as first:
        first.greeting()
        first.say("send_message", content="Hello")
        first.until(lambda frame: frame["type"] == "message_delta" and frame["start"] > 50)

        with chat.watch(session["id"], deltas=deltas) as viewer:
            greeting = viewer.greeting()
            baseline = viewer.next()
            final = viewer.until_action("completed")
            viewer.until_job("succeeded")

    assert [reply["attempt"] for reply in greeting["streaming"]] == [1]
    assert (baseline["action"], baseline["message"]["id"]) == ("streaming", greeting["streaming"][0]["message_id"])
    assert len(baseline["message"]["content"]) > 50
    assert final["message"]["content"] == expected_text("t", 60)
    if deltas:
        assert baseline["message"]["content"] + "".join(viewer.pieces(final["message"]["id"])) == expected_text("t", 60)
        assert sum(frame.get("action") == "streaming" for frame in viewer.frames) == 1


@pytest.mark.parametrize("deltas", [0, 1])
def test_who_comes_back_in_mid_stream_goes_on_where_it_was(chat: Chat, deltas: int) -> None:
    session = chat.new_session("stub:tokens=60,delay=0.02,tag=t")
    with chat.watch(session["id"], deltas=deltas) as before:
        before.greeting()
        before.say("send_message", content="Hello")
        before.until(_is_text)

    with chat.watch(session["id"], deltas=deltas, since=before.offset - 1) as after:
        after.offset = before.offset - 1
        greeting = after.greeting()
        after.until_action("completed")
        after.until_job("succeeded")

    assert greeting["recovered"]
    order = [frame["type"] for frame in after.frames if not _is_text(frame)]
    assert order == ["connection_established", "job_update", "message_update", "job_update"]
    texts = [number for number, frame in enumerate(after.frames) if _is_text(frame)]
    assert after.frames[texts[0]]["action"] == "streaming"
    assert texts[0] == 2
    assert list(after.texts.values()) == [expected_text("t", 60)]


def test_state_fetched_before_and_events_give_the_state_fetched_after(chat: Chat) -> None:
    """For every action there is."""
    session = chat.new_session("stub:tokens=30,delay=0.01")
    at, page = f"/sessions/{session['id']}", chat.page(session["id"])
    with chat.watch(session["id"], since=page["offset"]) as viewer:
        viewer.greeting()
        for text in ("one", "two"):
            viewer.say("send_message", content=text)
        edited = viewer.until_action("completed")["message"]
        chat.request("PUT", f"/messages/{edited['id']}", json={"content": "edited", "metadata": {"by": "hand"}})
        viewer.until_action("completed")
        chat.request("POST", f"/messages/{edited['id']}/regenerate", json={}, headers=ASYNC, status=202)
        viewer.until_action("completed")
        chat.ask(session["id"], "stub:fail=400")
        viewer.until_job("failed")
        stopped = chat.ask(session["id"], "stub:tokens=900,delay=0.02")
        chat.send(session["id"], "meanwhile", parent_message_id=edited["id"])
        viewer.until_action("streaming")
        chat.ask(session["id"], "stub:tokens=3", on_busy="interrupt")
        viewer.until_action("completed")
        chat.request("PUT", at, json={"title": "New", "settings": {"temperature": 1}})
        chat.request("POST", f"{at}/participants", json={"user_id": "bob", "role": "viewer"}, status=201)
        chat.request("DELETE", f"{at}/participants/bob", status=204)
        last = chat.page(session["id"])["offset"]
        viewer.until(lambda frame: viewer.offset >= last)

    state = {message["id"]: message for message in page["messages"]} | viewer.messages
    jobs = {frame["job"]["id"]: frame["job"] for frame in viewer.frames if frame["type"] == "job_update"}
    sessions = [frame["session"] for frame in viewer.frames if frame["type"] == "session_update"]
    assert sorted(state.values(), key=lambda message: message["seq"]) == chat.messages(session["id"])
    assert jobs == {id: chat.job(id) for id in jobs}
    assert {job["status"] for job in jobs.values()} == {"succeeded", "failed", "cancelled"}
    assert jobs[stopped["job_id"]]["status"] == "cancelled"
    assert sessions[-1] == chat.request("GET", at)


def test_places_in_a_text_are_counted_in_code_points(chat: Chat) -> None:
    session = chat.new_session("stub:tokens=30,delay=0.02,unicode,tag=t")
    with chat.watch(session["id"], deltas=1) as viewer:
        viewer.greeting()
        viewer.say("send_message", content="\N{GRINNING FACE} \U00020000")
        reply = viewer.until_action("completed")["message"]

    assert "\N{GRINNING FACE}" in reply["content"]
    assert "".join(viewer.pieces(reply["id"])) == reply["content"]
    starts = [frame["start"] for frame in viewer.frames if frame["type"] == "message_delta"]
    lengths = [len(piece) for piece in viewer.pieces(reply["id"])]
    assert [b - a for a, b in pairwise(starts)] == lengths[:-1]


def test_plain_viewers_get_at_most_four_snapshots_a_second(chat: Chat) -> None:
    session = chat.new_session("stub:tokens=200,delay=0.01,tag=t")
    with chat.watch(session["id"]) as viewer:
        viewer.greeting()
        viewer.say("send_message", content="Hello")
        seconds = viewer.until_action("completed")["message"]["response_time_ms"] / 1000

    shown = sum(frame.get("action") == "streaming" for frame in viewer.frames)
    assert 3 <= shown <= seconds * 4 + 2


def test_long_replies_are_shown_at_256_kilobytes_a_second(chat: Chat) -> None:
    session = chat.new_session("stub:tokens=14000,burst=100,delay=0.0002,tag=longer")
    with chat.watch(session["id"]) as viewer:
        viewer.greeting()
        viewer.say("send_message", content="Hello")
        final = viewer.until_action("completed")["message"]

    shown = sum(len(f["message"]["content"]) for f in viewer.frames if f.get("action") == "streaming")
    # What a snapshot allows is known only once it was sent: one of them may be over.
    assert shown <= 256 * 1024 * final["response_time_ms"] / 1000 + len(final["content"])
    assert len(final["content"]) > 150_000
