"""One process's fan-out: one subscription, and a feed for every chat session that someone watches here.

Three threads serve all connections: the subscriber takes what is published, the clock sends what is due,
the keeper compares with the database, so that what was lost on the way arrives all the same.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

from chat_backend.bootstrap import Backend
from chat_backend.domain.enums import EventType
from chat_backend.domain.errors import ChatError, ErrorCode, NotFound, TooMany
from chat_backend.protocol.envelope import Closed, Delta, Durable, Ephemeral, unpack
from chat_backend.protocol.events import message_shape, presence
from chat_backend.realtime.channels import session_channel
from chat_backend.realtime.connection import RedisAway, client
from chat_backend.realtime.live_text import read_live_texts
from chat_backend.realtime.presence import Presence, ProcessCensus
from chat_backend.realtime.publisher import Publisher
from chat_backend.realtime.subscriber import Subscriber
from chat_backend.services import events, participants
from chat_backend.web.websocket.connection import (
    CLOSING_SECONDS,
    NO_PARTICIPANT,
    NO_SESSION,
    RESTARTING,
    TRY_AGAIN,
    UNAUTHENTICATED,
    Connection,
)
from chat_backend.web.websocket.feed import Feed, Truth

log = logging.getLogger(__name__)

TICK_SECONDS = 0.025
CHECK_SECONDS = 1.0
CATCH_UP_WITHOUT_REDIS_SECONDS = 0.5
PRESENCE_SECONDS = 20.0
CENSUS_SECONDS = 5.0
OFFSETS_AT_ONCE = 500
JOIN_TRIES = 5
SHUTDOWN_SECONDS = 2.0
_CHANNEL_PREFIX = session_channel("")


class Hub:
    """Everyone who watches in this process."""

    def __init__(self, backend: Backend, publisher: Publisher) -> None:
        self.id = uuid4().hex
        self.backend = backend
        self.settings = backend.settings
        self._publisher = publisher
        self._redis = client(self.settings)
        self.presence = Presence(self._redis, self.settings)
        self.census = ProcessCensus(self._redis)
        self._lock = threading.Lock()
        self._feeds: dict[UUID, Feed] = {}
        self._connections: dict[str, Connection] = {}
        self._stopping = threading.Event()
        self._poked = threading.Event()
        self._tick_wanted = threading.Event()
        self._subscriber = Subscriber(self.settings, receive=self._receive, lost_touch=self._lost_touch)
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=work.__name__.strip("_"), daemon=True)
            for work in (self._clock, self._keeper)
        ]
        self._started = False

    @property
    def count(self) -> int:
        """The open connections of this process."""
        return len(self._connections)

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
        feed = (
            self._feeds.get(UUID(channel.removeprefix(_CHANNEL_PREFIX)))
            if channel.startswith(_CHANNEL_PREFIX)
            else None
        )
        if feed is None:
            return
        try:
            envelope = unpack(data)
            self._take(feed, envelope)
        except (ValueError, KeyError, TypeError, AttributeError):
            # Whoever reaches Redis can publish anything: it is ignored, never passed on.
            log.warning("ignored an envelope that is none", extra={"action": "receive"})
        if feed.needs_refresh or feed.participants_changed:
            self._poked.set()
        if feed.needs_tick:
            self._tick_wanted.set()

    def _take(self, feed: Feed, envelope: Durable | Delta | Ephemeral | Closed) -> None:
        match envelope:
            case Delta():
                feed.delta(envelope)
            case Durable():
                feed.durable(envelope)
            case Ephemeral():
                feed.ephemeral(envelope.body)
            case Closed():
                feed.needs_refresh = True

    def _lost_touch(self) -> None:
        """Something may have been published that nobody here heard."""
        with self._lock:
            feeds = list(self._feeds.values())
        for feed in feeds:
            feed.needs_refresh = True
        self._poked.set()

    def tell(self, session_id: UUID, body: dict[str, Any]) -> None:
        """Show an ephemeral frame to everyone in a chat session; while Redis is away, to everyone here."""
        if self._publisher.publish([(session_id, Ephemeral(body))]):
            return
        feed = self._feeds.get(session_id)
        if feed is not None:
            feed.ephemeral(body)
            self._tick_wanted.set()

    # Who comes and goes

    @contextmanager
    def feed(self, session_id: UUID) -> Iterator[Feed]:
        """Hold the feed of a chat session, loaded. Raises NotFound, Unavailable."""
        feed = self._acquire(session_id)
        try:
            with feed.load_lock:
                if not feed.loaded:
                    self._subscriber.subscribe(session_channel(session_id))
                    self.refresh(feed)
            if feed.gone:
                raise NotFound("There is no such chat session.")
            yield feed
        finally:
            self._release(feed)

    def _acquire(self, session_id: UUID) -> Feed:
        with self._lock:
            feed = self._feeds.get(session_id)
            if feed is None:
                feed = Feed(session_id, typing_seconds=self.settings.typing_seconds)
                self._feeds[session_id] = feed
            feed.users += 1
            return feed

    def _release(self, feed: Feed) -> None:
        with self._lock:
            feed.users -= 1
            if feed.users:
                return
            self._feeds.pop(feed.session_id, None)
            # Under the lock: a newcomer must not find itself subscribed and then lose it.
            self._subscriber.unsubscribe(session_channel(feed.session_id))

    def join(self, feed: Feed, connection: Connection, *, since: int | None) -> None:
        """Let a connection in: greeting, replay, baselines, then live. Raises TooMany, Unavailable."""
        self._admit(connection)
        try:
            online = self._count_in(connection) | {connection.user.id}
            self._attach(feed, connection, since=since, online=online)
        except BaseException:
            self._drop(connection)
            raise
        self._tick_wanted.set()

    def _admit(self, connection: Connection) -> None:
        with self._lock:
            mine = [other for other in self._connections.values() if other.user.id == connection.user.id]
            here = sum(other.session_id == connection.session_id for other in mine)
            if (
                self._stopping.is_set()
                or len(self._connections) >= self.settings.socket_limit
                or len(mine) >= self.settings.max_connections_per_user
                or here >= self.settings.max_connections_per_session
            ):
                raise too_many_connections()
            self._connections[connection.id] = connection

    def _drop(self, connection: Connection) -> None:
        with self._lock:
            self._connections.pop(connection.id, None)

    def _count_in(self, connection: Connection) -> set[str]:
        try:
            joined = self.presence.join(connection.session_id, connection.user.id, connection.id)
        except RedisAway as error:
            log.warning("presence is stale", extra={"action": "presence", "error": type(error).__name__})
            return self._online_here(connection.session_id)
        if joined.refused:
            raise too_many_connections()
        if joined.first:
            self.tell(connection.session_id, presence(EventType.USER_JOINED, connection.user.id, joined.online))
        return set(joined.online)

    def _online_here(self, session_id: UUID) -> set[str]:
        feed = self._feeds.get(session_id)
        return feed.online_here() if feed else set()

    def _attach(self, feed: Feed, connection: Connection, *, since: int | None, online: set[str]) -> None:
        for _ in range(JOIN_TRIES):
            current, replay = self._read_log(feed.session_id, since)
            if current > feed.offset:
                self.refresh(feed)
            if replay is None:
                break
            if feed.attach(connection, since=since or 0, replay=replay, online=online):
                return
        feed.attach_afresh(connection, online=online)

    def _read_log(self, session_id: UUID, since: int | None) -> tuple[int, list[Durable] | None]:
        with self.backend.reading() as session:
            current = events.current_offset(session, session_id)
            if current is None:
                raise NotFound("There is no such chat session.")
            if since is None or not events.can_replay(session, session_id, since, current):
                return current, None
            return current, events.after(session, session_id, since, limit=current - since)

    def leave(self, feed: Feed, connection: Connection) -> None:
        """Let a connection go; its user's last one is told to the others."""
        feed.detach(connection)
        self._drop(connection)
        try:
            online = self.presence.leave(connection.session_id, connection.user.id, connection.id)
        except RedisAway as error:
            log.warning("presence is stale", extra={"action": "presence", "error": type(error).__name__})
            online = frozenset(feed.online_here())
        if online is not None and connection.user.id not in online:
            self.tell(connection.session_id, presence(EventType.USER_LEFT, connection.user.id, online))

    # What the database says

    def refresh(self, feed: Feed) -> None:
        """Read what a feed has missed and show it. Raises Unavailable."""
        with self.backend.reading() as session:
            offset = events.current_offset(session, feed.session_id)
            if offset is None:
                self._close_gone(feed)
                return
            missed = []
            if feed.loaded and offset > feed.offset:
                missed = events.after(session, feed.session_id, feed.offset, limit=offset - feed.offset)
            replies = [message_shape(message) for message in events.in_progress(session, [feed.session_id])]
        feed.reconcile(Truth(offset, missed, self._with_live_text(replies)))

    def _with_live_text(self, replies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        try:
            texts = read_live_texts(self._redis, [(reply["id"], reply["attempt"]) for reply in replies])
        except RedisAway:
            return replies  # the checkpoints must do
        return [
            reply | {"content": text} if len(text) > len(reply["content"]) else reply
            for reply, text in zip(replies, texts, strict=True)
        ]

    def _close_gone(self, feed: Feed) -> None:
        with feed.lock:
            feed.gone, feed.needs_refresh = True, False
            for connection in list(feed.connections.values()):
                connection.close(NO_SESSION, ErrorCode.NOT_FOUND, "The chat session was deleted.")

    # What time brings

    def _guarded(self, work: Any) -> None:
        while not self._stopping.is_set():
            try:
                work()
            except Exception:  # these threads serve everyone: one bad moment must not end them
                log.exception("a hub thread stumbled", extra={"action": work.__name__})
                self._stopping.wait(CHECK_SECONDS)

    def _clock(self) -> None:
        checked = 0.0
        while not self._stopping.is_set():
            at = time.monotonic()
            if at - checked >= CHECK_SECONDS:
                checked = at
                self._check_connections(at)
            self._tick_wanted.clear()
            if self._tick_feeds(at):
                self._stopping.wait(TICK_SECONDS)
            else:
                self._tick_wanted.wait(CHECK_SECONDS)

    def _tick_feeds(self, at: float) -> bool:
        again = False
        for feed in list(self._feeds.values()):
            if feed.needs_tick:
                feed.tick(at)
                again |= feed.needs_tick
        return again

    def _check_connections(self, at: float) -> None:
        for connection in list(self._connections.values()):
            blocked = connection.outbox.blocked_since
            if connection.closing_since is not None:
                if at - connection.closing_since > CLOSING_SECONDS:
                    connection.outbox.drop()
                else:
                    connection.outbox.pump()
            elif blocked is not None and at - blocked > self.settings.send_timeout_seconds:
                connection.cut(TRY_AGAIN, "too slow")
            elif connection.expired():
                connection.close(UNAUTHENTICATED, ErrorCode.UNAUTHENTICATED, "The token has expired.")
            elif at - connection.last_ping_at >= self.settings.ping_seconds:
                self._ping(connection, at)

    def _ping(self, connection: Connection, at: float) -> None:
        connection.last_ping_at = at
        if not connection.outbox.keep_alive():
            connection.outbox.drop()

    def _keeper(self) -> None:
        compared = refreshed = counted = float("-inf")
        told = 0
        while not self._stopping.is_set():
            interval = self.settings.catch_up_seconds if self._subscriber.connected else CATCH_UP_WITHOUT_REDIS_SECONDS
            self._poked.wait(min(interval, self.settings.catch_up_seconds))
            self._poked.clear()
            at = time.monotonic()
            try:
                self._refresh_wanting()
                if at - compared >= min(interval, self.settings.catch_up_seconds):
                    compared = at
                    self._compare()
            except ChatError:
                self._stopping.wait(CATCH_UP_WITHOUT_REDIS_SECONDS)  # the database is away: it was logged
            if at - counted >= CENSUS_SECONDS or self.count != told:
                counted, told = at, self.count
                self._tell_census()
            if at - refreshed >= PRESENCE_SECONDS:
                refreshed = at
                self._tell_presence()

    def _refresh_wanting(self) -> None:
        for feed in list(self._feeds.values()):
            if feed.needs_refresh and feed.loaded and not feed.gone:
                self.refresh(feed)
            if feed.participants_changed:
                self._check_participants(feed)

    def _check_participants(self, feed: Feed) -> None:
        feed.participants_changed = False
        with self.backend.reading() as session:
            roles = participants.roles(session, feed.session_id)
        with feed.lock:
            for connection in list(feed.connections.values()):
                role = roles.get(connection.user.id)
                if role is not None:
                    connection.role = role
                    continue
                feed.detach(connection)
                connection.close(NO_PARTICIPANT, ErrorCode.NOT_A_PARTICIPANT, "You are no longer a participant.")

    def _compare(self) -> None:
        feeds = [feed for feed in list(self._feeds.values()) if feed.loaded and not feed.gone]
        at = time.monotonic()
        for portion in _portions(feeds, OFFSETS_AT_ONCE):
            with self.backend.reading() as session:
                offsets = events.current_offsets(session, [feed.session_id for feed in portion])
            for feed in portion:
                behind = offsets.get(feed.session_id, -1) != feed.offset
                if behind or feed.stale(at, self.settings.catch_up_seconds) or not self._subscriber.connected:
                    self.refresh(feed)
                if feed.needs_tick:
                    self._tick_wanted.set()

    def _tell_census(self) -> None:
        try:
            self.census.report_web(self.id, self.count)
        except RedisAway as error:
            log.debug("not counted", extra={"action": "census", "error": type(error).__name__})

    def _tell_presence(self) -> None:
        connections = list(self._connections.values())
        try:
            self.presence.refresh((c.session_id, c.user.id, c.id) for c in connections)
            for session_id in {connection.session_id for connection in connections}:
                gone, online = self.presence.prune(session_id)
                for user_id in gone:
                    self.tell(session_id, presence(EventType.USER_LEFT, user_id, online))
        except RedisAway as error:
            log.debug("presence is stale", extra={"action": "presence", "error": type(error).__name__})

    def shut_down(self) -> None:
        """Close every connection with 1012, so that its client comes back elsewhere; bounded, safe to repeat."""
        self._stopping.set()
        for connection in list(self._connections.values()):
            connection.close(RESTARTING, ErrorCode.SERVER_RESTARTING, "The server restarts.")
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        while self._connections and time.monotonic() < deadline:
            for connection in list(self._connections.values()):
                connection.outbox.pump()
            time.sleep(0.02)
        for connection in list(self._connections.values()):
            connection.outbox.drop()
        self._subscriber.stop()
        try:
            self.census.leave(self.id)
        except RedisAway as error:
            log.debug("not counted out", extra={"action": "census", "error": type(error).__name__})


def too_many_connections() -> TooMany:
    return TooMany("Too many connections are open.", code=ErrorCode.TOO_MANY_CONNECTIONS, retry_after_seconds=5)


def _portions(feeds: Sequence[Feed], size: int) -> Iterator[Sequence[Feed]]:
    for start in range(0, len(feeds), size):
        yield feeds[start : start + size]
