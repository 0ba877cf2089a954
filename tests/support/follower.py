"""A viewer as the contract wants it: when its connection ends, it comes back with `since`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.support.chat import Chat, Frame, Viewer

RECONNECT_SECONDS = 0.1
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
        self.viewer = chat.watch(session_id, **query)
        self.viewer.greeting()

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

    def until_action(self, action: str, **more: Any) -> Frame:
        return self.until(lambda frame: frame.get("action") == action, **more)

    def until_job(self, status: str, **more: Any) -> Frame:
        return self.until(lambda frame: frame["type"] == "job_update" and frame["job"]["status"] == status, **more)

    def until_text(self, characters: int, **more: Any) -> None:
        """Read until some reply has so many characters."""
        self.until(lambda frame: any(len(text) >= characters for text in self._replies().values()), **more)

    def catch_up(self, offset: int, *, seconds: float = 10.0) -> None:
        """Read until everything up to an offset was seen."""
        if self.offset < offset:
            self.until(lambda frame: self.offset >= offset, seconds=seconds)

    def cut(self) -> None:
        """Lose the connection, as in a tunnel."""
        self.viewer.socket.socket.close()

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
        self.viewer = self._connect(since, deadline)
        self.viewer.offset = since
        self.viewer.ended = set(self._ended)
        if self.viewer.greeting()["recovered"]:
            self.recovered += 1
        else:
            self._refetch()

    def _connect(self, since: int, deadline: float) -> Viewer:
        while True:
            try:
                return self.chat.watch(self.session_id, since=since, **self._query)
            except (OSError, InvalidHandshake, TimeoutError, EOFError):
                assert time.monotonic() < deadline, "no way back"
                time.sleep(RECONNECT_SECONDS)

    def _refetch(self) -> None:
        self.refetched += 1
        page = self.chat.page(self.session_id)
        self._final |= {message["id"]: message["content"] for message in page["messages"]}
