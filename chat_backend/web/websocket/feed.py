"""One chat session as one hub knows it: where its log stands, what is being written, who watches.

Everything here happens in memory under the feed's lock. What does not fit (a gap, an unknown attempt) is
not guessed at: `needs_refresh` is set, and the hub reads the truth from the database.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from chat_backend.domain.cursor import Cursor
from chat_backend.domain.enums import Action, EventType, JobStatus, MessageStatus, Role, has_ended
from chat_backend.domain.errors import ErrorCode
from chat_backend.models.base import now
from chat_backend.protocol.envelope import Delta, Durable
from chat_backend.protocol.events import (
    connection_established,
    encode,
    encode_delta,
    framed,
    read_durable,
    typing_indicator,
)
from chat_backend.web.websocket.connection import NO_SESSION, RESTARTING, Connection
from chat_backend.web.websocket.frames import Encoded
from chat_backend.web.websocket.indicators import Indicators
from chat_backend.web.websocket.reply import Reply

REMEMBERED_EVENTS = 256
REMEMBERED_BYTES = 1_048_576
REMEMBERED_ENDS = 64
SNAPSHOT_SECONDS = 0.25
SNAPSHOT_BYTES_PER_SECOND = 256 * 1024


def _cursor(event: Durable) -> Cursor:
    return Cursor(event.offset, event.tag)


@dataclass(frozen=True)
class Truth:
    """What the database and Redis say: the offset, the events after ours, the replies in progress.

    The tag is that of the event at the offset; None if it is not known.
    """

    offset: int
    events: list[Durable]
    replies: list[dict[str, Any]]
    tag: str | None = None


class Feed:
    """The fan-out of one chat session in one process."""

    def __init__(self, session_id: UUID, *, typing_seconds: float) -> None:
        self.session_id = session_id
        self.lock = threading.RLock()
        self.load_lock = threading.Lock()
        self.users = 0
        self.loaded = False
        self.gone = False
        self.needs_refresh = False
        self.needs_tick = False
        self._expected: int | None = None
        self.participants_changed = False
        self.offset = 0
        self._tag: str | None = None
        self.replies: dict[str, Reply] = {}
        self.connections: dict[str, Connection] = {}
        self._recent: deque[Durable] = deque()
        self._recent_bytes = 0
        self._ended: deque[str] = deque(maxlen=REMEMBERED_ENDS)
        self._waiters: dict[str, list[Callable[[], None]]] = {}
        self._typing: dict[str, float] = {}
        self._typing_seconds = typing_seconds
        self._indicators: Indicators[str] = Indicators(typing_seconds)

    @property
    def cursor(self) -> Cursor:
        """The position of the newest event that was taken."""
        with self.lock:
            return Cursor(self.offset, self._tag)

    # What comes in

    def durable(self, event: Durable) -> None:
        """Take a durable event: the next is shown, a known one ignored, a later one means a gap.

        One with the offset of another means that the log was written anew: the database was restored.
        Raises ValueError for what is no event, and has then done nothing.
        """
        frame = read_durable(event)
        with self.lock:
            if not self.loaded or event.offset > self.offset + 1:
                self.needs_refresh = True
            elif event.offset == self.offset + 1:
                self._apply(event, frame)
            elif not self._is_known(event):
                self.needs_refresh = True

    def _is_known(self, event: Durable) -> bool:
        """Return whether an event of the past is, as far as is remembered, the one that has its offset here."""
        place = len(self._recent) - 1 - (self.offset - event.offset)
        known = self.cursor if event.offset == self.offset else _cursor(self._recent[place]) if place >= 0 else None
        return known is None or known.agrees(_cursor(event))

    def _apply(self, event: Durable, frame: dict[str, Any]) -> None:
        self.offset, self._tag = event.offset, event.tag
        self._remember(event)
        self._show(event)
        if frame["type"] == EventType.MESSAGE_UPDATE:
            self._message_updated(frame.get("action"), frame["message"])
        elif frame["type"] == EventType.JOB_UPDATE:
            self._job_updated(frame["job"])
        else:
            self.participants_changed = True

    def _remember(self, event: Durable) -> None:
        self._recent.append(event)
        self._recent_bytes += len(event.frame)
        while len(self._recent) > REMEMBERED_EVENTS or self._recent_bytes > REMEMBERED_BYTES:
            self._recent_bytes -= len(self._recent.popleft().frame)

    def _show(self, event: Durable) -> None:
        plain = Encoded(event.frame, _cursor(event))
        named = plain.naming(event.request_id) if event.request_id else plain
        for connection in self.connections.values():
            connection.show_durable(named if connection.user.id == event.user_id else plain)
            self.needs_tick |= connection.unsettled

    def _message_updated(self, action: str | None, message: dict[str, Any]) -> None:
        if message["role"] != Role.ASSISTANT or message["job_id"] is None:
            if action == Action.NEW_MESSAGE and isinstance(message.get("user_id"), str):
                self._typed(message["user_id"], False)
            return
        if message["status"] not in (MessageStatus.PENDING, MessageStatus.STREAMING):
            self._reply_ended(message["id"])
            return
        reply = self.replies.get(message["id"])
        if reply is None:
            reply = self.replies[message["id"]] = Reply(message)
        elif message["attempt"] > reply.attempt:
            reply.restart(message["attempt"], message)
        for connection in self.connections.values():
            connection.shown(reply.message_id, message["attempt"], len(message["content"]))
            if len(reply.text) > len(message["content"]):
                connection.owed[reply.message_id] = reply
                self.needs_tick = True

    def _reply_ended(self, message_id: str) -> None:
        self._ended.append(message_id)
        self.replies.pop(message_id, None)
        for connection in self.connections.values():
            connection.forget(message_id)

    def _job_updated(self, job: dict[str, Any]) -> None:
        reply = self.replies.get(job["assistant_message_id"])
        if reply and job["status"] == JobStatus.RUNNING and job["attempt"] > reply.attempt:
            reply.restart(job["attempt"])
        if reply and job["attempts"]:
            reply.answered_by(job["attempts"][-1])
        if has_ended(job["status"]):
            for wake in self._waiters.pop(job["id"], []):
                wake()

    def delta(self, delta: Delta) -> None:
        """Take a piece of a reply; a piece that does not fit means that one before it was lost."""
        with self.lock:
            if delta.message_id in self._ended:
                return
            reply = self.replies.get(delta.message_id)
            if not self.loaded or reply is None or delta.attempt > reply.attempt:
                self.needs_refresh = True
            elif delta.attempt == reply.attempt:
                self._grow(reply, delta.start, delta.text)

    def _grow(self, reply: Reply, start: int, text: str) -> None:
        before = len(reply.text)
        new = reply.grow(start, text)
        if new is None:
            self.needs_refresh = True
        elif new:
            reply.last_grown_at = time.monotonic()
            self._show_piece(reply, before, new)

    def _show_piece(self, reply: Reply, start: int, text: str) -> None:
        encoded = None
        for connection in self.connections.values():
            if connection.deltas:
                encoded = encoded or Encoded(
                    encode_delta(reply.delta_head(self.session_id), start=start, text=text, at=now())
                )
                connection.show_piece(reply, start, encoded)
                self.needs_tick |= connection.unsettled
            else:
                reply.snapshot_due = True
        if reply.snapshot_due:
            self._show_snapshot(reply)

    def _show_snapshot(self, reply: Reply) -> None:
        at = time.monotonic()
        if at < reply.next_snapshot_at:
            self.needs_tick = True
            return
        encoded = self._encode(reply.snapshot())
        reply.snapshot_due = False
        reply.next_snapshot_at = at + max(SNAPSHOT_SECONDS, len(encoded.data) / SNAPSHOT_BYTES_PER_SECOND)
        for connection in self.connections.values():
            if not connection.deltas:
                connection.show_snapshot(reply, encoded)
                self.needs_tick |= connection.unsettled

    def ephemeral(self, body: dict[str, Any]) -> None:
        """Show a frame that is not kept, to all but the user it speaks of."""
        with self.lock:
            if body["type"] == EventType.TYPING_INDICATOR:
                self._typed(body["user_id"], bool(body["is_typing"]))
                return
            if body["type"] == EventType.USER_LEFT:
                self._typed(body["user_id"], False)
            self._show_to_others(body)

    def _typed(self, user_id: str, is_typing: bool) -> None:
        self._typing.pop(user_id, None)
        if is_typing:
            self._typing[user_id] = time.monotonic() + self._typing_seconds
        if self._indicators.take(user_id, is_typing):
            self._show_to_others(typing_indicator(user_id, is_typing))
        self.needs_tick |= bool(self._typing) or self._indicators.waiting

    def _show_to_others(self, body: dict[str, Any]) -> None:
        encoded = self._encode(body)
        for connection in self.connections.values():
            if connection.user.id != body["user_id"]:
                connection.push(encoded)

    def _encode(self, body: dict[str, Any]) -> Encoded:
        return Encoded(encode(framed(body, self.session_id, now())))

    # What the database says

    def reconcile(self, truth: Truth) -> None:
        """Take what was missed. Events go on from where the log stands; texts of one attempt only grow."""
        with self.lock:
            if not self.loaded:
                self.loaded, self.offset, self._tag = True, truth.offset, truth.tag
            for event in truth.events:
                if event.offset == self.offset + 1:
                    self._apply(event, read_durable(event))
            for message in truth.replies:
                self._recover(message)

    def start_over(self, truth: Truth) -> None:
        """The log is not the one that was shown: a database came back without its last commits, or restored.

        Every viewer is sent away, to come back and be told.
        """
        with self.lock:
            for connection in self.connections.values():
                connection.close(RESTARTING, ErrorCode.SERVER_RESTARTING, "The log has moved: come back.")
            self.offset, self._tag = truth.offset, truth.tag
            self.replies = {message["id"]: Reply(message) for message in truth.replies}
            self._recent.clear()
            self._ended.clear()
            self._recent_bytes = 0

    def close(self) -> None:
        """The chat session is gone."""
        with self.lock:
            self.gone, self.needs_refresh = True, False
            for connection in self.connections.values():
                connection.close(NO_SESSION, ErrorCode.NOT_FOUND, "The chat session was deleted.")

    def _recover(self, message: dict[str, Any]) -> None:
        if message["id"] in self._ended:
            return
        reply = self.replies.get(message["id"])
        if reply is None:
            self.replies[message["id"]] = Reply(message)
        elif message["attempt"] >= reply.attempt:
            if message["attempt"] > reply.attempt:
                reply.restart(message["attempt"])
            text = message["content"]
            self._grow(reply, min(len(reply.text), len(text)), text[len(reply.text) :])

    # Who watches

    def replay(self, connection: Connection, events: Iterable[Durable], *, online: Iterable[str]) -> None:
        """Greet a connection, unless that was done, and show it some of what it has missed."""
        with self.lock:
            self._greet(connection, recovered=True, online=online)
            for event in events:
                plain = Encoded(event.frame, _cursor(event))
                mine = event.request_id and connection.user.id == event.user_id
                connection.show_durable(plain.naming(event.request_id) if mine and event.request_id else plain)

    def attach(self, connection: Connection, events: list[Durable], *, online: Iterable[str]) -> bool:
        """Greet a connection, show it the last of what it has missed, then what is being written; then it is live.

        False where the log has moved on further than is remembered here: read again and come back.
        """
        with self.lock:
            upto = events[-1].offset if events else connection.offset
            newer = [event for event in self._recent if event.offset > upto]
            if self.offset - upto != len(newer) or self.gone:
                return False
            self.replay(connection, (*events, *newer), online=online)
            self._go_live(connection)
            return True

    def attach_afresh(self, connection: Connection, *, online: Iterable[str]) -> bool:
        """Greet a connection that missed nothing or too much: nothing is replayed. False where all is gone."""
        with self.lock:
            if not self.gone:
                self._greet(connection, recovered=False, online=online)
                self._go_live(connection)
            return not self.gone

    def _greet(self, connection: Connection, *, recovered: bool, online: Iterable[str]) -> None:
        if connection.greeted:
            return
        connection.greeted = True
        streaming = [
            {"message_id": reply.message_id, "job_id": reply.job_id, "attempt": reply.attempt}
            for reply in self._in_progress()
        ]
        connection.say(
            connection_established(
                connection.user.id,
                connection.id,
                cursor=self.cursor,
                recovered=recovered,
                online=online,
                streaming=streaming,
            )
        )

    def _go_live(self, connection: Connection) -> None:
        connection.cursor = self.cursor
        for reply in self._in_progress():
            connection.baseline(reply)
        self.connections[connection.id] = connection
        self.needs_tick |= connection.unsettled
        # Whoever was removed between being let in and now has to be found.
        self.participants_changed |= connection.admitted_at != self.offset

    def _in_progress(self) -> list[Reply]:
        return [reply for reply in self.replies.values() if reply.begun]

    def detach(self, connection: Connection) -> None:
        with self.lock:
            self.connections.pop(connection.id, None)

    def online_here(self) -> set[str]:
        """Return the users with a connection in this process."""
        with self.lock:
            return {connection.user.id for connection in self.connections.values()}

    def when_ended(self, job_id: str, wake: Callable[[], None]) -> None:
        """Call `wake` when a job's end is seen here; at most once."""
        with self.lock:
            self._waiters.setdefault(job_id, []).append(wake)

    def no_longer(self, job_id: str, wake: Callable[[], None]) -> None:
        with self.lock:
            waiting = self._waiters.get(job_id, [])
            if wake in waiting:
                waiting.remove(wake)
            if not waiting:
                self._waiters.pop(job_id, None)

    # What time brings

    def tick(self, at: float) -> None:
        """Show snapshots that are due, end typing that has run out, send what slow viewers are owed."""
        with self.lock:
            self.needs_tick = False
            for reply in self.replies.values():
                if reply.snapshot_due:
                    self._show_snapshot(reply)
            for user_id in [user for user, until in self._typing.items() if until <= at]:
                self._typed(user_id, False)
            for user_id, is_typing in self._indicators.due():
                self._show_to_others(typing_indicator(user_id, is_typing))
            for connection in self.connections.values():
                connection.settle()
                self.needs_tick |= connection.unsettled
            self.needs_tick |= bool(self._typing) or self._indicators.waiting

    def fell_behind(self, cursor: Cursor | None, *, at_once: bool) -> bool:
        """Whether the database's log and this one differ: at once, or since the last look.

        Under load there is always an event on its way; it is not lost yet.
        """
        with self.lock:
            offset = None if cursor is None else cursor.offset
            expected, self._expected = self._expected, offset
            if cursor is None or offset is None or (offset == self.offset and not cursor.agrees(self.cursor)):
                return True
            if at_once or expected is None:
                return at_once and offset != self.offset
            return expected > self.offset or expected == offset < self.offset

    def stale(self, at: float, seconds: float) -> bool:
        """Whether a reply is in progress of which nothing was heard for a while."""
        with self.lock:
            return any(at - reply.last_grown_at > seconds for reply in self._in_progress())
