"""Who is here in the whole deployment, as far as Redis knows. It may be stale, and it fails no connection."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from uuid import UUID

from chat_backend.config import Settings
from chat_backend.domain.enums import EventType
from chat_backend.domain.errors import ErrorCode, TooMany
from chat_backend.domain.outage import Outage
from chat_backend.protocol.events import presence
from chat_backend.realtime.connection import RedisAway, RedisClient
from chat_backend.realtime.presence import Presence, ProcessCensus
from chat_backend.web.websocket.connection import Connection

log = logging.getLogger(__name__)

CENSUS_SECONDS = 5.0
AT_ONCE = 200

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Attendance:
    """Counts a process's connections in and out, and tells the others of it."""

    def __init__(
        self,
        redis: RedisClient,
        settings: Settings,
        *,
        process_id: str,
        connections: dict[str, Connection],
        tell: Callable[[UUID, dict[str, Any]], None],
    ) -> None:
        self._presence = Presence(redis, settings)
        self._census = ProcessCensus(redis)
        self._process_id = process_id
        self._connections = connections
        self._tell = tell
        self._outage = Outage()
        # Thrice in the time that a connection counts: one that could not be said costs nothing.
        self._refresh_seconds = settings.presence_seconds / 3
        self._counted = 0
        self._counted_at = self._refreshed_at = float("-inf")

    def arrive(self, connection: Connection, here: set[str]) -> set[str]:
        """Count a connection in and return who is here; `here` are those of this process. Raises TooMany."""
        joined = self._ask(lambda: self._presence.join(connection.session_id, connection.user.id, connection.id))
        if joined is None:
            return here | {connection.user.id}
        if joined.refused:
            raise too_many_connections()
        online = joined.online | here | {connection.user.id}
        if joined.first:
            self._tell(connection.session_id, presence(EventType.USER_JOINED, connection.user.id, online))
        return set(online)

    def depart(self, connection: Connection, here: set[str]) -> None:
        """Count a connection out; a user's last one is told to the others."""
        known = self._ask(lambda: self._presence.leave(connection.session_id, connection.user.id, connection.id))
        online = (known or frozenset()) | here
        if connection.user.id not in online:
            self._tell(connection.session_id, presence(EventType.USER_LEFT, connection.user.id, online))

    def report(self) -> None:
        """Say what is due to be said: how many connections this process has, and that they live."""
        at, count = time.monotonic(), len(self._connections)
        if at - self._counted_at >= CENSUS_SECONDS or count != self._counted:
            self._counted_at, self._counted = at, count
            self._ask(lambda: self._census.report_web(self._process_id, count))
        if at - self._refreshed_at >= self._refresh_seconds:
            self._refreshed_at = at
            self._ask(self._refresh)

    def _refresh(self) -> None:
        connections = list(self._connections.values())
        for some in portions(connections, AT_ONCE):
            self._presence.refresh((c.session_id, c.user.id, c.id) for c in some)
            for connection in some:
                if connection.id not in self._connections:  # it left while it was confirmed
                    self._presence.leave(connection.session_id, connection.user.id, connection.id)
        for watched in portions(list({connection.session_id for connection in connections}), AT_ONCE):
            for session_id, (gone, online) in zip(watched, self._presence.prune(watched), strict=True):
                for user_id in gone:
                    self._tell(session_id, presence(EventType.USER_LEFT, user_id, online))

    def end(self) -> None:
        """This process ends."""
        self._ask(lambda: self._census.leave(self._process_id))

    def _ask(self, question: Callable[[], Answer]) -> Answer | None:
        """Ask Redis; None where it is away, at once where it was away a moment ago."""
        if not self._outage.over():
            return None
        try:
            answer = question()
        except RedisAway as error:
            self._outage.failed()
            log.warning("presence is stale", extra={"action": "presence", "error": type(error).__name__})
            return None
        self._outage.succeeded()
        return answer


def too_many_connections() -> TooMany:
    return TooMany("Too many connections are open.", code=ErrorCode.TOO_MANY_CONNECTIONS, retry_after_seconds=5)


def portions(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Return a sequence in pieces of at most so many."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
