"""A web process that is terminated says goodbye on every socket and is gone."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack

from tests.support.chat import Chat, Viewer
from tests.support.stack import Stack
from tests.support.waiting import wait_until


def test_every_socket_is_closed_with_1012_and_the_process_is_gone(stack: Stack) -> None:
    web = stack.launch("web")
    chats = [stack.chat(web=web) for _ in range(10)]
    with ExitStack() as opened:
        viewers: list[Viewer] = []
        for chat in chats:
            session = chat.new_session()
            viewers += [opened.enter_context(chat.watch(session["id"])) for _ in range(5)]
        for viewer in viewers:
            viewer.greeting()
        stream = opened.enter_context(chats[0].http.stream("GET", f"/sessions/{chats[0].new_session()['id']}/events"))

        began = time.monotonic()
        web.send(signal.SIGTERM)
        codes = {viewer.until_closed(seconds=5) for viewer in viewers}
        told = time.monotonic() - began
        lines = list(stream.iter_lines())
        for chat in chats:
            chat.http.close()
        status = web.wait(10)
        gone = time.monotonic() - began

    assert codes == {1012}
    assert {viewer.frames[-1]["error_code"] for viewer in viewers} == {"SERVER_RESTARTING"}
    assert any("SERVER_RESTARTING" in line for line in lines)
    assert told < 4
    assert (status, gone < 6) == (0, True)


def test_a_viewer_of_a_process_that_ends_goes_on_at_another(stack: Stack) -> None:
    web = stack.launch("web")
    chat = stack.chat(web=web)
    elsewhere = stack.chat(chat.user)
    session = chat.new_session("stub:tokens=60,delay=0.03")
    with chat.watch(session["id"], deltas=1) as before:
        before.greeting()
        before.say("send_message", content="Hello")
        before.until_type("message_delta")
        web.send(signal.SIGTERM)
        assert before.until_closed(seconds=5) == 1012

    with elsewhere.watch(session["id"], deltas=1, since=before.offset) as after:
        after.offset = before.offset
        assert after.greeting()["recovered"]
        after.until_action("completed")
        after.until_job("succeeded")

    stored = elsewhere.messages(session["id"])[1]
    assert after.texts == {stored["id"]: stored["content"]}
    assert after.attempts == {stored["id"]: 1}


def test_a_quiet_stream_whose_client_is_gone_gives_its_place_back(stack: Stack) -> None:
    chat = stack.chat()
    session = chat.new_session()
    before = _open_connections(chat)
    with chat.http.stream("GET", f"/sessions/{session['id']}/events") as stream:
        next(stream.iter_lines())
        wait_until(lambda: _open_connections(chat) == before + 1, seconds=5, why="it counts")

    # Long before the next comment, which would find out.
    wait_until(lambda: _open_connections(chat) == before, seconds=5, why="its place is free")


def _open_connections(chat: Chat) -> int:
    count: int = chat.request("GET", "/health")["active_connections"]
    return count
