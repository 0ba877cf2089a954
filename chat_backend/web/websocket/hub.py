"""One process's fan-out: one subscription, and a feed for every chat session that someone watches here.

Four threads serve all connections: the subscriber takes what is published, the clock sends what is due,
the keeper compares with the database, so that what was lost on the way arrives all the same, and the
teller tells Redis who is here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.orm import Session

from chat_backend.bootstrap import Backend
from chat_backend.domain.errors import ChatError, ErrorCode, NotFound, Restarting
from chat_backend.domain.outage import Outage
from chat_backend.protocol.envelope import Closed, Delta, Durable, Ephemeral, unpack
from chat_backend.protocol.events import message_shape
from chat_backend.realtime.channels import session_channel
from chat_backend.realtime.connection import RedisAway, client
from chat_backend.realtime.live_text import read_live_texts
from chat_backend.realtime.publisher import Publisher
from chat_backend.realtime.subscriber import Subscriber
from chat_backend.services import events, participants
from chat_backend.services.access import no_such
from chat_backend.web.websocket.attendance import Attendance, portions, too_many_connections
from chat_backend.web.websocket.connection import (
    CLOSING_SECONDS,
    NO_PARTICIPANT,
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
TELL_SECONDS = 1.0
OFFSETS_AT_ONCE = 500
EVENTS_AT_ONCE = 100
REPLAY_BYTES = 1_048_576
JOIN_TRIES = 5
SHUTDOWN_SECONDS = 2.0


@dataclass(frozen=True)
class Log:
    """A look into a chat session's log: where it stands, the next events, None where they can't be replayed.

    `replies` are those in progress, with at least the text that the events show.
    """

    offset: int
    events: list[Durable] | None = None
    replies: list[dict[str, Any]] = field(default_factory=list)

    def reached_by(self, offset: int) -> bool:
        """Whether who has seen all up to an offset has, with these events, seen everything."""
        return (self.events[-1].offset if self.events else offset) >= self.offset


class Hub:
    """Everyone who watches in this process."""

    def __init__(self, backend: Backend, publisher: Publisher) -> None:
        self.id = uuid4().hex
        self.backend = backend
        self.settings = backend.settings
        self._publisher = publisher
        self._redis = client(self.settings)
        # A Redis that hangs costs one feed its wait, not each of hundreds.
        self._live_outage = Outage(failures=1)
        self._lock = threading.Lock()
        self._feeds: dict[str, Feed] = {}  # by channel, so that what is published is not parsed to be delivered
        self._connections: dict[str, Connection] = {}
        self._stopping = threading.Event()
        self._poked = threading.Event()
        self._tick_wanted = threading.Event()
        self._subscriber = Subscriber(self.settings, receive=self._receive, lost_touch=self._lost_touch)
        self._attendance = Attendance(
            self._redis, self.settings, process_id=self.id, connections=self._connections, tell=self.tell
        )
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=work.__name__.strip("_"), daemon=True)
            for work in (self._clock, self._keeper, self._teller)
        ]
        self._started = False
        self._touch_lost = False
        # Sockets that have ended, but whose last words are still on their way, hold a thread each. Beyond so many
        # nobody is waited for: refused strangers must not take the threads that answer /health.
        self._lingering = threading.BoundedSemaphore(16 if self.settings.is_sqlite else 1000)

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
        feed = self._feeds.get(channel)
        if feed is None:
            return  # the anchor, or nobody watches any more
        try:
            self._take(feed, unpack(data))
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
        self._touch_lost = True
        self._poked.set()

    def tell(self, session_id: UUID, body: dict[str, Any]) -> None:
        """Show an ephemeral frame to everyone in a chat session; while Redis is away, to everyone here."""
        if self._publisher.publish([(session_id, Ephemeral(body))]):
            return
        feed = self._feeds.get(session_channel(session_id))
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
            self._feeds.pop(session_channel(feed.session_id), None)
            # Under the lock: a newcomer must not find itself subscribed and then lose it.
            self._subscriber.unsubscribe(session_channel(feed.session_id))

    def join(self, feed: Feed, connection: Connection, *, since: int | None) -> Iterator[None]:
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

    def _attach(self, feed: Feed, connection: Connection, *, since: int | None, online: set[str]) -> Iterator[None]:
        if since is not None:
            connection.offset = since
            yield from self._replay(feed, connection, online=online)
        elif feed.offset < connection.admitted_at:
            self.refresh(feed)
        if connection.id in feed.connections or connection.closing:
            return
        if not feed.attach_afresh(connection, online=online):
            raise no_such("chat session")
        self._attached(feed)

    def _replay(self, feed: Feed, connection: Connection, *, online: set[str]) -> Iterator[None]:
        """Show a connection what it has missed, and let it go live; neither where that can't be replayed."""
        tries = 0
        while tries < JOIN_TRIES and not connection.closing:
            log = self._read_log(feed, since=connection.offset)
            if log.events is None:
                break
            if not log.reached_by(connection.offset):
                feed.replay(connection, log.events, online=online)
                yield
            elif feed.attach(connection, log.events, online=online):
                self._attached(feed)
                return
            else:
                tries += 1  # the log ran away meanwhile
        if connection.greeted:
            connection.close(TRY_AGAIN, ErrorCode.TOO_SLOW, "The log is faster than you: come back.")

    def _attached(self, feed: Feed) -> None:
        self._tick_wanted.set()
        if feed.participants_changed:
            self._poked.set()

    def _read_log(self, feed: Feed, *, since: int) -> Log:
        """Look into the log, and see to it that the feed knows no less. Raises NotFound, Unavailable."""
        with self._snapshot() as session:
            log = _log(session, feed.session_id, since=since)
        if log.offset > feed.offset:
            self.refresh(feed)
        if log.replies:
            # Live text may be away while the checkpoints are not: a baseline must not show less than the replay.
            feed.reconcile(Truth(log.offset, [], log.replies))
        return log

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

    # What the database says

    @contextmanager
    def _snapshot(self) -> Iterator[Session]:
        """Open a transaction in which all reads see one moment."""
        with self.backend.reading() as session:
            if self.backend.engine.dialect.name == "postgresql":
                session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session

    def refresh(self, feed: Feed) -> None:
        """Read what a feed has missed and show it. Raises Unavailable."""
        # Before the reading: what turns out to be missing while we read is to be read again.
        feed.needs_refresh = False
        try:
            while not self._refreshed(feed):
                continue
        except BaseException:
            feed.needs_refresh = True
            raise
        if feed.participants_changed:
            self._poked.set()

    def _refreshed(self, feed: Feed) -> bool:
        """Read some of what a feed has missed; say whether that was all."""
        known = feed.offset
        with self._snapshot() as session:
            offset = events.current_offset(session, feed.session_id)
            if offset is None:
                feed.close()
                return True
            missed = []
            if feed.loaded and offset > known:
                missed = events.after(session, feed.session_id, known, limit=EVENTS_AT_ONCE)
            replies = [message_shape(message) for message in events.in_progress(session, [feed.session_id])]
        if missed and missed[-1].offset < offset:
            feed.reconcile(Truth(offset, missed, []))
            return False
        truth = Truth(offset, missed, self._with_live_text(replies))
        if feed.loaded and not _follows(known, truth):
            feed.start_over(truth)
        else:
            feed.reconcile(truth)
        return True

    def _with_live_text(self, replies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not replies or not self._live_outage.over():
            return replies  # the checkpoints must do
        try:
            texts = read_live_texts(self._redis, [(reply["id"], reply["attempt"]) for reply in replies])
        except RedisAway:
            self._live_outage.failed()
            return replies
        self._live_outage.succeeded()
        return [
            reply | {"content": text} if len(text) > len(reply["content"]) else reply
            for reply, text in zip(replies, texts, strict=True)
        ]

    # What time brings

    def _guarded(self, work: Callable[[], None]) -> None:
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
                connection.cut(TRY_AGAIN, "You do not read.")
            elif connection.outbox.gone:
                connection.outbox.drop()
            elif connection.expired():
                connection.close(UNAUTHENTICATED, ErrorCode.UNAUTHENTICATED, "The token has expired.")
            elif at - connection.last_ping_at >= self.settings.ping_seconds:
                self._ping(connection, at)

    def _ping(self, connection: Connection, at: float) -> None:
        connection.last_ping_at = at
        if not connection.outbox.keep_alive():
            connection.outbox.drop()

    def _keeper(self) -> None:
        compared = float("-inf")
        while not self._stopping.is_set():
            interval = self.settings.catch_up_seconds
            if not self._subscriber.connected:
                interval = min(interval, CATCH_UP_WITHOUT_REDIS_SECONDS)
            self._poked.wait(interval)
            self._poked.clear()
            at = time.monotonic()
            try:
                self._refresh_wanting()
                lost, self._touch_lost = self._touch_lost, False
                if lost or at - compared >= interval:
                    compared = at
                    # What was lost on the way shows as silence; without Redis there is nothing else.
                    self._compare(quiet_seconds=0.0 if lost or not self._subscriber.connected else interval)
            except ChatError:
                self._stopping.wait(CATCH_UP_WITHOUT_REDIS_SECONDS)  # the database is away: it was logged

    def _teller(self) -> None:
        while not self._stopping.wait(TELL_SECONDS):
            self._attendance.report()

    def _refresh_wanting(self) -> None:
        for feed in list(self._feeds.values()):
            if feed.needs_refresh and feed.loaded and not feed.gone:
                self.refresh(feed)
            if feed.participants_changed:
                self._check_participants(feed)

    def _check_participants(self, feed: Feed) -> None:
        feed.participants_changed = False
        try:
            with self.backend.reading() as session:
                roles = participants.roles(session, feed.session_id)
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
            with self.backend.reading() as session:
                offsets = events.current_offsets(session, [feed.session_id for feed in portion])
            for feed in portion:
                offset = offsets.get(feed.session_id)
                if feed.fell_behind(offset, at_once=not quiet_seconds) or feed.stale(at, quiet_seconds):
                    self.refresh(feed)
                if feed.needs_tick:
                    self._tick_wanted.set()

    def shut_down(self) -> None:
        """Close every connection with 1012, so that its client comes back elsewhere; bounded, safe to repeat."""
        self._stopping.set()
        for connection in list(self._connections.values()):
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


def _log(session: Session, session_id: UUID, *, since: int) -> Log:
    current = events.current_offset(session, session_id)
    if current is None:
        raise no_such("chat session")
    if not events.can_replay(session, session_id, since, current):
        return Log(current)
    found = list(_bounded(events.after(session, session_id, since, limit=EVENTS_AT_ONCE)))
    shown = events.in_progress(session, [session_id]) if found else []
    return Log(current, found, [message_shape(message) for message in shown])


def _follows(known: int, truth: Truth) -> bool:
    """Whether the log goes on from what is known; else events were forgotten, or a database lost its last commits."""
    if truth.offset <= known:
        return truth.offset == known
    return bool(truth.events) and truth.events[0].offset == known + 1


def _bounded(found: Sequence[Durable]) -> Iterator[Durable]:
    """Return the first of these events: as many as one may send at once, and one at least."""
    size = 0
    for event in found:
        if size and size + len(event.frame) > REPLAY_BYTES:
            return
        size += len(event.frame)
        yield event
