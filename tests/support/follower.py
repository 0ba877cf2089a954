"""A viewer as the contract wants it: when its connection ends, it comes back with `since`."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.support.chat import Chat, Frame, Viewer

RECONNECT_SECONDS = 0.1
JOIN_SECONDS = 60.0
GONE = (OSError, EOFError, TimeoutError, InvalidHandshake, ConnectionClosed, httpx.TransportError)
# Come back, as the contract says of these; and what a crash looks like.
COME_BACK = {None, 1001, 1006, 1012, 1013}


class Follower:
    """Follows one chat session through any number of connections."""

    def __init__(self, chat: Chat, session_id: str, **query: Any) -> None:
        self.chat = chat
        self.session_id = session_id
        self.reconnects = self.recovered = self.refetched = 0
        self.closed_with: int | None = None
        self._query = query
        self._final: dict[str, str] = {}
        self._ended: set[str] = set()
        self.viewer = self._first()

    @property
    def offset(self) -> int:
        return self.viewer.offset

    @property
    def texts(self) -> dict[str, str]:
        """What it believes every message says."""
        return self._final | self.viewer.texts

    def say(self, kind: str, **fields: Any) -> None:
        self.viewer.say(kind, **fields)

    def until(self, wanted: Callable[[Frame], Any], *, seconds: float = 20.0) -> Frame:
        """Read, over as many connections as it takes, until a frame is what is wanted."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.viewer.until(wanted, seconds=max(0.01, deadline - time.monotonic()))
            except ConnectionClosed as closed:
                self._come_back(closed.rcvd.code if closed.rcvd else None, deadline)
                if wanted(self.viewer.frames[0]):
                    return self.viewer.frames[0]

    def until_action(self, action: str, **more: Any) -> Frame:
        return self.until(lambda frame: frame.get("action") == action, **more)

    def until_job(self, status: str, **more: Any) -> Frame:
        return self.until(lambda frame: frame["type"] == "job_update" and frame["job"]["status"] == status, **more)

    def until_text(self, characters: int, **more: Any) -> None:
        """Read until some reply has so many characters."""
        self.until(lambda frame: any(len(text) >= characters for text in self._replies().values()), **more)

    def until_text_of(self, message_id: str, *, seconds: float = 20.0) -> str:
        """Read until a message is whole, and return what it says."""

        def whole() -> bool:
            message = self.viewer.messages.get(message_id)
            return message is not None and not message["is_streaming"]

        if not whole():
            self.until(lambda frame: whole(), seconds=seconds)
        return self.texts[message_id]

    def catch_up(self, offset: int, *, seconds: float = 10.0) -> None:
        """Read until everything up to an offset was seen."""
        if self.offset < offset:
            self.until(lambda frame: self.offset >= offset, seconds=seconds)

    def cut(self) -> None:
        """Lose the connection, as in a tunnel."""
        with suppress(OSError):
            self.viewer.socket.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.viewer.socket.close()

    def _replies(self) -> dict[str, str]:
        roles = {id: message["role"] for id, message in self.viewer.messages.items()}
        return {id: text for id, text in self.viewer.texts.items() if roles.get(id) == "assistant"}

    def _come_back(self, code: int | None, deadline: float) -> None:
        if code not in COME_BACK:
            self.closed_with = code
            raise AssertionError(f"closed with {code}")
        since = self.offset
        self._final |= self.viewer.texts
        self._ended |= self.viewer.ended
        self.reconnects += 1
        while not self._resumed(since):
            assert time.monotonic() < deadline, "no way back"
            time.sleep(RECONNECT_SECONDS)

    def _first(self) -> Viewer:
        deadline = time.monotonic() + JOIN_SECONDS
        while (viewer := self._join()) is None:
            assert time.monotonic() < deadline, "no way in"
            time.sleep(RECONNECT_SECONDS)
        return viewer

    def _join(self, **since: int) -> Viewer | None:
        """Try once to get in, which the server may refuse for now: it restarts, or its database is away."""
        try:
            viewer = self.chat.watch(self.session_id, **since, **self._query)
            viewer.offset, viewer.ended = since.get("since", 0), set(self._ended)
            return viewer if viewer.next()["type"] == "connection_established" else None
        except GONE:
            return None

    def _resumed(self, since: int) -> bool:
        """Try once to come back; say whether that went well."""
        viewer = self._join(since=since)
        if viewer is None:
            return False
        viewer.messages = dict(self.viewer.messages)
        recovered: bool = viewer.frames[0]["recovered"]
        if not recovered and not self._refetch(viewer):
            return False
        self.viewer = viewer
        self.recovered += recovered
        self.refetched += not recovered
        return True

    def _refetch(self, viewer: Viewer) -> bool:
        try:
            viewer.messages = {message["id"]: message for message in self.chat.messages(self.session_id)}
        except GONE:
            return False
        self._final |= {id: message["content"] for id, message in viewer.messages.items()}
        return True
