"""A database that is locked, restarted or away: nothing accepted is lost, and what can't be accepted is said."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from chat_backend.cli import migrate
from chat_backend.domain.enums import JobStatus, Outcome
from tests.conftest import TIMINGS
from tests.support import postgres
from tests.support.deployment import Deployment, recovered
from tests.support.provider_stub import provider_stub
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until


def test_a_database_locked_for_a_while_delays_a_reply_and_loses_nothing(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=30,delay=0.03,tag=locked")
    viewer = running.follow(chat, session["id"], deltas=1)
    job = chat.ask(session["id"], "Go on.")
    viewer.until_text(10)

    with running.backend.engine.execution_options(writes=True).begin() as holding:
        holding.execute(text("UPDATE chat_sessions SET title = 'held'"))
        wait_until(lambda: running.calls("locked")[0]["finished"], why="the provider has finished")
        refused = chat.http.put(f"/sessions/{session['id']}", json={"title": "x"})

    viewer.until_job("succeeded")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
    assert [a.outcome for a in running.job(job["job_id"]).attempts][-1] == Outcome.SUCCEEDED


@pytest.fixture
def own_postgresql(tmp_path: Path) -> Iterator[Deployment]:
    """A deployment over a PostgreSQL server of its own, which may be ended."""
    server = postgres.start(tmp_path / "pg")
    migrate.upgrade(server)
    # The servers of the other tests forget what was committed last, for speed; this one is crashed.
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_commit = on")
        connection.execute("SELECT pg_reload_conf()")
    (tmp_path / "valkey").mkdir()
    valkey = Valkey(tmp_path / "valkey")
    valkey.start()
    with provider_stub() as stub:
        environment = {"AUTH_MODE": "dev", "DATABASE_URL": server, **TIMINGS}
        made = Deployment(environment, valkey=valkey, stub=stub, folder=tmp_path)
        try:
            with recovered(made):
                yield made
        finally:
            made.stop()
            valkey.kill()
            postgres.stop(tmp_path / "pg")


def test_a_postgresql_that_crashes_and_comes_back_has_lost_no_reply(own_postgresql: Deployment, tmp_path: Path) -> None:
    running = own_postgresql
    chat = running.chat()
    session = chat.new_session("stub:tokens=80,delay=0.03,tag=crash")
    viewer = running.follow(chat, session["id"], deltas=1)
    job = chat.ask(session["id"], "Go on.")
    viewer.until_text(20)

    postgres.stop(tmp_path / "pg", signal.SIGQUIT)
    began = time.monotonic()
    refused = chat.http.get(f"/jobs/{job['job_id']}")
    health = chat.http.get("/health")
    answered_in = time.monotonic() - began
    postgres.start(tmp_path / "pg")

    assert (refused.status_code, health.status_code, health.json()["status"]) == (503, 503, "unhealthy")
    assert answered_in < 10
    viewer.until_job("succeeded")
    running.until_job(job["job_id"], JobStatus.SUCCEEDED)
    assert running.worker.exit_status is None
