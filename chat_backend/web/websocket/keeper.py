"""Compares feeds with the database, so that what was lost on the way arrives all the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from chat_backend.config import Settings
from chat_backend.domain.errors import ChatError, ErrorCode
from chat_backend.web.websocket.attendance import portions
from chat_backend.web.websocket.connection import NO_PARTICIPANT
from chat_backend.web.websocket.feed import Feed
from chat_backend.web.websocket.reader import Reader

CATCH_UP_WITHOUT_REDIS_SECONDS = 0.5
OFFSETS_AT_ONCE = 500


class Keeper:
    """Serves all feeds of a process, from one thread. `hears`: whether what is published reaches us."""

    def __init__(
        self,
        settings: Settings,
        reader: Reader,
        *,
        feeds: Mapping[str, Feed],
        hears: Callable[[], bool],
        tick: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._reader = reader
        self._feeds = feeds
        self._hears = hears
        self._tick = tick
        self._poked = threading.Event()
        self._lost_touch = False

    def poke(self) -> None:
        """A feed wants to be looked after."""
        self._poked.set()

    def lost_touch(self) -> None:
        """Something may have been published that nobody here heard."""
        self._lost_touch = True
        self._poked.set()

    def run(self, stopping: threading.Event) -> None:
        """Work until stopped; sooner than at the next comparison where it is poked."""
        compared = float("-inf")
        while not stopping.is_set():
            interval = self._settings.catch_up_seconds
            if not self._hears():
                interval = min(interval, CATCH_UP_WITHOUT_REDIS_SECONDS)
            self._poked.wait(interval)
            self._poked.clear()
            at = time.monotonic()
            try:
                self._refresh_wanting()
                lost, self._lost_touch = self._lost_touch, False
                if lost or at - compared >= interval:
                    compared = at
                    # What was lost on the way shows as silence; without Redis there is nothing else.
                    self._compare(quiet_seconds=0.0 if lost or not self._hears() else interval)
            except ChatError:
                stopping.wait(CATCH_UP_WITHOUT_REDIS_SECONDS)  # the database is away: it was logged

    def _refresh_wanting(self) -> None:
        for feed in list(self._feeds.values()):
            if feed.needs_refresh and feed.loaded and not feed.gone:
                self._reader.refresh(feed)
            if feed.participants_changed:
                self._check_participants(feed)

    def _check_participants(self, feed: Feed) -> None:
        feed.participants_changed = False
        try:
            roles = self._reader.roles(feed.session_id)
        except BaseException:
            feed.participants_changed = True
            raise
        with feed.lock:
            for connection in list(feed.connections.values()):
                role = roles.get(connection.user.id)
                if role is not None:
                    connection.role = role
                elif not feed.gone:
                    feed.detach(connection)
                    connection.close(NO_PARTICIPANT, ErrorCode.NOT_A_PARTICIPANT, "You are no longer a participant.")

    def _compare(self, *, quiet_seconds: float) -> None:
        """Refresh who is behind, and whose replies have been quiet for so long."""
        feeds = [feed for feed in list(self._feeds.values()) if feed.loaded and not feed.gone]
        at = time.monotonic()
        for portion in portions(feeds, OFFSETS_AT_ONCE):
            offsets = self._reader.offsets([feed.session_id for feed in portion])
            for feed in portion:
                offset = offsets.get(feed.session_id)
                if feed.fell_behind(offset, at_once=not quiet_seconds) or feed.stale(at, quiet_seconds):
                    self._reader.refresh(feed)
                if feed.participants_changed:
                    self.poke()
                if feed.needs_tick:
                    self._tick()
