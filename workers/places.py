"""The places of a worker process: how many replies it writes at once, and for whom the last of them are."""

from __future__ import annotations

import threading
from enum import Enum


class Place(Enum):
    """What a place is for."""

    FREE = "free"  # any job
    LAST = "last"  # the job whose turn it is
    RESERVED = "reserved"  # a user none of whose replies is being written


class Places:
    """Counts the jobs that a process works at, however they came to it. Safe from any thread.

    Beyond `count` places there are `reserved` ones: one user may hold all of the others, and a newcomer still begins at
    once.
    """

    def __init__(self, count: int, reserved: int) -> None:
        self._count = count
        self._most = count + reserved
        self._taken = 0
        self._lock = threading.Lock()

    def take(self, *, newcomer: bool = True) -> Place | None:
        """Take a place, a reserved one only for a newcomer; Return None if none is free; the caller must release it."""
        with self._lock:
            if self._taken >= (self._most if newcomer else self._count):
                return None
            self._taken += 1
            if self._taken > self._count:
                return Place.RESERVED
            return Place.LAST if self._taken == self._count else Place.FREE

    def release(self) -> None:
        with self._lock:
            self._taken -= 1
