"""A whole product that several tests share: a provider, workers and web processes over one database and one Redis."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from websockets.sync.client import ClientConnection, connect

from tests.support import processes
from tests.support.chat import API, Chat, Frame, Viewer
from tests.support.processes import Process
from tests.support.provider_stub import Stub


@dataclass
class Stack:
    """What runs, and ways in."""

    environ: dict[str, str]
    folder: Path
    stub: Stub
    processes: list[Process] = field(default_factory=list)
    _chats: list[Chat] = field(default_factory=list)

    def launch(self, name: str, **changes: str) -> Process:
        """Start a line of the Procfile; it is stopped with the stack, unless it has ended before."""
        process = processes.start(name, self.environ | changes, self.folder)
        self.processes.append(process)
        return process

    @property
    def web(self) -> Process:
        """The web process: of several, one that runs."""
        webs = [process for process in self.processes if process.name == "web"]
        return next((process for process in webs if process.exit_status is None), webs[-1])

    def chat(self, user: str | None = None, *, web: Process | None = None) -> Chat:
        """Return a client of a user, one of its own unless named."""
        chat = Chat((web or self.web).url, user or f"user-{uuid4().hex[:8]}")
        self._chats.append(chat)
        return chat

    def close(self) -> None:
        for chat in self._chats:
            chat.http.close()
        with ExitStack() as ends:
            # One that does not end as it should leaves none of the others behind.
            for process in self.processes:
                ends.callback(process.stop)


@contextmanager
def running(
    environ: dict[str, str], folder: Path, stub: Stub, *, worker: bool = True, **changes: str
) -> Iterator[Stack]:
    """Start a web process and, unless told otherwise, a worker."""
    stack = Stack(environ | {"LOCAL_LLM_BASE_URL": stub.base_url} | changes, folder, stub)
    try:
        if worker:
            stack.launch("worker")
        stack.launch("web")
        yield stack
    finally:
        stack.close()


def socket_url(process: Process, session_id: str, **query: Any) -> str:
    base = process.url.replace("http", "ws", 1)
    return f"{base}{API}/sessions/{session_id}/websocket?{urlencode(query)}"


def dial(url: str, **more: Any) -> ClientConnection:
    """Open a socket without any of the Viewer's checks."""
    how = {"proxy": None, "max_size": None, "open_timeout": 10, "ping_interval": None, "legacy": True}
    return connect(url, **how | more)


def dial_reading_little(process: Process, session_id: str, **query: Any) -> ClientConnection:
    """Open a socket of the smallest buffers whose library takes a frame only when the one before was taken."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", process.port))
    # The server's farewell may be behind a frame that nobody takes: it is not waited for.
    return dial(socket_url(process, session_id, **query), sock=sock, max_queue=1, close_timeout=0.5)


def refused(url: str, **more: Any) -> tuple[Frame, int]:
    """Return the one error frame and the close code of a socket that is not let in."""
    with Viewer(dial(url, **more)) as viewer:
        code = viewer.until_closed()
    assert [frame["type"] for frame in viewer.frames] == ["error"], viewer.frames
    return viewer.frames[0], code
