"""Wait for row locks without holding what other transactions need.

On PostgreSQL a locked row may stay locked for as long as its transaction hangs. Every lock is therefore first tried
without waiting. A transaction that must wait gives back its writer place and, before its first lock, its connection.
Within a process, transactions that want the same lock queue in memory, and only the first of them waits in the
database.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from enum import Enum
from typing import Protocol, TypeVar

from sqlalchemy import text
from sqlalchemy.orm import Session

from chat_backend.domain.errors import Unavailable

Locked = TypeVar("Locked")

RETRY_AFTER_SECONDS = 2
POLL_SECONDS = 0.05
# A transaction that already holds locks keeps its place, so it may wait only this long to be one of
# the waiting connections.
CONNECTION_WAIT_SECONDS = 0.5
# A request in a queue holds a greenlet or a thread.
MAX_QUEUED = 100
_INFO = "row_locks"
_LIMIT_WAIT = text("SELECT set_config('lock_timeout', :milliseconds, true)")


class Level(Enum):
    """The locks that a transaction takes after its first one, in the order in which it takes them."""

    JOB = 1
    QUOTA_DAY = 2


class Place(Protocol):
    """The place of a unit of work among the writers of its process."""

    def given_back(self) -> AbstractContextManager[None]:
        """Give the place back for a while, then take one again without waiting."""
        ...


class LockQueues:
    """What all units of work of a process share: a FIFO queue for each contended lock, and the waiting connections."""

    def __init__(self, *, seconds: float, connections: int) -> None:
        self.seconds = seconds
        self.connections = threading.BoundedSemaphore(connections)
        # One semaphore per level: the holder of a lock may itself wait for a lock of a later level.
        self.connections_of = {level: threading.BoundedSemaphore(max(1, connections - 1)) for level in Level}
        self._queues: dict[Hashable, deque[threading.Lock]] = {}
        self._mutex = threading.Lock()

    def is_contended(self, key: Hashable) -> bool:
        return key in self._queues

    def join_if_first(self, key: Hashable) -> threading.Lock | None:
        """Become the first of a queue; None if somebody is in it."""
        with self._mutex:
            if key in self._queues:
                return None
            ticket = threading.Lock()
            self._queues[key] = deque([ticket])
            return ticket

    def join(self, key: Hashable, deadline: float) -> threading.Lock:
        """Wait until all who came before have left. Raises Unavailable after the deadline, or if the queue is full."""
        ticket = threading.Lock()
        ticket.acquire()
        with self._mutex:
            queue = self._queues.setdefault(key, deque())
            if len(queue) >= MAX_QUEUED:
                raise _busy()
            queue.append(ticket)
            if len(queue) == 1:
                return ticket
        if not ticket.acquire(timeout=max(0.0, deadline - time.monotonic())):
            self.leave(key, ticket)
            raise _busy()
        return ticket

    def leave(self, key: Hashable, ticket: threading.Lock) -> None:
        """Leave a queue; if its first leaves, the next one's wait ends."""
        with self._mutex:
            queue = self._queues[key]
            was_first = queue[0] is ticket
            queue.remove(ticket)
            if not queue:
                del self._queues[key]
            elif was_first:
                queue[0].release()


class LockWaits:
    """How one unit of work waits for row locks."""

    def __init__(self, queues: LockQueues, session: Session, place: Place) -> None:
        self._queues = queues
        self._session = session
        self._place = place
        self._joined: tuple[Hashable, threading.Lock] | None = None
        session.info[_INFO] = self

    def leave(self) -> None:
        """Let the next one of the process have the lock; called once, after the transaction."""
        if self._joined is not None:
            self._queues.leave(*self._joined)

    def first(
        self,
        key: Hashable | None,
        find: Callable[[], Hashable | None],
        now: Callable[[], Locked | None],
        blocking: Callable[[], Locked | None],
    ) -> Locked | None:
        """Take the first lock; see `lock_first`."""
        if key is None or not self._queues.is_contended(key):
            locked = now()
            if locked is not None:
                if key is not None and self._joined is None and (ticket := self._queues.join_if_first(key)):
                    self._joined = (key, ticket)
                return locked
        found = find()
        if found is None:
            return None
        if self._joined is not None:
            # A transaction that has joined a queue may hold locks, so it must keep its connection.
            return self.next(Level.JOB, now, blocking)
        deadline = time.monotonic() + self._queues.seconds
        self._session.rollback()  # nothing was written before the first lock; this gives the connection back
        with self._place.given_back():
            self._joined = (found, self._queues.join(found, deadline))
            return self._wait_first(deadline, now, blocking)

    def _wait_first(
        self, deadline: float, now: Callable[[], Locked | None], blocking: Callable[[], Locked | None]
    ) -> Locked | None:
        while True:
            locked = now()
            if locked is not None:
                return locked
            if self._queues.connections.acquire(blocking=False):
                try:
                    self._limit_wait(deadline)
                    return blocking()
                finally:
                    self._queues.connections.release()
            # Enough connections wait: look again and again, without one in between.
            self._session.rollback()
            if time.monotonic() > deadline:
                raise _busy()
            time.sleep(POLL_SECONDS)

    def _limit_wait(self, deadline: float) -> None:
        milliseconds = max(1, round(1000 * (deadline - time.monotonic())))
        self._session.execute(_LIMIT_WAIT, {"milliseconds": str(milliseconds)})

    def next(
        self, level: Level, now: Callable[[], Locked | None], blocking: Callable[[], Locked | None]
    ) -> Locked | None:
        """Take a further lock; see `lock_next`."""
        locked = now()
        if locked is not None:
            return locked
        connections = self._queues.connections_of[level]
        if not connections.acquire(timeout=CONNECTION_WAIT_SECONDS):
            raise _busy()
        with self._place.given_back():
            try:
                return blocking()
            finally:
                connections.release()


def lock_first(
    session: Session,
    key: Hashable | None,
    *,
    find: Callable[[], Hashable | None],
    now: Callable[[], Locked | None],
    blocking: Callable[[], Locked | None],
) -> Locked | None:
    """Take the first lock of a transaction, which has written nothing yet.

    `now` takes the lock without waiting, or returns None; `blocking` waits for it. `find` returns the lock's key, or
    None if there is nothing that this caller may lock. `key` is given where it is known beforehand. Raises Unavailable
    if the lock can't be had in time.
    """
    waits: LockWaits | None = session.info.get(_INFO)
    return waits.first(key, find, now, blocking) if waits else blocking()


def lock_next(
    session: Session, level: Level, *, now: Callable[[], Locked | None], blocking: Callable[[], Locked | None]
) -> Locked | None:
    """Take a further lock, in the order of levels. Raises Unavailable if too many wait for one of its level."""
    waits: LockWaits | None = session.info.get(_INFO)
    return waits.next(level, now, blocking) if waits else blocking()


def _busy() -> Unavailable:
    return Unavailable("This is locked by another transaction right now.", retry_after_seconds=RETRY_AFTER_SECONDS)
