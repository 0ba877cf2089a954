"""What takes longer to measure, at the product alone: idle sockets, fan-out, depth, enqueueing, joining, a flood."""

from __future__ import annotations

import asyncio
import http.client
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import aiohttp
import orjson
import redis
from sqlalchemy import create_engine, insert, text, update
from sqlalchemy.engine import make_url

from bench import flooder
from bench.load import MILLION, Tally, parse_once, percentile, read_chat
from bench.processes import cpu_seconds, resident_bytes
from bench.stub import Course
from bench.targets import API, Chat, Target
from bench.wire import WebSocket
from chat_backend.domain.enums import MessageStatus, ParticipantRole, Role
from chat_backend.models import ChatSession, Message, Participant
from chat_backend.models.base import new_id, now

IDLE_SOCKETS = 5_000
# What a web process over SQLite holds by default.
IDLE_SOCKETS_SQLITE = 500
CONNECTING_AT_ONCE = 50
HELD_SECONDS = 5.0
VIEWERS = 1_000
VIEWERS_SQLITE = 400
VIEWERS_A_USER = 10
ASKED_ONE_BY_ONE = 100
TIMES = 200
SHALLOW = 1_000
ROWS_AT_ONCE = 10_000
JOINED_CHARACTERS = 100_000
JOINS = 30

Rows = list[tuple[str, str, str]]

FLOOD_SECONDS = 12.0
QUIET_REQUEST_SECONDS = 0.05

# What was aimed at, by how the name of a measurement begins.
AIMS = {
    "idle sockets held": "all",
    "connect rate": "at least 300/s",
    "memory of the web process": "at most 60 KB",
    "viewers with the whole reply": "all",
    "delay of a token to a viewer": "p50 at most 100 ms",
    "lost, wrong": "0, 0",
    "newest page": "at most 1.5 times",
    "page in the middle": "at most 1.5 times",
    "the same, of 50 deltas": "1 time",
    "reads of the text per join": "1",
    "another user's request, quiet and beside a flood": "p95 at most 2 times",
}


async def measure(targets: list[Target], part: str | None, messages: int) -> str:
    """Measure the parts, or only one, at every product, and return a table."""
    rows: Rows = []
    for name, work in _parts(messages).items():
        for target in targets:
            if part in (None, name) and isinstance(target, Chat) and target.database_url:
                found = await work(target)
                rows += [(what, target.name, value) for what, value in found.items()]
                for what, value in found.items():
                    print(f"{target.name}: {what}: {value}", flush=True)
    order = list(dict.fromkeys(what for what, _, _ in rows))
    rows.sort(key=lambda row: order.index(row[0]))
    lines = [f"| {what} | {_aim(what)} | {target} | {value} |" for what, target, value in rows]
    return "\n".join(["| what | aim | target | measured |", "|---|---|---|---|", *lines])


def _aim(what: str) -> str:
    return next((aim for beginning, aim in AIMS.items() if what.startswith(beginning)), "")


def _parts(messages: int) -> dict[str, Callable[[Chat], Awaitable[dict[str, str]]]]:
    return {
        "idle": idle,
        "fan-out": fan_out,
        "enqueue": enqueue,
        "join": join,
        "flood": flood,
        "depth": lambda target: depth(target, messages),
    }


# Idle sockets


