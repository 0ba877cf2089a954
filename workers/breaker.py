"""The circuit breaker: stop asking a model that keeps failing, ask again after a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar
from uuid import UUID

from chat_backend.realtime.breaker_state import (
    CLOSED,
    FORGET_SECONDS,
    HALF_OPEN,
    OPEN,
    Leave,
    SharedCircuits,
    circuit_of,
    provider_of,
    worst,
)
from chat_backend.realtime.connection import RedisAway, RedisClient

MOST_CIRCUITS = 1000
REDIS_PAUSE_SECONDS = 2.0

Answer = TypeVar("Answer")
logger = logging.getLogger(__name__)


@dataclass
class _Circuit:
    failures: int = 0
    # The first failure's user and job, and whether there were failures of others.
    user: str = ""
    job: str = ""
    several_users: bool = False
    several_jobs: bool = False
    # For whom alone it is open; None: for everyone.
    only: str | None = None
    open_until: float | None = None
    probe_until: float = 0.0

    def state(self, now: float) -> str:
        if self.open_until is None:
            return CLOSED
        return OPEN if now < self.open_until else HALF_OPEN

    def count(self, user: str, job: str) -> None:
        if not self.failures:
            self.user, self.job = user, job
        self.failures += 1
        self.several_users |= user != self.user
        self.several_jobs |= job != self.job


class LocalCircuits:
    """One process's own circuits, by the same rules as the shared ones. Not safe between threads."""

    def __init__(self, *, failures: int, open_seconds: float, clock: Callable[[], float]) -> None:
        self._threshold = failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._circuits: dict[str, _Circuit] = {}
        # The two users who asked last, and when.
        self._users: dict[str, float] = {}

    def allow(self, circuit: str, user: str) -> Leave:
        now, found = self._clock(), self._circuits.get(circuit, _Circuit())
        if found.state(now) == CLOSED or found.only not in (None, user):
            return Leave.GIVEN
        if found.state(now) == HALF_OPEN and now >= found.probe_until:
            found.probe_until = now + self._open_seconds
            return Leave.PROBE
        return Leave.REFUSED

    def failed(self, circuit: str, user: str, job: str) -> None:
        now, found = self._clock(), self._find(circuit)
        self._note(user, now)
        if found.only != user:
            found.only = None
        state = found.state(now)
        if state == OPEN:
            return
        if state == CLOSED:
            found.count(user, job)
            if found.failures < self._threshold or not found.several_jobs:
                return
            if not found.several_users:
                if len(self._users) > 1:
                    return
                found.only = user
        self._circuits[circuit] = _Circuit(only=found.only, open_until=now + self._open_seconds)

    def succeeded(self, circuit: str, user: str) -> None:
        self._note(user, self._clock())
        self._circuits.pop(circuit, None)

    def calm(self) -> bool:
        return all(found.open_until is None for found in self._circuits.values())

    def state(self, provider: str) -> str:
        now = self._clock()
        return worst([found.state(now) for name, found in self._circuits.items() if provider_of(name) == provider])

    def _note(self, user: str, now: float) -> None:
        others = [(at, other) for other, at in self._users.items() if other != user and at > now - FORGET_SECONDS]
        self._users = {other: at for at, other in sorted(others)[-1:]} | {user: now}

    def _find(self, circuit: str) -> _Circuit:
        # Users name models, so there is no end of names: the one that failed longest ago makes room.
        found = self._circuits.pop(circuit, None) or _Circuit()
        if len(self._circuits) >= MOST_CIRCUITS:
            del self._circuits[next(iter(self._circuits))]
        self._circuits[circuit] = found
        return found


class Breaker:
    """Opens after `failures` failures in a row, refuses for `open_seconds`, then lets one probe through.

    The failures must be of several jobs, and of several users where there are any: see `breaker_state`. Shared by all
    workers through Redis; while Redis is away each goes by what it saw itself. Never raises, waits
    no longer than the client's own timeout, and may be called from any thread. What was asked and neither
    succeeded nor failed (cancelled, handed over) need not be told: a probe's place is free again after `open_seconds`.
    """

    def __init__(
        self, redis: RedisClient, *, failures: int, open_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shared = SharedCircuits(redis, failures=failures, open_seconds=open_seconds)
        self._local = LocalCircuits(failures=failures, open_seconds=open_seconds, clock=clock)
        self._clock = clock
        self._lock = Lock()
        self._ask_redis_at = float("-inf")
        # Whose probes this process has sent and not yet heard of.
        self._probing: set[str] = set()

    def calm(self) -> bool:
        """Tell whether no circuit is open anywhere: then no model has to be asked about."""
        return self._together(self._shared.calm, self._local.calm)

    def allow(self, provider: str, model: str, *, user: str) -> bool:
        """Tell whether the model may be asked now, for a user."""
        circuit = circuit_of(provider, model)
        leave = self._together(lambda: self._shared.allow(circuit, user), lambda: self._local.allow(circuit, user))
        if leave is Leave.PROBE:
            with self._lock:
                if len(self._probing) >= MOST_CIRCUITS:
                    self._probing.pop()
                self._probing.add(circuit)
        return leave is not Leave.REFUSED

    def awaits(self, provider: str, model: str) -> bool:
        """Tell whether the first word of an answer is news worth telling: everyone else waits for it. Never blocks."""
        return circuit_of(provider, model) in self._probing

    def succeeded(self, provider: str, model: str, *, user: str) -> None:
        """Take note that the model answered a user."""
        circuit = circuit_of(provider, model)
        with self._lock:
            self._probing.discard(circuit)
            self._local.succeeded(circuit, user)
        self._together(lambda: self._shared.succeeded(circuit, user), lambda: None)

    def failed(self, provider: str, model: str, *, user: str, job: UUID) -> None:
        """Take note that the model failed, over a user's job; retries of one job are one job."""
        circuit = circuit_of(provider, model)
        with self._lock:
            self._probing.discard(circuit)
            self._local.failed(circuit, user, str(job))
        self._together(lambda: self._shared.failed(circuit, user, str(job)), lambda: None)

    def state(self, provider: str) -> str:
        """Tell `closed`, `open` or `half_open`: the worst of the provider's models."""
        return self._together(lambda: self._shared.read()[provider], lambda: self._local.state(provider))

    def _together(self, shared: Callable[[], Answer], local: Callable[[], Answer]) -> Answer:
        if self._clock() >= self._ask_redis_at:
            try:
                return shared()
            except RedisAway:
                # Every reply would wait for the client's timeout, twice.
                self._ask_redis_at = self._clock() + REDIS_PAUSE_SECONDS
                logger.warning("Circuit breaker goes by its own state", extra={"action": "breaker_local"})
        with self._lock:
            return local()
