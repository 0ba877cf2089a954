"""The service itself: health that always answers, and stats."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import update

from chat_backend.config import Settings
from chat_backend.models import LlmJob
from chat_backend.realtime.breaker_state import OPEN_CIRCUITS, SharedCircuits, circuit_of
from chat_backend.realtime.channels import WEB_PROCESSES, WORKER_PROCESSES
from chat_backend.realtime.presence import ProcessCensus
from chat_backend.web.app import create_app
from tests.support.pretend_worker import PretendWorker
from tests.support.rest import Rest
from tests.support.valkey import Valkey

SLOWEST_SECONDS = 4.0


def health(rest: Rest, user: str | None = None) -> tuple[int, dict[str, Any]]:
    begun = time.monotonic()
    response = rest.of(user).get("/health")
    assert time.monotonic() - begun < SLOWEST_SECONDS
    return response.status_code, response.get_json()


def statuses(report: dict[str, Any]) -> dict[str, str]:
    checks = report["checks"]
    flat = {name: checks[name]["status"] for name in ("database", "redis", "workers")}
    return flat | {name: check["status"] for name, check in checks["providers"].items()}


def test_with_all_its_parts_the_service_is_healthy(rest: Rest, valkey: Valkey) -> None:
    with valkey.client() as client:
        ProcessCensus(client).report_worker("w1", 2)

    status, report = health(rest)

    assert status == 200
    assert set(report) == {"service", "status", "timestamp", "active_connections", "checks"}
    assert (report["service"], report["status"], report["active_connections"]) == ("chat", "healthy", 0)
    assert statuses(report) == {
        "database": "healthy",
        "redis": "healthy",
        "workers": "healthy",
        "LOCAL": "healthy",
        "OPENROUTER": "not_configured",
        "OPENAI": "not_configured",
    }
    assert report["checks"]["workers"] == {"status": "healthy", "count": 1, "running": 2}
    assert report["checks"]["jobs"] == {
        "status": "healthy",
        "queued": 0,
        "running": 0,
        "backing_off": 0,
        "orphans": 0,
        "overdue_leases": 0,
    }


def test_connections_are_those_of_the_whole_deployment(sqlite_rest: Rest, valkey: Valkey) -> None:
    with valkey.client() as client:
        ProcessCensus(client).report_web("web-1", 3)
        ProcessCensus(client).report_web("web-2", 4)

    report = health(sqlite_rest)[1]

    assert report["active_connections"] == 7


def test_without_a_worker_the_service_is_degraded(sqlite_rest: Rest) -> None:
    status, report = health(sqlite_rest)

    assert (status, report["status"], statuses(report)["workers"]) == (200, "degraded", "unhealthy")


def test_a_job_that_nobody_looks_after_degrades(web_app: Flask, rest: Rest, valkey: Valkey) -> None:
    with valkey.client() as client:
        ProcessCensus(client).report_worker("w1", 0)
    session_id = rest.new_session()
    rest.post(f"/sessions/{session_id}/process-llm", {"prompt": "Hello", "stream": True})
    with web_app.extensions["backend"].unit_of_work() as uow:
        uow.session.execute(update(LlmJob).values(not_before=1.0))

    status, report = health(rest)

    assert (status, report["status"]) == (200, "degraded")
    assert (report["checks"]["jobs"]["queued"], report["checks"]["jobs"]["orphans"]) == (1, 1)


def test_an_open_breaker_degrades(sqlite_rest: Rest, valkey: Valkey) -> None:
    with valkey.client() as client:
        ProcessCensus(client).report_worker("w1", 0)
        circuits = SharedCircuits(client, failures=2, open_seconds=60)
        for job in ("job-1", "job-2"):
            circuits.failed(circuit_of("LOCAL", "tiny"), "ann", job)

    status, report = health(sqlite_rest)

    assert (status, report["status"]) == (200, "degraded")
    assert report["checks"]["providers"]["LOCAL"] == {"status": "degraded", "breaker": "open"}


RUBBISH: dict[str, Any] = {
    "rubbish": "rubbish", "many digits": "9" * 5_000 + " inf", "inf": "1 inf", "nan": "1 nan", "far": "1 99999999999",
    "negative": "-1 99999999999", b"\xff\xfe": "1 99999999999", "bytes": b"\xff \xfe", "nothing": "",
}  # fmt: skip


def test_what_somebody_else_wrote_into_redis_is_not_counted(sqlite_rest: Rest, valkey: Valkey) -> None:
    with valkey.client() as client:
        for key in (WEB_PROCESSES, WORKER_PROCESSES):
            client.hset(key, mapping=RUBBISH)
        client.zadd(OPEN_CIRCUITS, {b"\xff\xfe:x": time.time() + 30, "LOCAL:far": 9e12, "LOCAL:inf": float("inf")})
        ProcessCensus(client).report_web("web-1", 3)
        ProcessCensus(client).report_worker("w1", 0)

        status, report = health(sqlite_rest)
        listed = sqlite_rest.get("/providers")
        left = [client.hkeys(key) for key in (WEB_PROCESSES, WORKER_PROCESSES)]

    assert (status, report["status"], report["active_connections"]) == (200, "healthy", 3)
    assert report["checks"]["workers"]["count"] == 1
    assert (listed.status_code, listed.get_json()["providers"][0]["breaker"]) == (200, "closed")
    assert left == [[b"web-1"], [b"w1"]]


@pytest.mark.parametrize("key", [WEB_PROCESSES, WORKER_PROCESSES, OPEN_CIRCUITS])
def test_another_kind_of_value_is_removed(sqlite_rest: Rest, valkey: Valkey, key: str) -> None:
    with valkey.client() as client:
        client.set(key, "rubbish")
        read = health(sqlite_rest)
        client.set(key, "rubbish")
        ProcessCensus(client).report_web("web-1", 0)
        ProcessCensus(client).report_worker("w1", 0)

    written = health(sqlite_rest)

    assert [(status, report["checks"]["redis"]["status"]) for status, report in (read, written)] == [
        (200, "healthy")
    ] * 2
    assert written[1]["status"] == "healthy"


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_without_redis_the_service_is_degraded_and_answers(sqlite_rest: Rest, valkey: Valkey, how: str) -> None:
    getattr(valkey, how)()

    status, report = health(sqlite_rest)
    valkey.thaw()

    assert (status, report["status"], report["active_connections"]) == (200, "degraded", 0)
    assert statuses(report) | {"OPENROUTER": "", "OPENAI": ""} == {
        "database": "healthy",
        "redis": "unhealthy",
        "workers": "unknown",
        "LOCAL": "unknown",
        "OPENROUTER": "",
        "OPENAI": "",
    }


def test_without_its_database_the_service_is_unhealthy(postgresql_url: str, valkey: Valkey) -> None:
    gone = postgresql_url.replace("/test_", "/gone_")
    app = create_app(Settings.from_environment({"AUTH_MODE": "dev", "DATABASE_URL": gone, "REDIS_URL": valkey.url}))

    status, report = health(Rest(app))

    assert (status, report["status"], statuses(report)["database"]) == (503, "unhealthy", "unhealthy")


def test_without_anything_the_stats_have_nothing_to_average(rest: Rest) -> None:
    response = rest.get("/stats")

    assert response.status_code == 200
    assert response.get_json() == {
        "total_sessions": 0,
        "total_messages": 0,
        "active_sessions": 0,
        "messages_today": 0,
        "average_response_time_ms": None,
        "most_used_provider": None,
        "most_used_model": None,
        "providers": [],
    }


def test_stats_count_my_sessions_and_what_providers_were_asked(rest: Rest, worker: PretendWorker) -> None:
    session_id, off = rest.new_session(), rest.new_session(llm_model="big")
    rest.put(f"/sessions/{off}", {"is_active": False})
    for chat in (session_id, session_id, off):
        worker.answer(rest.say(chat, process=True)["job"]["id"])
    worker.fail(rest.say(session_id, process=True)["job"]["id"])
    rest.of("bob").say(rest.of("bob").new_session())

    stats = rest.get("/stats").get_json()

    assert stats == {
        "total_sessions": 2,
        "total_messages": 8,
        "active_sessions": 1,
        "messages_today": 8,
        "average_response_time_ms": 1500.0,
        "most_used_provider": "LOCAL",
        "most_used_model": "tiny",
        "providers": [
            {
                "provider": "LOCAL",
                "attempts": 4,
                "succeeded": 3,
                "failed": 1,
                "cancelled": 0,
                "abandoned": 0,
                "handed_over": 0,
                "estimated": 0,
                "prompt_tokens": 15,
                "completion_tokens": 21,
                "cost": None,
                "average_time_to_first_token_ms": None,
            }
        ],
    }


def test_health_tells_the_time(sqlite_app: Flask) -> None:
    report = health(Rest(sqlite_app))[1]

    told = datetime.fromisoformat(report["timestamp"])
    assert abs((datetime.now(UTC) - told).total_seconds()) < 60
