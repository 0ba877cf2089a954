"""The circuit breaker: stop asking a model that keeps failing, ask again after a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

from chat_backend.realtime.breaker_state import (
    CLOSED,
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
    open_until: float | None = None
    probe_until: float = 0.0

    def state(self, now: float) -> str:
        if self.open_until is None:
            return CLOSED
        return OPEN if now < self.open_until else HALF_OPEN


class LocalCircuits:
    """One process's own circuits, by the same rules as the shared ones. Not safe between threads."""

    def __init__(self, *, failures: int, open_seconds: float, clock: Callable[[], float]) -> None:
        self._failures = failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._circuits: dict[str, _Circuit] = {}

    def allow(self, circuit: str) -> Leave:
        now, found = self._clock(), self._circuits.get(circuit, _Circuit())
        if found.state(now) == HALF_OPEN and now >= found.probe_until:
            found.probe_until = now + self._open_seconds
            return Leave.PROBE
        return Leave.GIVEN if found.state(now) == CLOSED else Leave.REFUSED

    def failed(self, circuit: str) -> None:
        now, found = self._clock(), self._find(circuit)
        found.failures += found.state(now) == CLOSED
        if found.state(now) == HALF_OPEN or found.failures >= self._failures:
            found.failures, found.open_until, found.probe_until = 0, now + self._open_seconds, 0.0

    def succeeded(self, circuit: str) -> None:
        self._circuits.pop(circuit, None)

    def calm(self) -> bool:
        return all(found.open_until is None for found in self._circuits.values())

    def state(self, provider: str) -> str:
        now = self._clock()
        return worst([found.state(now) for name, found in self._circuits.items() if provider_of(name) == provider])

    def _find(self, circuit: str) -> _Circuit:
        # Users name models, so there is no end of names: the one that failed longest ago makes room.
        found = self._circuits.pop(circuit, None) or _Circuit()
        if len(self._circuits) >= MOST_CIRCUITS:
            del self._circuits[next(iter(self._circuits))]
        self._circuits[circuit] = found
        return found


class Breaker:
    """Opens after `failures` failures in a row, refuses for `open_seconds`, then lets one probe through.

    Shared by all workers through Redis; while Redis is away each goes by what it saw itself. Never raises, waits
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

    def allow(self, provider: str, model: str) -> bool:
        """Tell whether the model may be asked now."""
        circuit = circuit_of(provider, model)
        leave = self._together(lambda: self._shared.allow(circuit), lambda: self._local.allow(circuit))
        if leave is Leave.PROBE:
            with self._lock:
                if len(self._probing) >= MOST_CIRCUITS:
                    self._probing.pop()
                self._probing.add(circuit)
        return leave is not Leave.REFUSED

    def awaits(self, provider: str, model: str) -> bool:
        """Tell whether the first word of an answer is news worth telling: everyone else waits for it. Never blocks."""
        return circuit_of(provider, model) in self._probing

    def succeeded(self, provider: str, model: str) -> None:
        """Take note that the model answered."""
        circuit = circuit_of(provider, model)
        with self._lock:
            self._probing.discard(circuit)
            self._local.succeeded(circuit)
        self._together(lambda: self._shared.succeeded(circuit), lambda: None)

    def failed(self, provider: str, model: str) -> None:
        """Take note of a retryable failure."""
        circuit = circuit_of(provider, model)
        with self._lock:
            self._probing.discard(circuit)
            self._local.failed(circuit)
        self._together(lambda: self._shared.failed(circuit), lambda: None)

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