async def idle(target: Chat) -> dict[str, str]:
    """Open as many sockets as a web process holds, each with a chat session of its own, and hold them."""
    count = IDLE_SOCKETS_SQLITE if _is_sqlite(target) else IDLE_SOCKETS
    places = [target.socket_url(id, f"owner-{n}") for n, id in enumerate(_insert_sessions(target, count))]
    web = [target.parts["web"]]
    memory, cpu, began = resident_bytes(web), cpu_seconds(web), time.monotonic()
    sockets = await _open(places)
    seconds, cpu = time.monotonic() - began, cpu_seconds(web) - cpu
    memory = resident_bytes(web) - memory
    await asyncio.sleep(HELD_SECONDS)
    idle_cpu = cpu_seconds(web)
    pong = await _ping(sockets[0])
    await asyncio.sleep(HELD_SECONDS)
    held = sum(not socket.closed.done() for socket in sockets)
    idle_cpu = (cpu_seconds(web) - idle_cpu) / HELD_SECONDS
    await _close(sockets)
    return {
        f"idle sockets held, of {count:,}": f"{held:,}",
        "connect rate": f"{count / seconds:,.0f}/s ({cpu / count * 1000:.1f} ms of web CPU each)",
        "memory of the web process per idle socket": f"{memory / count / 1024:.0f} KB",
        "ping to pong while they are held": f"{pong:.1f} ms",
        "web CPU while they are held": f"{idle_cpu:.1%} of a core",
    }


async def _open(places: list[str], receive: Callable[[int], Any] | None = None) -> list[WebSocket]:
    """Open sockets, some at a time; each counts once its greeting is there."""
    turn = asyncio.Semaphore(CONNECTING_AT_ONCE)

    async def one(number: int, place: str) -> WebSocket:
        greeted = asyncio.get_running_loop().create_future()
        later = receive(number) if receive else lambda payload, at: None

        def first(payload: bytes, at: int) -> None:
            socket.receive = later
            greeted.set_result(None)

        async with turn:
            socket = WebSocket(place, first)
            socket.ended = lambda code: greeted.done() or greeted.set_exception(ConnectionError(f"closed: {code}"))
            await socket.open()
            await greeted
        return socket

    return await asyncio.gather(*(one(number, place) for number, place in enumerate(places)))


async def _close(sockets: list[WebSocket]) -> None:
    for socket in sockets:
        socket.close()
    await asyncio.wait([socket.closed for socket in sockets], timeout=30)
    await asyncio.sleep(3)


async def _ping(socket: WebSocket) -> float:
    pong = asyncio.get_running_loop().create_future()

    def receive(payload: bytes, at: int) -> None:
        if orjson.loads(payload)["type"] == "pong":
            pong.set_result(at)

    socket.receive = receive
    sent = socket.send({"type": "ping"})
    return (await pong - sent) / MILLION


# One session, many viewers


