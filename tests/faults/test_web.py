"""Web processes that die or restart under their viewers, and clients that say everything fifty times."""

from __future__ import annotations

import json
import signal
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from websockets.exceptions import ConnectionClosed

from chat_backend.domain.enums import JobStatus
from chat_backend.models import ChatSession, LlmJob, Message, SessionEvent
from chat_backend.models.base import now
from tests.support.chat import API, Chat
from tests.support.deployment import Deployment
from tests.support.follower import Follower
from tests.support.processes import start
from tests.support.provider_stub import expected_text
from tests.support.waiting import wait_until

TIMES = 50
DROPPED = 200


def restart_web(running: Deployment, how: signal.Signals) -> int:
    """End the web process and start another at the same address; return the first one's exit status."""
    old = running.webs.pop(0)
    port = str(old.port)
    if how == signal.SIGKILL:
        old.kill()
    else:
        old.send(how)
    status = old.wait()
    running.webs.insert(0, start("web", running.environment | {"PORT": port}, running.folder))
    return status


def test_viewers_of_a_web_process_that_restarts_resume_where_they_were(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=150,delay=0.03,tag=restart")
    viewers = [running.follow(chat, session["id"], deltas=n) for n in (0, 1, 1)]
    chat.ask(session["id"], "Go on.")
    for viewer in viewers:
        viewer.until_text(20)

    status = restart_web(running, signal.SIGTERM)

    goodbyes = [closes_with(viewer) for viewer in viewers]
    for viewer in viewers:
        assert viewer.until_action("completed")["message"]["content"] == expected_text("restart", 150)
    assert (status, goodbyes) == (0, [1012] * 3)
    assert [(v.reconnects, v.recovered, v.refetched) for v in viewers] == [(1, 1, 0)] * 3


def closes_with(follower: Follower) -> int | None:
    """Read what has come to the end of the connection, and return its close code."""
    try:
        follower.viewer.until(lambda frame: False, seconds=10)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None
    return None


def test_viewers_of_a_web_process_that_is_killed_resume_too(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=150,delay=0.03,tag=killed")
    viewers = [running.follow(chat, session["id"], deltas=n) for n in (0, 1, 1)]
    job = chat.ask(session["id"], "Go on.")
    for viewer in viewers:
        viewer.until_text(20)

    restart_web(running, signal.SIGKILL)

    for viewer in viewers:
        assert viewer.until_action("completed")["message"]["content"] == expected_text("killed", 150)
        assert (viewer.reconnects, viewer.recovered) == (1, 1)
    assert len(running.job(job["job_id"]).attempts) == 1


def test_two_web_processes_show_the_same_and_a_viewer_may_move(running: Deployment) -> None:
    running.ensure(webs=2)
    here, there = running.chat(web=0), running.chat(web=1)
    session = here.new_session("stub:tokens=100,delay=0.03,tag=two")
    one, other = running.follow(here, session["id"], deltas=1), running.follow(there, session["id"], deltas=1)
    job = there.ask(session["id"], "Go on.")
    one.until_text(20)

    one.chat = there
    one.cut()
    for viewer in (one, other):
        viewer.until_job("succeeded")

    assert one.reconnects == 1
    assert one.texts[job["assistant_message_id"]] == other.texts[job["assistant_message_id"]]
    assert [f["offset"] for f in other.viewer.frames if "offset" in f][1:] == list(range(1, one.offset + 1))


def test_fifty_equal_keys_at_once_over_rest_make_one_message_and_one_job(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=5,tag=fifty")
    together = Barrier(TIMES)

    def send(_: int) -> dict[str, Any]:
        together.wait()
        with Chat(running.web.url) as mine:
            body = {"content": "Once.", "process": True}
            answer = mine.http.post(
                f"/sessions/{session['id']}/messages", json=body, headers={"Idempotency-Key": "the-key"}
            )
        assert answer.status_code == 201, answer.text
        sent: dict[str, Any] = answer.json()
        return sent

    with ThreadPoolExecutor(TIMES) as senders:
        answers = list(senders.map(send, range(TIMES)))

    assert len({(answer["id"], answer["job"]["id"]) for answer in answers}) == 1
    running.until_job(answers[0]["job"]["id"], JobStatus.SUCCEEDED)
    assert (stored(running, Message), stored(running, LlmJob), len(running.calls("fifty"))) == (2, 1, 1)


def stored(running: Deployment, table: type) -> int:
    with running.backend.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_fifty_equal_frames_over_two_web_processes_make_one_message_and_one_job(running: Deployment) -> None:
    running.ensure(webs=2)
    chats = [running.chat(web=0), running.chat(web=1)]
    session = chats[0].new_session("stub:tokens=5,tag=frames")
    viewers = [running.follow(chat, session["id"]) for chat in chats for _ in range(5)]
    frame = json.dumps({"type": "send_message", "content": "Once.", "request_id": "the-key"})

    with ThreadPoolExecutor(len(viewers)) as senders:
        list(senders.map(lambda viewer: [viewer.viewer.socket.send(frame) for _ in range(5)], viewers))

    for viewer in viewers:
        viewer.until_job("succeeded")
    assert (stored(running, Message), stored(running, LlmJob), len(running.calls("frames"))) == (2, 1, 1)


def test_a_key_repeated_after_a_crash_gives_what_was_made_before(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=5,tag=crash")
    key = {"Idempotency-Key": "the-key"}
    body = {"content": "Once.", "process": True}
    path = f"/sessions/{session['id']}/messages"
    first = chat.request("POST", path, json=body, headers=key, status=201)

    restart_web(running, signal.SIGKILL)
    repeated = chat.http.post(path, json=body, headers=key)

    assert (repeated.json()["id"], repeated.headers["Idempotency-Replayed"]) == (first["id"], "true")
    running.until_job(first["job"]["id"], JobStatus.SUCCEEDED)
    assert stored(running, Message) == 2


MANY_EVENTS = 10_500


def test_who_comes_back_after_very_much_gets_all_of_it_and_after_too_long_is_told_so(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session()
    write_log(running, UUID(session["id"]), MANY_EVENTS)

    with chat.watch(session["id"], since=0) as viewer:
        recovered = viewer.greeting()["recovered"]
        viewer.until(lambda frame: frame["offset"] == MANY_EVENTS, seconds=60)
    with running.backend.unit_of_work() as uow:
        uow.session.execute(delete(SessionEvent).where(SessionEvent.offset <= 100))
    with chat.watch(session["id"], since=99) as viewer:
        too_late = viewer.greeting()

    assert recovered
    assert (too_late["recovered"], too_late["offset"]) == (False, MANY_EVENTS)


def write_log(running: Deployment, session_id: UUID, events: int) -> None:
    """Give a chat session a log of so many events."""
    row = {"session_id": session_id, "type": "session_update", "created_at": now()}
    with running.backend.unit_of_work() as uow:
        uow.session.execute(insert(SessionEvent), [row | {"offset": number} for number in range(1, events + 1)])
        uow.session.execute(update(ChatSession).where(ChatSession.id == session_id).values(last_offset=events))


def test_no_word_of_one_user_is_ever_sent_to_another(running: Deployment) -> None:
    users = [f"user-{number}" for number in range(4)]
    chats = {user: running.chat(user) for user in users}
    canaries = {user: f"canary{number}bird" for number, user in enumerate(users)}
    sessions = {
        user: chats[user].new_session(f"stub:tokens=40,delay=0.02,tag={canaries[user]}", title=canaries[user])
        for user in users
    }
    viewers = {user: running.follow(chats[user], sessions[user]["id"], deltas=n % 2) for n, user in enumerate(users)}

    for user in users:
        viewers[user].say("send_message", content=canaries[user], metadata={"mine": canaries[user]})
    running.valkey.flush()
    heard = {user: [answers_to_nosiness(chats[user], list(sessions.values()))] for user in users}
    for user in users:
        viewers[user].until_job("succeeded")
        heard[user] += [json.dumps(viewers[user].viewer.frames), answers_to_nosiness(chats[user], [sessions[user]])]

    for user in users:
        mine, others = canaries[user], set(canaries.values()) - {canaries[user]}
        assert all(mine in text for text in heard[user])
        assert not [word for word in others if word in "".join(heard[user])]


def answers_to_nosiness(chat: Chat, sessions: list[dict[str, Any]]) -> str:
    """Ask for everything there is, of these sessions too, and return every byte of the answers."""
    paths = ["/sessions", "/stats", "/health"]
    for session in sessions:
        below = f"/sessions/{session['id']}"
        paths += [below, f"{below}/messages", f"{below}/participants"]
    answers = [chat.http.get(path) for path in paths]
    return "".join(f"{answer.headers} {answer.text}" for answer in answers)


def test_many_sockets_dropped_at_once_give_all_their_places_back(running: Deployment) -> None:
    chats = [running.chat(f"user-{number}") for number in range(DROPPED // 10)]
    sessions = [(chat, chat.new_session()["id"]) for chat in chats]
    sockets = [open_socket(chat, session_id) for chat, session_id in sessions for _ in range(10)]
    wait_until(lambda: connections(chats[0]) == DROPPED, why="all are there")

    for sock in sockets:
        # Closed with a reset, as by a router that restarts.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    wait_until(lambda: connections(chats[0]) == 0, seconds=5, why="all places are free")
    session = chats[0].new_session("stub:tokens=3,tag=dropped")
    viewer = running.follow(chats[0], session["id"])
    chats[0].ask(session["id"], "Go on.")
    viewer.until_job("succeeded")


def open_socket(chat: Chat, session_id: str) -> socket.socket:
    """Open a WebSocket of which nobody reads more than how it begins."""
    sock = socket.create_connection(("127.0.0.1", int(chat.url.rpartition(":")[2])), timeout=20)
    sock.sendall(
        f"GET {API}/sessions/{session_id}/websocket?user_id={chat.user} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    begun = b""
    while b'"type":"connection_established"' not in begun:
        more = sock.recv(4096)
        assert more, begun
        begun += more
    return sock


def connections(chat: Chat) -> int:
    """Count the open connections of the deployment."""
    count: int = chat.request("GET", "/health")["active_connections"]
    return count
