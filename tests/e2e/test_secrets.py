"""Keys, prompts and replies are where they belong and nowhere else: everything a run wrote is searched for them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import create_engine, inspect, text

from chat_backend.cli.embedded import free_port
from tests.conftest import TIMINGS
from tests.support.chat import Chat
from tests.support.databases import POSTGRESQL, SQLITE, Databases
from tests.support.provider_stub import Stub
from tests.support.stack import Stack, dial, running, socket_url
from tests.support.tokens import token
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

KEYS = {
    "LOCAL_LLM_API_KEY": "canary-key-of-local",
    "OPENROUTER_API_KEY": "canary-key-of-openrouter",
    "OPENAI_API_KEY": "canary-key-of-openai",
}
FLOWER = {"FLOWER_BASIC_AUTH": "operator:canary-key-of-flower"}
JWT_SECRET = "canary-secret-of-more-than-thirty-two-bytes"
DATABASE_PASSWORD = "canary-password-of-the-database"
PROMPT, REPLY = "canary-prompt", "canary-reply."
# The prompt is the script: every fault is met with it in the request, and the stub quotes it in its errors.
SCRIPTS = (
    *("tokens=30,delay=0.02", "fail=400", "fail=403,flagged=violence", "fail=500", "error_event=3,error_code=429"),
    *("cut=3", "garbage", "whole_error", "malformed=2", "html", "hang=stream,after=2", "redirect=http://127.0.0.1:1/"),
)
# What people have written, and what of it is told again to who was away.
CONTENT = {"chat_messages", "session_events"}


@pytest.fixture
def stack(databases: Databases, valkey: Valkey, stub_server: Stub, tmp_path: Path) -> Iterator[Stack]:
    with databases.new(SQLITE, tmp_path) as url:
        environ = {"AUTH_MODE": "dev", "DATABASE_URL": url, "REDIS_URL": valkey.url, "LOG_LEVEL": "DEBUG", **TIMINGS}
        more = {"LLM_MAX_ATTEMPTS": "2", "FLOWER_PORT": str(free_port()), **KEYS, **FLOWER}
        with running(environ, tmp_path, stub_server, worker=False, **more) as made:
            yield made


def test_what_a_run_wrote_holds_no_key_and_nothing_that_was_said(stack: Stack, valkey: Valkey, tmp_path: Path) -> None:
    chat = stack.chat()
    said = asked_of_nobody(chat, valkey)
    flower = stack.launch("flower")
    stack.launch("worker")
    jobs = [said, *talk(chat)]
    told = json.dumps(
        [
            mistakes(stack, chat),
            refused_by_the_database(stack, chat),
            chat.request("GET", "/health"),
            chat.request("GET", "/providers"),
        ]
    )
    ended = [chat.wait_for_job(job_id, seconds=60) for job_id in jobs]

    wait_until(lambda: not live_keys(valkey), why="no text is on its way any more")

    logs = "".join(process.log for process in stack.processes)
    monitored = httpx.get(f"http://127.0.0.1:{flower.environ['FLOWER_PORT']}/api/tasks", auth=auth(), trust_env=False)
    everything = {
        "logs": logs,
        "errors": told,
        "jobs": json.dumps(ended),
        "stats": json.dumps([chat.request("GET", "/stats"), chat.request("GET", "/sessions")]),
        "events": json.dumps([frame for frame in replayed(chat) if frame["type"] != "message_update"]),
        "redis": dump(valkey),
        "flower": monitored.text,
        "tables": json.dumps(rows(stack, but=CONTENT), default=str),
    }
    assert {name for name, found in everything.items() if PROMPT in found or REPLY in found} == set()
    secrets = [*KEYS.values(), FLOWER["FLOWER_BASIC_AUTH"], urlsplit(valkey.url).password or KEYS["OPENAI_API_KEY"]]
    everything["database"] = "".join(path.read_bytes().decode("latin-1") for path in tmp_path.glob("chat.db*"))
    assert {name for name, found in everything.items() if any(secret in found for secret in secrets)} == set()
    # The search itself is worth something: what is looked for was there to be found.
    assert jobs[0] in logs
    assert "DatabaseFault" in logs
    assert PROMPT in everything["database"]
    assert {"succeeded", "failed", "cancelled"} == {job["status"] for job in ended}


@pytest.fixture(params=[SQLITE, POSTGRESQL])
def guarded(
    request: pytest.FixtureRequest, databases: Databases, valkey: Valkey, stub_server: Stub, tmp_path: Path
) -> Iterator[Stack]:
    """A deployment in which who asks brings a token, and the servers behind it want passwords."""
    with databases.new(request.param, tmp_path) as url:
        # Over its socket file PostgreSQL believes whoever comes: what matters is that a password is given.
        address = url.replace("postgres@/", f"postgres:{DATABASE_PASSWORD}@/")
        environ = {"JWT_SECRET": JWT_SECRET, "HOST": "127.0.0.1", "LOG_LEVEL": "DEBUG", **TIMINGS}
        environ |= {"DATABASE_URL": address, "REDIS_URL": valkey.url}
        with running(environ, tmp_path, stub_server) as made:
            yield made


def test_where_users_are_told_apart_no_token_ticket_or_password_is_written_anywhere(
    guarded: Stack, valkey: Valkey
) -> None:
    good = token("ann", key=JWT_SECRET)
    wrong = token("ann", key=JWT_SECRET[::-1])
    chat = guarded.chat("ann")
    refused = [chat.http.get("/sessions", headers={"Authorization": f"Bearer {wrong}"}).text]
    chat.http.headers["Authorization"] = f"Bearer {good}"
    session_id = chat.new_session("stub:tokens=5")["id"]
    ticket = chat.request("POST", f"/sessions/{session_id}/ws-ticket", status=201)["ticket"]
    for _ in range(2):
        with dial(socket_url(guarded.web, session_id, ticket=ticket)) as socket:
            refused.append(str(socket.recv(timeout=10)))
    chat.wait_for_job(chat.send(session_id, "Hello", process=True)["job"]["id"])
    in_redis = dump(valkey)
    valkey.kill()
    health = wait_until(lambda: without_redis(chat), why="it is noticed that Redis is away")
    chat.send(session_id, "All the same")

    everything = {
        "logs": "".join(process.log for process in guarded.processes),
        "errors": json.dumps(refused),
        "health": json.dumps(health),
        "redis": in_redis,
        "tables": json.dumps(rows(guarded, but=set()), default=str),
    }
    passwords = [DATABASE_PASSWORD, *filter(None, [urlsplit(valkey.url).password])]
    secrets = [JWT_SECRET, good, good.rpartition(".")[2], wrong, ticket, *passwords]
    assert {name for name, found in everything.items() if any(secret in found for secret in secrets)} == set()
    # The search itself is worth something: both were there to be written down.
    assert ["UNAUTHENTICATED" in answer for answer in refused] == [True, False, True]
    assert session_id in everything["logs"]


def without_redis(chat: Chat) -> dict[str, Any] | None:
    health: dict[str, Any] = chat.request("GET", "/health")
    return health if health["checks"]["redis"]["status"] != "healthy" else None


def asked_of_nobody(chat: Chat, valkey: Valkey) -> str:
    """Ask while there is no worker, and look at what the queue is told."""
    session = chat.new_session()
    job_id: str = chat.ask(session["id"], f"{PROMPT} stub:tag={REPLY[:-1]}")["job_id"]
    with valkey.client() as client:
        queue = wait_until(lambda: next(iter(client.scan_iter("*", _type="list")), None), why="the wake-up is sent")
        wake_up = json.loads(client.lrange(queue, 0, -1)[0])
    arguments = json.loads(base64.b64decode(wake_up["body"]))
    assert arguments[:2] == [[job_id], {}]
    assert PROMPT not in json.dumps([wake_up, arguments])
    return job_id


def talk(chat: Chat) -> list[str]:
    """Ask for a reply of each kind, and stop one."""
    jobs = []
    for number, script in enumerate(SCRIPTS):
        session = chat.new_session(f"stub:n={number}")
        with chat.watch(session["id"], deltas=1) as viewer:
            viewer.greeting()
            asked = chat.ask(session["id"], f"{PROMPT} stub:tag={REPLY[:-1]},{script}")
            if script.startswith("tokens"):
                viewer.until_type("message_delta")
                chat.cancel(asked["job_id"])
            viewer.until(lambda frame: frame.get("action") in ("completed", "failed", "cancelled"), seconds=60)
        jobs.append(asked["job_id"])
    return jobs


def mistakes(stack: Stack, chat: Chat) -> list[Any]:
    """Make mistakes with what is secret in them, over REST and on the socket; return what is said of them."""
    session_id = chat.new_session()["id"]
    bodies: list[dict[str, Any]] = [
        {"content": PROMPT, "role": "assistant"},
        {"content": PROMPT, "metadata": PROMPT},
        {"content": [PROMPT]},
        {"content": PROMPT, "parent_message_id": PROMPT},
        {"content": PROMPT * 10_000},
    ]
    answers = [chat.request("POST", f"/sessions/{session_id}/messages", json=body, status=422) for body in bodies]
    answers.append(chat.request("POST", f"/sessions/{session_id}/messages", content=PROMPT, status=415))
    with dial(socket_url(stack.web, session_id, user_id=chat.user)) as socket:
        for frame in (PROMPT, json.dumps({"type": "send_message", "content": {"a": PROMPT}})):
            socket.send(frame)
            answers.append(json.loads(next(said for said in socket if "error_code" in said)))
    return answers


def refused_by_the_database(stack: Stack, chat: Chat) -> Any:
    """Have the database refuse a row, as it would where we had made a mistake; return what is said of it."""
    session_id, refused = chat.new_session()["id"], f"{PROMPT} for nobody"
    engine = create_engine(stack.environ["DATABASE_URL"])
    with engine.begin() as connection:
        when = f"BEFORE INSERT ON chat_messages WHEN NEW.content = '{refused}'"
        connection.execute(text(f"CREATE TRIGGER refused {when} BEGIN SELECT RAISE(ABORT, 'refused'); END"))
    engine.dispose()
    return chat.request("POST", f"/sessions/{session_id}/messages", json={"content": refused}, status=500)


def replayed(chat: Chat) -> list[dict[str, Any]]:
    """Return every durable event of every session, as who was away gets it."""
    frames = []
    for session in chat.request("GET", "/sessions", params={"page_size": 200})["sessions"]:
        with chat.watch(session["id"], since=0) as viewer:
            offset = viewer.greeting()["offset"]
            while viewer.offset < offset:
                frames.append(viewer.next())
    return frames


def live_keys(valkey: Valkey) -> list[bytes]:
    with valkey.client() as client:
        return list(client.scan_iter("chat:live:*"))


def dump(valkey: Valkey) -> str:
    """Return every key of Redis with what is in it."""
    with valkey.client() as client:
        read: dict[bytes, Callable[[bytes], object]] = {
            b"string": client.get,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"set": client.smembers,
            b"zset": lambda key: client.zrange(key, 0, -1),
            b"hash": client.hgetall,
            b"none": lambda key: "gone meanwhile",
        }
        return "".join(f"{key!r} {read[client.type(key)](key)!r}" for key in client.scan_iter("*"))


def rows(stack: Stack, *, but: set[str]) -> dict[str, list[Any]]:
    engine = create_engine(stack.environ["DATABASE_URL"])
    with engine.connect() as connection:
        tables = set(inspect(engine).get_table_names()) - but
        found = {name: [list(row) for row in connection.execute(text(f"SELECT * FROM {name}"))] for name in tables}
    engine.dispose()
    return found


def auth() -> tuple[str, str]:
    user, _, password = FLOWER["FLOWER_BASIC_AUTH"].partition(":")
    return user, password