async def fan_out(target: Chat) -> dict[str, str]:
    """One reply at 50 tokens a second, watched by many; every viewer has to see every character."""
    count = VIEWERS_SQLITE if _is_sqlite(target) else VIEWERS
    course = Course()
    session_id = _insert_sessions(target, 1, model=course.model, watched_by=count // VIEWERS_A_USER)[0]
    # Each user watches ten times over: as many as one may in one session.
    places = [target.socket_url(session_id, f"viewer-{n // VIEWERS_A_USER}") for n in range(count)]
    tallies = [Tally(course.tokens) for _ in places]
    began = time.monotonic()
    sockets = await _open(places, lambda number: read_chat(tallies[number], parse=parse_once))
    opened = time.monotonic() - began
    web = [target.parts["web"]]
    cpu = cpu_seconds(web)
    [asker] = await _open([target.socket_url(session_id, "owner-0")])
    asker.send({"type": "send_message", "content": "Count."})
    await asyncio.wait([tally.ended for tally in tallies], timeout=60)
    cpu = cpu_seconds(web) - cpu
    await _close([*sockets, asker])
    delays = [delay for tally in tallies for delay in tally.delays]
    return {
        f"viewers with the whole reply, of {count:,} of one session": f"{sum(tally.whole for tally in tallies):,}",
        "their sockets open within": f"{opened:.1f} s",
        "delay of a token to a viewer, p50 / p99": f"{_ms(delays, 50)} / {_ms(delays, 99)} ms",
        "web CPU per token and viewer": f"{cpu / max(1, len(delays)) * MILLION:.1f} us",
        "lost, wrong": f"{sum(tally.lost for tally in tallies)}, {sum(tally.wrong for tally in tallies)}",
    }


# Enqueueing


async def enqueue(target: Chat) -> dict[str, str]:
    """How long a prompt takes to be stored, and until a worker has claimed it, one after the other."""
    course = Course(tokens=1)
    stored, running, first = [], [], []
    for place in await target.places(ASKED_ONE_BY_ONE, course):
        seen = await _ask_and_note(place)
        stored.append(seen["new_message"] - seen["asked"])
        running.append(seen["running"] - seen["asked"])
        first.append(seen["message_delta"] - seen["asked"])
    plain, asking = await asyncio.to_thread(_post_messages, target)
    return {
        "prompt to its new_message, idle, p50 / p99": f"{_ms(stored, 50)} / {_ms(stored, 99)} ms",
        "prompt to its job claimed (running), idle, p50 / p99": f"{_ms(running, 50)} / {_ms(running, 99)} ms",
        "prompt to its first text, idle, p50 / p99": f"{_ms(first, 50)} / {_ms(first, 99)} ms",
        "POST of a message, without / with a job enqueued, p50": f"{_ms(plain, 50)} / {_ms(asking, 50)} ms",
    }


async def _ask_and_note(place: str) -> dict[str, int]:
    seen: dict[str, int] = {}
    ended = asyncio.get_running_loop().create_future()

    def receive(payload: bytes, at: int) -> None:
        frame = orjson.loads(payload)
        kind = frame["job"]["status"] if frame["type"] == "job_update" else frame.get("action") or frame["type"]
        seen.setdefault(kind, at)
        if kind in ("succeeded", "failed") and not ended.done():
            ended.set_result(None)

    [socket] = await _open([place], lambda number: receive)
    seen["asked"] = socket.send({"type": "send_message", "content": "Count."})
    await asyncio.wait_for(ended, 30)
    socket.close()
    return seen


def _post_messages(target: Chat) -> tuple[list[int], list[int]]:
    """Return the nanoseconds of requests that store a message, and of those that ask for its reply as well."""
    timings: tuple[list[int], list[int]] = ([], [])
    with _requests(target) as request:
        for _ in range(ASKED_ONE_BY_ONE):
            session = {"llm_provider": "LOCAL", "llm_model": Course(tokens=1).model}
            session_id = orjson.loads(request("POST", "/sessions", session)[1])["id"]
            for process in (False, True):
                body = {"content": "Count.", "process": process}
                timings[process].append(request("POST", f"/sessions/{session_id}/messages", body)[0])
            time.sleep(0.05)  # its reply is not to be in the next one's way
    return timings


class _requests:
    """Requests over one connection, each timed."""

    def __init__(self, target: Chat, user: str = "owner-0") -> None:
        self._connection = http.client.HTTPConnection(urlsplit(target.url).netloc, timeout=60)
        self._headers = {"X-User-ID": user, "Content-Type": "application/json"}

    def __enter__(self) -> _requests:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        began = time.monotonic_ns()
        self._connection.request(method, API + path, body and orjson.dumps(body), self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        taken = time.monotonic_ns() - began
        assert answer.status < 300, text
        return taken, text


# One user's flood, seen by another


async def flood(target: Chat) -> dict[str, str]:
    """Time a user's requests, then again while another floods REST and sockets from a process of its own.

    Asked for as the only part it runs with what is on in jwt mode by itself.
    """
    calm, flooded = _insert_sessions(target, 2)
    async with aiohttp.ClientSession(headers=flooder.who("owner-0")) as http:
        url = f"{target.url}{API}/sessions/{calm}/messages"
        await _steadily(http, url, 2.0)
        quiet = await _steadily(http, url, FLOOD_SECONDS)
        command = [sys.executable, "-m", "bench.flooder", "--url", target.url, "--session", flooded]
        process = await asyncio.create_subprocess_exec(
            *command, "--user", "owner-1", "--seconds", str(FLOOD_SECONDS + 1), stdout=asyncio.subprocess.PIPE
        )
        await asyncio.sleep(1)
        beside = await _steadily(http, url, FLOOD_SECONDS)
        said, _ = await process.communicate()
    ratio = percentile(beside, 95) / percentile(quiet, 95)
    return {
        "another user's request, quiet and beside a flood, p50": f"{_ms(quiet, 50)} and {_ms(beside, 50)} ms",
        "another user's request, quiet and beside a flood, p95": (
            f"{_ms(quiet, 95)} and {_ms(beside, 95)} ms ({ratio:.2f} times)"
        ),
        f"the flood of {FLOOD_SECONDS:.0f} s": said.decode().strip(),
    }


async def _steadily(http: aiohttp.ClientSession, url: str, seconds: float) -> list[int]:
    """Read and write in turn, unhurriedly; return how long each took."""
    taken, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic_ns()
        method, body = ("POST", {"content": "calm"}) if len(taken) % 2 else ("GET", None)
        async with http.request(method, url, json=body) as answer:
            assert answer.status < 300, await answer.text()
            await answer.read()
        taken.append(time.monotonic_ns() - began)
        await asyncio.sleep(QUIET_REQUEST_SECONDS)
    return taken


# Joining a reply in progress


async def join(target: Chat) -> dict[str, str]:
    """Join a session in which 100,000 characters are on their way: written as many deltas, and as few."""
    one = len(f"1000:{time.monotonic_ns()} ")
    size = JOINED_CHARACTERS * 21 // 20
    many, many_reads = await _join(target, Course(tokens=size // one, delay_ms=0, hold_ms=20_000))
    few, few_reads = await _join(target, Course(tokens=50, delay_ms=20, hold_ms=20_000, pad=size // 50 - one))
    return {
        "joining a reply of 100,000 characters, of thousands of deltas, p50": f"{_ms(many, 50)} ms",
        "the same, of 50 deltas": f"{_ms(few, 50)} ms ({percentile(many, 50) / percentile(few, 50):.2f} times)",
        "reads of the text per join, thousands and 50 deltas": f"{many_reads:.2f} and {few_reads:.2f}",
    }


async def _join(target: Chat, course: Course) -> tuple[list[int], float]:
    session_id = _insert_sessions(target, 1, model=course.model)[0]
    async with aiohttp.ClientSession(headers={"X-User-ID": "owner-0"}) as session:
        url = f"{target.url}{API}/sessions/{session_id}/process-llm"
        async with session.post(url, json={"prompt": "Count.", "stream": True}) as answer:
            assert answer.status == 202, await answer.text()
    await asyncio.sleep(4)
    before = _text_reads(target)
    taken = [await _time_to_baseline(target.socket_url(session_id, "owner-0")) for _ in range(JOINS)]
    return taken, (_text_reads(target) - before) / JOINS


async def _time_to_baseline(place: str) -> int:
    whole = asyncio.get_running_loop().create_future()

    def receive(payload: bytes, at: int) -> None:
        if len(payload) > JOINED_CHARACTERS and not whole.done():
            whole.set_result(at)

    began = time.monotonic_ns()
    socket = await WebSocket(place, receive).open()
    taken = await asyncio.wait_for(whole, 15) - began
    socket.close()
    await socket.closed
    await asyncio.sleep(0.1)  # the next one finds nobody there
    return taken


def _text_reads(target: Chat) -> int:
    with redis.Redis.from_url(target.redis_url) as client:
        stats = client.info("commandstats")
    reads = ("mget", "get", "getrange", "lrange", "xrange")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in reads)


# Depth


async def depth(target: Chat, messages: int) -> dict[str, str]:
    """List the newest page, and pages in the middle, of a short session and of a very long one."""
    return await asyncio.to_thread(_depth, target, messages)


def _depth(target: Chat, messages: int) -> dict[str, str]:
    sessions = [(count, _insert_sessions(target, 1)[0]) for count in (messages, SHALLOW)]
    for count, session_id in sessions:
        _insert_messages(target, session_id, count)
    _analyze(target)
    found = {}
    with _requests(target) as request:
        deep, shallow = (_pages(request, session_id, count) for count, session_id in sessions)
        for what, path in deep.items():
            long, short = _side_by_side(request, path, shallow[what])
            times = percentile(long, 50) / percentile(short, 50)
            found[f"{what}, {messages:,} messages against {SHALLOW:,}, p50"] = (
                f"{_ms(long, 50)} / {_ms(short, 50)} ms ({times:.2f} times)"
            )
    return found


def _pages(request: _requests, session_id: str, count: int) -> dict[str, str]:
    listing = f"/sessions/{session_id}/messages?page_size=50"
    middle = f"{listing}&page={count // 2 // 50}"
    cursor = orjson.loads(request("GET", middle)[1])["next_cursor"]
    return {
        "newest page": f"{listing}&order=desc",
        "page in the middle, by number": middle,
        "page in the middle, by cursor": f"{listing}&cursor={cursor}",
    }


def _side_by_side(request: _requests, *paths: str) -> list[list[int]]:
    """Time requests in turn, so that what else goes on is the same for all."""
    taken = [[request("GET", path)[0] for path in paths] for _ in range(TIMES)]
    return [list(times) for times in zip(*taken[TIMES // 10 :], strict=True)]


# Straight into the database


def _is_sqlite(target: Chat) -> bool:
    return target.database_url.startswith("sqlite")


def _insert_sessions(target: Chat, count: int, *, model: str = "bench", watched_by: int = 0) -> list[str]:
    """Make chat sessions of the users owner-0, owner-1, ..., each with so many viewers; return their ids."""
    at, sessions, participants = now(), [], []
    for number in range(count):
        session = {"id": new_id(), "user_id": f"owner-{number}", "llm_provider": "LOCAL", "llm_model": model}
        times = {"created_at": at, "updated_at": at, "last_message_at": at}
        sessions.append(session | times | {"settings": {}, "is_active": True})
        people = [(session["user_id"], ParticipantRole.OWNER)]
        people += [(f"viewer-{viewer}", ParticipantRole.VIEWER) for viewer in range(watched_by)]
        participants += [
            {"session_id": session["id"], "user_id": user, "role": role, "created_at": at} for user, role in people
        ]
    with _engine(target).begin() as connection:
        connection.execute(insert(ChatSession), sessions)
        connection.execute(insert(Participant), participants)
    return [str(session["id"]) for session in sessions]


def _insert_messages(target: Chat, session_id: str, count: int) -> None:
    """Fill a chat session with messages."""
    began = now() - timedelta(seconds=count)
    common = {"session_id": UUID(session_id), "content": "A message of some words. " * 4, "message_metadata": {}}
    common |= {
        "role": Role.USER,
        "user_id": "owner-0",
        "status": MessageStatus.COMPLETE,
        "attempt": 0,
        "tokens_used": 0,
    }
    with _engine(target).begin() as connection:
        for start in range(0, count, ROWS_AT_ONCE):
            rows = []
            for number in range(start + 1, min(start + ROWS_AT_ONCE, count) + 1):
                at = began + timedelta(seconds=number)
                rows.append(common | {"id": new_id(), "seq": number, "created_at": at, "updated_at": at})
            connection.execute(insert(Message), rows)
        counts = {"message_count": count, "last_seq": count, "last_message_at": at}
        chat = update(ChatSession).where(ChatSession.id == common["session_id"])
        connection.execute(chat.values(counts))


def _analyze(target: Chat) -> None:
    """What the database's own housekeeping does within a minute of such a change."""
    with _engine(target).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))


def _engine(target: Chat) -> Any:
    url = make_url(target.database_url)
    return create_engine(url, connect_args={"timeout": 60} if _is_sqlite(target) else {})


def _ms(nanoseconds: list[int], percent: int) -> str:
    return f"{percentile(nanoseconds, percent) / MILLION:.1f}"


PARTS = tuple(_parts(0))
