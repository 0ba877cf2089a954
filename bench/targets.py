"""What is measured: the provider itself, the reference, and the product as its Procfile starts it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from bench.load import Tally, read_chat, read_provider
from bench.processes import HERE, Process, cpu_seconds, listens
from bench.stub import Course
from bench.wire import EventStream, WebSocket
from chat_backend.cli import embedded

API = "/api/v1/chat"
AT_ONCE = 8

DIRECT, SQLITE, POSTGRESQL = "direct", "product-sqlite", "product-postgresql"
# The usual design with its own frames, and with the smallest that it could have.
REFERENCE, REFERENCE_DELTAS = "reference", "reference-deltas"
NAMES = (DIRECT, REFERENCE, REFERENCE_DELTAS, SQLITE, POSTGRESQL)
# The test server of tests/support trades safety for speed; this is PostgreSQL as it comes.
DURABLE = ("fsync", "synchronous_commit", "full_page_writes")


class Provider:
    """The stub, asked without anything between: the limit."""

    name = DIRECT

    def __init__(self, url: str) -> None:
        self._url = url + "/chat/completions"

    def cpu(self) -> dict[str, float]:
        return {}

    async def places(self, count: int, course: Course) -> list[bytes]:
        """Return the request that each conversation will make."""
        messages = [{"role": "user", "content": "Count."}]
        return [orjson.dumps({"model": course.model, "messages": messages, "stream": True})] * count

    async def connected(self, places: list[bytes]) -> list[bytes]:
        """There is nothing to connect: a request is a connection."""
        return places

    async def ask(self, place: bytes, tally: Tally) -> EventStream:
        """Begin a conversation; its first token counts from the request."""
        stream = EventStream(self._url, place, read_provider(tally))
        await stream.open()
        tally.asked_at = stream.asked_at
        return stream


class Chat:
    """A chat backend: sessions over REST, conversations over a WebSocket."""

    def __init__(
        self, name: str, url: str, parts: dict[str, int], *, database_url: str = "", redis_url: str = ""
    ) -> None:
        self.name = name
        self.url = url
        self.parts = parts
        self.database_url = database_url
        self.redis_url = redis_url

    def cpu(self) -> dict[str, float]:
        """Return the seconds of processor time that each part has used."""
        return {part: cpu_seconds([pid]) for part, pid in self.parts.items()}

    def socket_url(self, session_id: str, user: str) -> str:
        return f"ws{self.url.removeprefix('http')}{API}/sessions/{session_id}/websocket?deltas=1&user_id={user}"

    async def places(self, count: int, course: Course) -> list[str]:
        """Make a new chat session for each conversation and return where its sockets are."""
        turn = asyncio.Semaphore(AT_ONCE)
        async with aiohttp.ClientSession() as http:
            return await asyncio.gather(*(self._place(http, turn, course, f"u{n}") for n in range(count)))

    async def _place(self, http: aiohttp.ClientSession, turn: asyncio.Semaphore, course: Course, user: str) -> str:
        body = {"llm_provider": "LOCAL", "llm_model": course.model}
        async with turn, http.post(f"{self.url}{API}/sessions", json=body, headers={"X-User-ID": user}) as answer:
            assert answer.status == 201, await answer.text()
            return self.socket_url((await answer.json())["id"], user)

    async def connected(self, places: list[str]) -> list[WebSocket]:
        """Open all sockets beforehand."""
        return [await WebSocket(place, lambda payload, at: None).open() for place in places]

    async def ask(self, place: str | WebSocket, tally: Tally) -> WebSocket:
        """Open a socket, unless it is open, and send a message; the first token counts from the message."""
        socket = place if isinstance(place, WebSocket) else WebSocket(place, lambda payload, at: None)
        socket.receive = read_chat(tally, whole=self.name == REFERENCE)
        socket.ended = lambda code: tally.fail(f"closed with {code}")
        if not isinstance(place, WebSocket):
            await socket.open()
        tally.asked_at = socket.send({"type": "send_message", "content": "Count."})
        return socket


Target = Provider | Chat


@contextmanager
def started(names: tuple[str, ...], folder: Path, *, environ: dict[str, str]) -> Iterator[list[Target]]:
    """Start the targets of these names, and the stub; `product-sqlite@FOLDER` is the product of another checkout."""
    with ExitStack() as stack:
        stub_url = _start_stub(stack, folder)
        yield [_start(name, stack, folder, environ | {"LOCAL_LLM_BASE_URL": stub_url}) for name in names]


def _start_stub(stack: ExitStack, folder: Path) -> str:
    port = embedded.free_port()
    command = [sys.executable, "-m", "bench.stub", "--port", str(port)]
    _run(stack, "stub", command, environ={}, folder=folder).wait_until(lambda: listens(port))
    return f"http://127.0.0.1:{port}/v1"


def _start(name: str, stack: ExitStack, folder: Path, environ: dict[str, str]) -> Target:
    if name == DIRECT:
        return Provider(environ["LOCAL_LLM_BASE_URL"])
    own = folder / name.replace("/", "_")
    own.mkdir()
    if name in (REFERENCE, REFERENCE_DELTAS):
        return _start_reference(name, stack, own, environ)
    kind, _, checkout = name.partition("@")
    return _start_product(name, stack, own, environ, postgresql=kind == POSTGRESQL, cwd=Path(checkout or HERE))


def _start_reference(name: str, stack: ExitStack, folder: Path, environ: dict[str, str]) -> Chat:
    port = embedded.free_port()
    own = {"REFERENCE_DATABASE": str(folder / "chat.db"), "PORT": str(port)}
    environ = environ | own | {"REFERENCE_DELTAS": "1" if name == REFERENCE_DELTAS else "0"}
    command = [sys.executable, "-m", "bench.reference"]
    process = _run(stack, "reference", command, environ=environ, folder=folder)
    process.wait_until(lambda: listens(port))
    return Chat(name, f"http://127.0.0.1:{port}", {"reference": process.pid})


def _start_product(
    name: str, stack: ExitStack, folder: Path, environ: dict[str, str], *, postgresql: bool, cwd: Path
) -> Chat:
    parts: dict[str, int] = {}
    database_url = f"sqlite:///{folder / 'chat.db'}"
    if postgresql:
        database_url, parts["postgresql"] = _start_postgresql(stack, folder / "pg")
    valkey = embedded.prepare(folder / "valkey")
    redis = _run(stack, "redis", valkey.command, environ={}, folder=folder)
    redis.wait_until(valkey.answers)
    port = embedded.free_port()
    environ = {"AUTH_MODE": "dev", "DATABASE_URL": database_url, "REDIS_URL": valkey.url, "PORT": str(port)} | environ
    lines = _procfile(cwd)
    release = _run(stack, "release", _shell(lines["release"]), environ=environ, folder=folder, cwd=cwd)
    release.wait_until_ended()
    web = _run(stack, "web", _shell(lines["web"]), environ=environ, folder=folder, cwd=cwd)
    worker = _run(stack, "worker", _shell(lines["worker"]), environ=environ, folder=folder, cwd=cwd)
    web.wait_until(lambda: listens(port))
    worker.wait_until(lambda: "ready." in worker.log)
    parts |= {"web": web.pid, "worker": worker.pid, "redis": redis.pid}
    return Chat(name, f"http://127.0.0.1:{port}", parts, database_url=database_url, redis_url=valkey.url)


def _start_postgresql(stack: ExitStack, folder: Path) -> tuple[str, int]:
    import psycopg

    from tests.support import postgres

    url = postgres.start(folder)
    stack.callback(postgres.stop, folder)
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        for setting in DURABLE:
            connection.execute(f"ALTER SYSTEM SET {setting} = on")
        connection.execute("SELECT pg_reload_conf()")
    return url, int((folder / "postmaster.pid").read_text().split()[0])


def _run(stack: ExitStack, name: str, command: Any, **more: Any) -> Process:
    process = Process(name, command, **more)
    stack.callback(process.stop)
    return process


def _procfile(root: Path) -> dict[str, str]:
    lines = (line.partition(":") for line in (root / "Procfile").read_text().splitlines() if line.strip())
    return {name: command.strip() for name, _, command in lines}


def _shell(command: str) -> list[str]:
    return ["sh", "-c", f"exec {command}"]
