"""Who is here and who types, over two web processes that share one Redis."""

from __future__ import annotations

import pytest

from tests.support.chat import Chat, Frame, Viewer
from tests.support.processes import Process
from tests.support.stack import Stack
from tests.support.waiting import wait_until

# Typing that is ended ends before this.
TYPING_SECONDS = 4.0


@pytest.fixture(scope="module")
def changes() -> dict[str, str]:
    return {"PRESENCE_SECONDS": "3", "TYPING_SECONDS": str(TYPING_SECONDS)}


@pytest.fixture(scope="module")
def other_web(postgresql_stack: Stack) -> Process:
    return postgresql_stack.launch("web")


@pytest.fixture
def ann(postgresql_stack: Stack) -> Chat:
    return postgresql_stack.chat()


@pytest.fixture
def bob(postgresql_stack: Stack, other_web: Process) -> Chat:
    """Someone whose connections are in the other process."""
    return postgresql_stack.chat(web=other_web)


@pytest.fixture
def session(ann: Chat, bob: Chat) -> Frame:
    session = ann.new_session("stub:tokens=3")
    _admit(ann, session, bob.user)
    return session


def _admit(ann: Chat, session: Frame, user: str, role: str = "member") -> None:
    body = {"user_id": user, "role": role}
    ann.request("POST", f"/sessions/{session['id']}/participants", json=body, status=201)


def _seen(viewer: Viewer, kind: str) -> list[tuple[str, bool | None]]:
    return [(f["user_id"], f.get("is_typing")) for f in viewer.frames if f["type"] == kind]


def test_only_a_first_and_a_last_connection_are_told(ann: Chat, bob: Chat, session: Frame) -> None:
    with ann.watch(session["id"]) as viewer:
        viewer.greeting()
        with bob.watch(session["id"]) as first:
            greeting = first.greeting()
            joined = viewer.until_type("user_joined")
            with bob.watch(session["id"]) as second, ann.watch(session["id"]) as mine:
                second.greeting()
                mine.greeting()
        left = viewer.until_type("user_left")

    both = sorted([ann.user, bob.user])
    assert (greeting["participants_online"], joined["participants_online"]) == (both, both)
    assert (joined["user_id"], left["user_id"]) == (bob.user, bob.user)
    assert left["participants_online"] == [ann.user]
    assert len(_seen(viewer, "user_joined")) == len(_seen(viewer, "user_left")) == 1
    assert not _seen(first, "user_joined")


def test_a_reply_asked_for_in_one_process_is_seen_in_the_other(ann: Chat, bob: Chat, session: Frame) -> None:
    with ann.watch(session["id"]) as here, bob.watch(session["id"], deltas=1) as there:
        here.greeting()
        there.greeting()
        here.say("send_message", content="Hello")
        stored = here.until_action("completed")
        seen = there.until_action("completed")

    assert seen["message"] == stored["message"]


def test_viewers_of_a_killed_process_are_gone_once_it_is_missed(
    postgresql_stack: Stack, ann: Chat, session: Frame
) -> None:
    doomed = postgresql_stack.launch("web")
    bob, cid = postgresql_stack.chat(web=doomed), postgresql_stack.chat(web=doomed)
    for chat in (bob, cid):
        _admit(ann, session, chat.user)
    with ann.watch(session["id"]) as viewer, bob.watch(session["id"]) as first, cid.watch(session["id"]) as second:
        viewer.greeting()
        first.greeting()
        second.greeting()

        doomed.kill()
        # Cid has come back by the time that his old connection is missed: he has not left.
        with postgresql_stack.chat(cid.user).watch(session["id"]) as again:
            again.greeting()
            left = viewer.until_type("user_left")
            with ann.watch(session["id"]) as late:
                online = late.greeting()["participants_online"]

    assert (left["user_id"], left["participants_online"]) == (bob.user, sorted([ann.user, cid.user]))
    assert online == sorted([ann.user, cid.user])
    assert _seen(viewer, "user_left") == [(bob.user, None)]


def test_typing_is_shown_to_all_but_the_typist_and_ends_by_itself(ann: Chat, bob: Chat, session: Frame) -> None:
    with ann.watch(session["id"]) as viewer, bob.watch(session["id"]) as typist, bob.watch(session["id"]) as tab:
        for each in (viewer, typist, tab):
            each.greeting()
        typist.say("typing_start")
        viewer.until_type("typing_indicator")
        viewer.until_type("typing_indicator", seconds=10)
        ann.send(session["id"], "later")
        for each in (typist, tab):
            each.until_action("new_message")

    assert _seen(viewer, "typing_indicator") == [(bob.user, True), (bob.user, False)]
    assert not _seen(typist, "typing_indicator")
    assert not _seen(tab, "typing_indicator")


def test_typing_ends_when_the_typist_says_so_sends_or_leaves(ann: Chat, bob: Chat, session: Frame) -> None:
    with ann.watch(session["id"]) as viewer:
        viewer.greeting()
        with bob.watch(session["id"]) as typist:
            typist.greeting()
            for ending in ("typing_stop", "send_message"):
                typist.say("typing_start")
                viewer.until_type("typing_indicator")
                typist.say(ending, **({"content": "Hello", "process": False} if ending == "send_message" else {}))
                viewer.until_type("typing_indicator", seconds=0.8 * TYPING_SECONDS)
            typist.say("typing_start")
            viewer.until_type("typing_indicator")
        viewer.until_type("typing_indicator", seconds=0.8 * TYPING_SECONDS)

    assert [typing for _, typing in _seen(viewer, "typing_indicator")] == [True, False] * 3


def test_viewers_may_not_type_write_or_cancel_and_a_new_role_counts_at_once(
    ann: Chat, bob: Chat, session: Frame
) -> None:
    body = {"user_id": bob.user, "role": "viewer"}
    job = ann.ask(session["id"], "stub:tokens=400,delay=0.05")
    with bob.watch(session["id"]) as viewer:
        viewer.greeting()
        ann.request("POST", f"/sessions/{session['id']}/participants", json=body)
        viewer.until_type("session_update")
        # The roles are read again once the event is here: a moment later.
        wait_until(lambda: _refusal(viewer, "typing_start") == "FORBIDDEN", seconds=10, why="the new role counts")
        refusals = [
            _refusal(viewer, "typing_stop"),
            _refusal(viewer, "send_message", content="Hello"),
            _refusal(viewer, "cancel", job_id=job["job_id"]),
        ]
        ann.request("POST", f"/sessions/{session['id']}/participants", json=body | {"role": "member"})
        viewer.until_type("session_update")
        wait_until(lambda: _refusal(viewer, "typing_start") is None, seconds=10, why="the old role counts again")
    ann.cancel(job["job_id"])

    assert refusals == ["FORBIDDEN"] * 3


def _refusal(viewer: Viewer, kind: str, **fields: str) -> str | None:
    """Say something and return the code of its refusal, None where there was none."""
    viewer.say(kind, **fields)
    viewer.say("ping")
    answer = viewer.until(lambda frame: frame["type"] in ("error", "pong"))
    if answer["type"] == "error":
        viewer.until_type("pong")
        return str(answer["error_code"])
    return None
