"""Compares feeds with the database, so that what was lost on the way arrives all the same."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from uuid import UUID

from chat_backend.config import Settings
from chat_backend.domain.cursor import Cursor
from chat_backend.domain.errors import ChatError, ErrorCode
from chat_backend.realtime.channels import session_channel
from chat_backend.web.websocket.attendance import portions
from chat_backend.web.websocket.connection import NO_PARTICIPANT, Connection
from chat_backend.web.websocket.feed import Feed
from chat_backend.web.websocket.reader import Reader

log = logging.getLogger(__name__)

CATCH_UP_WITHOUT_REDIS_SECONDS = 0.5
OFFSETS_AT_ONCE = MEMBERS_AT_ONCE = 500
# How long a role may stand that was taken away, if the event of it is lost or can't be shown.
ROLES_SECONDS = 2.0


class Keeper:
    """Serves all feeds of a process, from one thread. `hears`: whether what is published reaches us."""

    def __init__(
        self,
        settings: Settings,
        reader: Reader,
        *,
        feeds: Mapping[str, Feed],
        connections: Mapping[str, Connection],
        hears: Callable[[], bool],
        tick: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._reader = reader
        self._feeds = feeds
        self._connections = connections
        self._hears = hears
        self._tick = tick
        self._poked = threading.Event()
        self._lost_touch = threading.Event()

    def poke(self) -> None:
        """A feed wants to be looked after."""
        self._poked.set()

    def lost_touch(self) -> None:
        """Something may have been published that nobody here heard."""
        self._lost_touch.set()
        self._poked.set()

    def run(self, stopping: threading.Event) -> None:
        """Work until stopped; sooner than at the next comparison where it is poked."""
        compared = checked = float("-inf")
        while not stopping.is_set():
            interval = self._settings.catch_up_seconds
            if not self._hears():
                interval = min(interval, CATCH_UP_WITHOUT_REDIS_SECONDS)
            # Not the whole interval after each poke: a lost event is found by two looks, and has five seconds.
            due = min(compared + interval, checked + ROLES_SECONDS)
            self._poked.wait(max(0.0, due - time.monotonic()))
            self._poked.clear()
            at = time.monotonic()
            if lost := self._lost_touch.is_set():
                self._lost_touch.clear()
            try:
                if at - checked >= ROLES_SECONDS:
                    # First, so that no feed's trouble keeps a removed participant connected.
                    self._check_roles(list(self._connections.values()))
                    checked = at
                self._for_each(list(self._feeds.values()), self._look_after)
                if lost or at - compared >= interval:
                    # What was lost on the way shows as silence; without Redis there is nothing else.
                    self._compare(quiet_seconds=0.0 if lost or not self._hears() else interval)
                    compared = at
            except ChatError:
                if lost:
                    self._lost_touch.set()
                stopping.wait(CATCH_UP_WITHOUT_REDIS_SECONDS)  # the database is away: it was logged

    def _for_each(self, feeds: Iterable[Feed], work: Callable[[Feed], None]) -> None:
        for feed in feeds:
            try:
                work(feed)
            except ChatError:
                raise  # what the database can't tell of one feed, it can't tell of the others
            except Exception:  # one feed's trouble must not be that of all others
                log.exception("a feed stumbled", extra={"action": "keep", "session_id": str(feed.session_id)})

    def _look_after(self, feed: Feed) -> None:
        if feed.needs_refresh and feed.loaded and not feed.gone:
            self._reader.refresh(feed)
        if feed.participants_changed:
            self._check_feed(feed)
        if feed.needs_tick:
            self._tick()

    def _check_feed(self, feed: Feed) -> None:
        feed.participants_changed = False
        try:
            self._check_roles(list(feed.connections.values()))
        except BaseException:
            feed.participants_changed = True
            raise

    def _check_roles(self, connections: Sequence[Connection]) -> None:
        """Give connections the roles that their users have now, and close those of users who have none."""
        for portion in portions(connections, MEMBERS_AT_ONCE):
            roles = self._reader.roles(list({(c.session_id, c.user.id) for c in portion}))
            removed = [c for c in portion if (c.session_id, c.user.id) not in roles]
            # A session that was deleted has no participants either, but its viewers are told so by its feed.
            there = self._reader.cursors(list({c.session_id for c in removed})) if removed else {}
            for connection in portion:
                role = roles.get((connection.session_id, connection.user.id))
                if role is not None:
                    connection.role = role
                elif connection.session_id in there:
                    self._remove(connection)

    def _remove(self, connection: Connection) -> None:
        feed = self._feeds.get(session_channel(connection.session_id))
        if feed is None:
            return  # it has left meanwhile
        with feed.lock:
            feed.detach(connection)
            connection.close(NO_PARTICIPANT, ErrorCode.NOT_A_PARTICIPANT, "You are no longer a participant.")

    def _compare(self, *, quiet_seconds: float) -> None:
        """Refresh who is behind, and whose replies have been quiet for so long."""
        feeds = [feed for feed in list(self._feeds.values()) if feed.loaded and not feed.gone]
        at = time.monotonic()
        for portion in portions(feeds, OFFSETS_AT_ONCE):
            cursors = self._reader.cursors([feed.session_id for feed in portion])
            self._for_each(portion, partial(self._compare_one, cursors, at=at, quiet_seconds=quiet_seconds))

    def _compare_one(self, cursors: Mapping[UUID, Cursor], feed: Feed, *, at: float, quiet_seconds: float) -> None:
        behind = feed.fell_behind(cursors.get(feed.session_id), at_once=not quiet_seconds)
        if behind or feed.stale(at, quiet_seconds):
            self._reader.refresh(feed)
        if feed.participants_changed:
            self.poke()
        if feed.needs_tick:
            self._tick()
