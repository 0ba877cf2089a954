"""What time brings: text that is due, pings, the end of who does not read, does not answer or may not stay."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from chat_backend.config import Settings
from chat_backend.domain.errors import ErrorCode
from chat_backend.web.websocket.connection import CLOSING_SECONDS, TRY_AGAIN, UNAUTHENTICATED, Connection
from chat_backend.web.websocket.feed import Feed

log = logging.getLogger(__name__)

TICK_SECONDS = 0.025
CHECK_SECONDS = 1.0


class Clock:
    """Serves all feeds and connections of a process, from one thread."""

    def __init__(self, settings: Settings, *, feeds: Mapping[str, Feed], connections: Mapping[str, Connection]) -> None:
        self._settings = settings
        self._feeds = feeds
        self._connections = connections
        self.wanted = threading.Event()

    def run(self, stopping: threading.Event) -> None:
        """Work until stopped; sooner than at the next check where it is `wanted`."""
        checked = 0.0
        while not stopping.is_set():
            at = time.monotonic()
            if at - checked >= CHECK_SECONDS:
                checked = at
                self._check_connections(at)
            self.wanted.clear()
            if self._tick_feeds(at):
                stopping.wait(TICK_SECONDS)
            else:
                self.wanted.wait(CHECK_SECONDS)

    def _tick_feeds(self, at: float) -> bool:
        again = False
        for feed in list(self._feeds.values()):
            if feed.needs_tick:
                self._tick(feed, at)
                again |= feed.needs_tick
        return again

    def _tick(self, feed: Feed, at: float) -> None:
        try:
            feed.tick(at)
        except Exception:  # one feed's trouble must not be that of all others
            log.exception("a feed stumbled", extra={"action": "tick", "session_id": str(feed.session_id)})

    def _check_connections(self, at: float) -> None:
        for connection in list(self._connections.values()):
            try:
                self._check(connection, at)
            except Exception:  # nor one connection's
                log.exception("a connection stumbled", extra={"action": "check", "connection_id": connection.id})

    def _check(self, connection: Connection, at: float) -> None:
        if connection.closing_since is not None:
            if at - connection.closing_since > CLOSING_SECONDS:
                connection.outbox.drop()
            else:
                connection.outbox.pump()
        elif self._does_not_read(connection, at):
            connection.cut(TRY_AGAIN, "You do not read.")
        elif connection.outbox.gone:
            connection.outbox.drop()
        elif connection.expired():
            connection.close(UNAUTHENTICATED, ErrorCode.UNAUTHENTICATED, "The token has expired.")
        elif at - connection.last_ping_at >= self._settings.ping_seconds:
            self._ping(connection, at)

    def _does_not_read(self, connection: Connection, at: float) -> bool:
        if connection.outbox.blocked_since is None:
            return False
        # A pong or an error that met a full buffer belongs to no feed that would send it when there is room again.
        connection.outbox.pump()
        blocked = connection.outbox.blocked_since
        return blocked is not None and at - blocked > self._settings.send_timeout_seconds

    def _ping(self, connection: Connection, at: float) -> None:
        connection.last_ping_at = at
        if not connection.outbox.keep_alive():
            connection.outbox.drop()
