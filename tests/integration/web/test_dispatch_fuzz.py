"""Ten thousand frames of every kind of nonsense: each is answered, and the process stays as it was."""

from __future__ import annotations

import json
import random
import string
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from websockets.sync.client import ClientConnection

from chat_backend.domain.enums import ParticipantRole
from chat_backend.domain.user import User
from chat_backend.protocol.envelope import Ephemeral, pack
from chat_backend.protocol.events import typing_indicator
from chat_backend.realtime.channels import session_channel
from chat_backend.web.websocket.connection import Connection
from chat_backend.web.websocket.dispatch import Dispatch
from tests.conftest import Launch
from tests.support.chat import Chat
from tests.support.rest import Rest
from tests.support.session_world import PaperOutbox, frames
from tests.support.stack import dial, socket_url
from tests.support.valkey import Valkey

KINDS = ["send_message", "typing_start", "typing_stop", "cancel", "ping", "nothing", "", None, 1, [], {}]
LAST = "the last of many"
FIELDS = ["content", "request_id", "metadata", "process", "on_busy", "parent_message_id", "job_id", "type", "x"]


def _value(chance: random.Random, depth: int = 0) -> Any:
    odd = [None, True, False, 0, -1, 10**30, 1.5, 1e308, "", "a", "\0", "\ud800", "é" * 50, "\N{GRINNING FACE}"]
    odd += [
        "queue",
        "reject",
        "interrupt",
        "x" * 40_000,
        "019a0000-0000-7000-8000-000000000000",
        "a b",
        "'; DROP TABLE x",
    ]
    if depth < 3 and chance.random() < 0.2:
        return [_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    if depth < 3 and chance.random() < 0.2:
        return {chance.choice(string.printable): _value(chance, depth + 1) for _ in range(chance.randrange(4))}
    return chance.choice(odd)


def _frame(chance: random.Random) -> str | bytes:
    body = {name: _value(chance) for name in chance.sample(FIELDS, chance.randrange(5))}
    if chance.random() < 0.9:
        body["type"] = chance.choice(KINDS)
    text = json.dumps(body)
    way = chance.random()
    if way < 0.1:
        return chance.randbytes(chance.randrange(200))
    if way < 0.2:
        cut = chance.randrange(len(text))
        return text[:cut] + chance.choice(["", "\x00", "}", "[" * 5000, "\\ud800", "NaN"]) + text[cut + 1 :]
    if way < 0.25:
        return chance.choice(["null", "[]", "[" * 60_000, "0", '"x"', "", "\ufeff{}", '{"type":"ping","type":"ping"}'])
    return text


@pytest.mark.timeout(240)
def test_whatever_is_said_the_answer_is_a_frame(sqlite_app: Flask, sqlite_rest: Rest) -> None:
    chance = random.Random(7)
    session_id = sqlite_rest.new_session()
    outbox = PaperOutbox()
    connection = Connection(UUID(session_id), User("ann"), outbox, role=ParticipantRole.OWNER, outbox_bytes=10**9)
    dispatch = Dispatch(sqlite_app.extensions["chat_hub"], connection, sqlite_app.extensions["rate_limits"])

    for _ in range(10_000):
        dispatch(_frame(chance))
    said = frames(outbox)
    dispatch('{"type": "ping"}')

    assert len(said) > 8_000
    assert {frame["type"] for frame in said} <= {"error", "pong", "message_update"}
    assert not [frame for frame in said if frame.get("error_code") == "INTERNAL_ERROR"]
    assert frames(outbox)[-1]["type"] == "pong"


@pytest.mark.timeout(400)
def test_ten_thousand_frames_of_nonsense_leave_a_web_process_healthy(launch: Launch) -> None:
    seed = 8
    print(f"seed {seed}")
    chance, answers = random.Random(seed), 0
    web = launch("web", FRAMES_PER_SECOND="10000")
    with Chat(web.url) as chat:
        session = chat.new_session()
        for _ in range(10):
            with dial(socket_url(web, session["id"], user_id=chat.user)) as socket:
                for _ in range(10):
                    answers += _answered(socket, [_wire(chance) for _ in range(100)])
        health = chat.http.get("/health")
        with chat.watch(session["id"]) as viewer:
            viewer.greeting()
            viewer.say("send_message", content="still here", process=False)
            seen = viewer.until(lambda frame: frame.get("message", {}).get("content") == "still here")

    assert answers > 8_000
    assert health.status_code == 200
    assert seen["action"] == "new_message"
    assert "Traceback" not in web.log


def _answered(socket: ClientConnection, frames: list[str | bytes]) -> int:
    """Say it all, and return how much was said until the last frame, one that can't be carried out, was answered."""
    for frame in frames:
        socket.send(frame)
    socket.send(json.dumps({"type": "cancel", "job_id": "none", "request_id": LAST}))
    said: list[dict[str, Any]] = []
    while not said or said[-1].get("request_id") != LAST:
        said.append(json.loads(socket.recv(timeout=60)))
    assert not [frame for frame in said if frame.get("error_code") == "INTERNAL_ERROR"]
    return len(said)


def _wire(chance: random.Random) -> str | bytes:
    """A frame that can be sent at all: text without lone surrogates."""
    frame = _frame(chance)
    return frame.encode("utf-8", "replace").decode() if isinstance(frame, str) else frame


def test_garbage_in_redis_is_ignored_and_the_next_event_arrives(
    launch: Launch, environment: dict[str, str], valkey: Valkey
) -> None:
    chance = random.Random(9)
    web = launch("web", CATCH_UP_SECONDS="2.4")
    with Chat(web.url) as chat:
        session = chat.new_session()
        with chat.watch(session["id"], deltas=1) as viewer, valkey.client() as redis:
            viewer.greeting()
            for kind in (b"d", b"e", b"f", b"x?", b"q", b""):
                for _ in range(30):
                    redis.publish(session_channel(session["id"]), kind + chance.randbytes(chance.randrange(100)))
                redis.publish(session_channel(session["id"]), kind + b"\n" + b"[" * 100_000)
                redis.publish(session_channel(session["id"]), kind + b'{"o": 1, "u": null, "r": null}\n{"offset": 1}')
            message = chat.send(session["id"], "after all")
            # What is not kept is not found in the database either: it comes this way or never.
            redis.publish(session_channel(session["id"]), pack(Ephemeral(typing_indicator("someone", True))))
            seen = viewer.until_action("new_message")
            viewer.until_type("typing_indicator")

    assert seen["message"]["id"] == message["id"]
    assert "Traceback" not in web.log
