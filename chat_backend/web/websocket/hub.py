"""One process's fan-out: one subscription, and a feed for every chat session that someone watches here.

Four threads serve all connections: the subscriber takes what is published, the clock sends what is due,
the keeper compares with the database, so that what was lost on the way arrives all the same, and the
teller tells Redis who is here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

from chat_backend.bootstrap import Backend
from chat_backend.domain.cursor import Cursor
from chat_backend.domain.errors import ErrorCode, NotFound, Restarting
from chat_backend.protocol.envelope import Closed, Durable, Envelope, Ephemeral, unpack, unpack_deltas
from chat_backend.protocol.events import typing_indicator
from chat_backend.realtime.channels import LIVE_TEXTS, session_channel
from chat_backend.realtime.connection import client
from chat_backend.realtime.publisher import Publisher
from chat_backend.realtime.subscriber import Subscriber
from chat_backend.web.websocket.attendance import Attendance, too_many_connections
from chat_backend.web.websocket.clock import Clock
from chat_backend.web.websocket.connection import RESTARTING, Connection
from chat_backend.web.websocket.feed import Feed
from chat_backend.web.websocket.indicators import Indicators
from chat_backend.web.websocket.joining import attach
from chat_backend.web.websocket.keeper import Keeper
from chat_backend.web.websocket.reader import Reader

log = logging.getLogger(__name__)

TELL_SECONDS = 1.0
STUMBLED_SECONDS = 1.0
SHUTDOWN_SECONDS = 2.0


class Hub:
    """Everyone who watches in this process."""

    def __init__(self, backend: Backend, publisher: Publisher) -> None:
        self.id = uuid4().hex
        self.backend = backend
        self.settings = backend.settings
        self._publisher = publisher
        self._lock = threading.Lock()
        self._feeds: dict[str, Feed] = {}  # by channel, so that what is published is not parsed to be delivered
        self._connections: dict[str, Connection] = {}
        self._stopping = threading.Event()
        redis = client(self.settings)
        self._reader = Reader(backend, redis)
        self._clock = Clock(self.settings, feeds=self._feeds, connections=self._connections)
        self._keeper = Keeper(
            self.settings,
            self._reader,
            feeds=self._feeds,
            connections=self._connections,
            hears=lambda: self._subscriber.connected,
            tick=self._clock.wanted.set,
        )
        self._subscriber = Subscriber(
            self.settings, receive=self._receive, lost_touch=self._keeper.lost_touch, channels=(LIVE_TEXTS,)
        )
        self._attendance = Attendance(
            redis, self.settings, process_id=self.id, connections=self._connections, tell=self.tell
        )
        self._indicators: Indicators[tuple[UUID, str]] = Indicators(self.settings.typing_seconds)
        works = {"clock": self._clock.run, "keeper": self._keeper.run, "teller": self._tell_redis}
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True) for name, work in works.items()
        ]
        self._started = False
        # Sockets that have ended, but whose last words are still on their way, hold a thread each. Beyond so many
        # nobody is waited for: refused strangers must not take the threads that answer /health.
        self._lingering = threading.BoundedSemaphore(16 if self.settings.is_threaded else 1000)

    @property
    def count(self) -> int:
        """The open connections of this process."""
        return len(self._connections)

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def start(self) -> None:
        """Start the threads, once; later calls do nothing. Called in the process that serves, after any fork."""
        with self._lock:
            if self._started:
                return
            self._started = True
        self._subscriber.start()
        for thread in self._threads:
            thread.start()

    # What is published

    def _receive(self, channel: str, data: bytes) -> None:
        try:
            if channel == LIVE_TEXTS:
                self._take_texts(data)
            elif feed := self._feeds.get(channel):  # else the anchor, or nobody watches any more
                self._take(feed, unpack(data))
        except (ValueError, KeyError, TypeError, AttributeError):
            # Whoever reaches Redis can publish anything: it is ignored, never passed on.
            log.warning("ignored an envelope that is none", extra={"action": "receive"})

    def _take_texts(self, data: bytes) -> None:
        for delta in unpack_deltas(data):
            # Of all chat sessions there are: most may be watched elsewhere.
            if feed := self._feeds.get(delta.channel):
                feed.delta(delta)
                self._follow_up(feed)

    def _follow_up(self, feed: Feed) -> None:
        """Let those who serve all feeds do what this one wants done."""
        if feed.needs_refresh or feed.participants_changed:
            self._keeper.poke()
        if feed.needs_tick:
            self._clock.wanted.set()

    def _take(self, feed: Feed, envelope: Envelope) -> None:
        match envelope:
            case Durable():
                feed.durable(envelope)
            case Ephemeral():
                feed.ephemeral(envelope.body)
            case Closed():
                feed.needs_refresh = True
        self._follow_up(feed)

    def tell(self, session_id: UUID, body: dict[str, Any]) -> None:
        """Show an ephemeral frame to everyone in a chat session; while Redis is away, to everyone here."""
        if self._publisher.publish([(session_id, Ephemeral(body))]):
            return
        feed = self._feeds.get(session_channel(session_id))
        if feed is not None:
            feed.ephemeral(body)
            self._clock.wanted.set()

    def tell_typing(self, session_id: UUID, user_id: str, is_typing: bool) -> None:
        """Show everyone in a chat session that a user types, or stopped; of many changes only the last, and later."""
        if self._indicators.take((session_id, user_id), is_typing):
            self.tell(session_id, typing_indicator(user_id, is_typing))

    # Who comes and goes

    @contextmanager
    def feed(self, session_id: UUID) -> Iterator[Feed]:
        """Hold the feed of a chat session, loaded. Raises NotFound, Unavailable."""
        feed = self._acquire(session_id)
        try:
            with feed.load_lock:
                if not feed.loaded:
                    self._subscriber.subscribe(session_channel(session_id))
                    self._reader.refresh(feed)
                    self._follow_up(feed)
            if feed.gone:
                raise NotFound("There is no such chat session.")
            yield feed
        finally:
            self._release(feed)

    def _acquire(self, session_id: UUID) -> Feed:
        with self._lock:
            feed = self._feeds.get(session_channel(session_id))
            if feed is None:
                feed = Feed(session_id, typing_seconds=self.settings.typing_seconds)
                self._feeds[session_channel(session_id)] = feed
            feed.users += 1
            return feed

    def _release(self, feed: Feed) -> None:
        with self._lock:
            feed.users -= 1
            if feed.users:
                return
            channel = session_channel(feed.session_id)
            self._feeds.pop(channel, None)
        # Without the lock, for it speaks with Redis; a newcomer must not find itself subscribed and then lose it.
        self._subscriber.unsubscribe(channel, unless=lambda: channel in self._feeds)

    def join(self, feed: Feed, connection: Connection, *, since: Cursor | None) -> Iterator[None]:
        """Let a connection in: greeting, replay, baselines, then live.

        The first part of it is sent at once. What is returned goes on with the rest whenever it is asked:
        ask when the viewer has read what came before. Raises TooMany, Restarting, NotFound, Unavailable.
        """
        self._admit(connection)
        try:
            online = self._attendance.arrive(connection, feed.online_here())
        except BaseException:
            self._drop(connection)
            raise
        try:
            rest = self._attach(feed, connection, since=since, online=online)
            next(rest, None)
        except BaseException:
            self.leave(feed, connection)
            raise
        return rest

    def _admit(self, connection: Connection) -> None:
        with self._lock:
            if self._stopping.is_set():
                raise Restarting("The server restarts.", retry_after_seconds=1)
            mine = [other for other in self._connections.values() if other.user.id == connection.user.id]
            here = sum(other.session_id == connection.session_id for other in mine)
            if (
                len(self._connections) >= self.settings.socket_limit
                or len(mine) >= self.settings.max_connections_per_user
                or here >= self.settings.max_connections_per_session
            ):
                raise too_many_connections()
            self._connections[connection.id] = connection

    def _drop(self, connection: Connection) -> None:
        with self._lock:
            self._connections.pop(connection.id, None)

    def _attach(self, feed: Feed, connection: Connection, *, since: Cursor | None, online: set[str]) -> Iterator[None]:
        for _ in attach(self._reader, feed, connection, since=since, online=online):
            self._follow_up(feed)
            yield
        self._follow_up(feed)

    def leave(self, feed: Feed, connection: Connection) -> None:
        """Let a connection go; its user's last one is told to the others."""
        feed.detach(connection)
        self._drop(connection)
        self._attendance.depart(connection, feed.online_here())

    @contextmanager
    def lingering(self) -> Iterator[bool]:
        """Hold a place among those that wait for a viewer to close; False where there is none."""
        allowed = self._lingering.acquire(blocking=False)
        try:
            yield allowed
        finally:
            if allowed:
                self._lingering.release()

    # What time brings

    def _guarded(self, work: Callable[[threading.Event], None]) -> None:
        while not self._stopping.is_set():
            try:
                work(self._stopping)
            except Exception:  # these threads serve everyone: one bad moment must not end them
                log.exception("a hub thread stumbled", extra={"action": threading.current_thread().name})
                self._stopping.wait(STUMBLED_SECONDS)

    def _tell_redis(self, stopping: threading.Event) -> None:
        while not stopping.wait(TELL_SECONDS):
            self._attendance.report()
            for (session_id, user_id), is_typing in self._indicators.due():
                self.tell(session_id, typing_indicator(user_id, is_typing))

    def shut_down(self) -> None:
        """Close every connection with 1012, so that its client comes back elsewhere; bounded, safe to repeat."""
        with self._lock:  # who is let in is either among these or told so
            self._stopping.set()
            present = list(self._connections.values())
        for connection in present:
            connection.close(RESTARTING, ErrorCode.SERVER_RESTARTING, "The server restarts.")
        # Now: with its last connection the server ends the process, and with it this thread.
        self._attendance.end()
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        while self._connections and time.monotonic() < deadline:
            for connection in list(self._connections.values()):
                connection.outbox.pump()
            time.sleep(0.02)
        for connection in list(self._connections.values()):
            connection.outbox.drop()
        self._subscriber.stop()
        self._end_threads()

    def _end_threads(self) -> None:
        """Wait until nobody here uses the database or Redis any more; bounded."""
        self._keeper.poke()
        self._clock.wanted.set()
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
