"""What a worker knows of its database: since when it could be written to without a break."""

from __future__ import annotations

import time
from collections.abc import Callable

from chat_backend.services.attempts import Takeover

# A lease that was not renewed for so many heartbeats is overdue: its worker, or the database, may be gone.
OVERDUE_HEARTBEATS = 1.5


class DatabaseWatch:
    """Tells a dead worker's lease from one that nobody could renew. Safe from any thread.

    An expired lease proves a death only if its worker had the chance to renew it. This process can vouch for that once
    it has used the database itself for two heartbeats, without a failure and without a pause: a process that was
    just started, or stood still, cannot vouch yet.
    """

    def __init__(
        self, *, heartbeat_seconds: float, lease_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._heartbeat_seconds = heartbeat_seconds
        self._chance_seconds = 2 * heartbeat_seconds
        # An outage shows as a pause once leases are overdue (OVERDUE_HEARTBEATS). One that fits into so short a pause
        # leaves a lease time for its renewal.
        self._pause_seconds = max(lease_seconds - (2 + OVERDUE_HEARTBEATS) * heartbeat_seconds, self._chance_seconds)
        self._clock = clock
        self._since: float | None = None
        self._last = float("-inf")
        self._last_database_time: float | None = None
        self._outage = (0.0, 0.0)

    def succeeded(self, database_time: float, *, began: float) -> None:
        """Take note that the database takes writes, and of its time. `began` is when this process had asked it."""
        now = self._clock()
        if now - began > self._heartbeat_seconds:
            self.failed()  # it only answered when the outage was over
        if self._since is None:
            if self._last_database_time is not None:
                # A lease that runs out before its worker has had its chance says nothing of the worker.
                self._outage = (self._last_database_time, database_time + self._chance_seconds)
            self._since = now
        elif now - self._last > self._pause_seconds:
            self._since = now
        self._last, self._last_database_time = now, database_time

    def failed(self) -> None:
        """Take note that the database was unavailable."""
        self._since = None

    def takeover(self) -> Takeover:
        """Return what a claim may take over now."""
        now, since = self._clock(), self._since
        vouched = since is not None and self._last - since >= self._chance_seconds
        return Takeover(allowed=vouched and now - self._last <= self._pause_seconds, outage=self._outage)
