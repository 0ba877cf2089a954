"""How the parts are, asked within a bounded time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from chat_backend.bootstrap import Backend
from chat_backend.config import Settings
from chat_backend.domain.enums import PROVIDERS
from chat_backend.domain.errors import Unavailable
from chat_backend.models.base import now
from chat_backend.realtime import breaker_state
from chat_backend.realtime.connection import RedisAway, RedisClient, client
from chat_backend.realtime.presence import ProcessCensus
from chat_backend.services.invariants import queue_state

HEALTHY, DEGRADED, UNHEALTHY, UNKNOWN, NOT_CONFIGURED = "healthy", "degraded", "unhealthy", "unknown", "not_configured"
CHECK_SECONDS = 2.0

Found = TypeVar("Found")


class Probe(Generic[Found]):
    """Asks one question at a time, on a thread of its own: however many want to know, and however long it hangs."""

    def __init__(self, ask: Callable[[], Found]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._asked: Future[Found] | None = None

    def start(self) -> Future[Found]:
        """Return the answer to come; who asks while another does gets the same."""
        with self._lock:
            if self._asked is None or self._asked.done():
                self._asked = Future()
                threading.Thread(target=self._run, args=(self._asked,), name="probe", daemon=True).start()
            return self._asked

    def _run(self, answer: Future[Found]) -> None:
        try:
            answer.set_result(self._ask())
        except BaseException as error:  # handed to whoever waits for the answer
            answer.set_exception(error)


@dataclass(frozen=True)
class Live:
    """What Redis knows of the deployment."""

    connections: dict[str, int]
    workers: dict[str, int]
    breakers: dict[str, str]


class HealthCheck:
    """Asks the database and Redis at once, each with two seconds to answer. Providers are never called."""

    def __init__(self, backend: Backend) -> None:
        self._settings = backend.settings
        self._database = Probe(lambda: _ask_database(backend))
        redis_client = client(backend.settings)
        self._live = Probe(lambda: _ask_redis(redis_client))

    def report(self, *, process_id: str, local_connections: int) -> dict[str, Any]:
        """Return the answer of `GET /health`; while Redis is away the connections are this process's own."""
        database, asked = self._database.start(), self._live.start()
        jobs = _answer(database, Unavailable)
        database_is_there = jobs is not None
        live = _answer(asked, RedisAway)
        checks = {
            "database": {"status": HEALTHY if database_is_there else UNHEALTHY},
            "redis": {"status": HEALTHY if live else UNHEALTHY},
            "workers": _workers(live),
            "jobs": _jobs(jobs),
            "providers": self._providers(live),
        }
        return {
            "service": "chat",
            "status": _overall(checks) if database_is_there else UNHEALTHY,
            "timestamp": now(),
            # Other processes' counts may be seconds old; our own is not.
            "active_connections": sum(((live.connections if live else {}) | {process_id: local_connections}).values()),
            "checks": checks,
        }

    def providers(self) -> dict[str, dict[str, str]]:
        """Return how each provider is, as far as Redis tells."""
        return self._providers(_answer(self._live.start(), RedisAway))

    def _providers(self, live: Live | None) -> dict[str, dict[str, str]]:
        return {name: _provider(self._settings, name, live) for name in PROVIDERS}


def _ask_database(backend: Backend) -> dict[str, int]:
    with backend.reading() as session:
        return queue_state(session, patience_seconds=backend.settings.patience_seconds)


def _ask_redis(client: RedisClient) -> Live:
    census = ProcessCensus(client)
    return Live(census.connections(), census.workers(), breaker_state.read(client))


def _answer(asked: Future[Found], failure: type[Exception]) -> Found | None:
    try:
        return asked.result(CHECK_SECONDS)
    except (TimeoutError, failure):
        return None


def _jobs(state: dict[str, int] | None) -> dict[str, Any]:
    if state is None:
        return {"status": UNKNOWN}
    return {"status": DEGRADED if state["orphans"] or state["overdue_leases"] else HEALTHY, **state}


def _workers(live: Live | None) -> dict[str, Any]:
    if live is None:
        return {"status": UNKNOWN, "count": None, "running": None}
    status = HEALTHY if live.workers else UNHEALTHY
    return {"status": status, "count": len(live.workers), "running": sum(live.workers.values())}


def _provider(settings: Settings, name: str, live: Live | None) -> dict[str, str]:
    breaker = live.breakers.get(name, breaker_state.CLOSED) if live else UNKNOWN
    if not settings.is_configured(name):
        return {"status": NOT_CONFIGURED, "breaker": breaker}
    statuses = {breaker_state.CLOSED: HEALTHY, UNKNOWN: UNKNOWN}
    return {"status": statuses.get(breaker, DEGRADED), "breaker": breaker}


def _overall(checks: dict[str, Any]) -> str:
    parts = [checks["redis"], checks["workers"], checks["jobs"], *checks["providers"].values()]
    return HEALTHY if all(part["status"] in (HEALTHY, NOT_CONFIGURED) for part in parts) else DEGRADED
