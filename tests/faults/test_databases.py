"""A database that is locked, restarted or away: nothing accepted is lost, and what can't be accepted is said."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
from sqlalchemy import text

from chat_backend.cli import migrate
from chat_backend.domain.enums import JobStatus, Outcome
from tests.conftest import TIMINGS
from tests.support import postgres
from tests.support.chat import Chat
from tests.support.databases import SQLITE
from tests.support.deployment import Deployment, recovered
from tests.support.provider_stub import expected_text, provider_stub
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

# Less than one write of ours.
ROOM_BYTES = 4096


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


def test_a_pool_that_is_used_up_refuses_with_503_and_recovers(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=5,tag=pool")
    # Readers hold connections while a table is locked; with SQLite it is the writers that wait for each other.
    method, locks = ("POST", None) if running.settings.is_sqlite else ("GET", "LOCK TABLE chat_sessions")

    def ask(_: int) -> httpx.Response:
        body = {"content": "Meanwhile."} if method == "POST" else None
        return chat.http.request(method, f"/sessions/{session['id']}/messages", json=body)

    with running.backend.engine.execution_options(writes=True).begin() as holding, ThreadPoolExecutor(30) as askers:
        if locks:
            holding.execute(text(locks))
        asking = [askers.submit(ask, number) for number in range(30)]
        health, answered_in = health_beside(chat)
        answers = [answer.result() for answer in asking]
    after = chat.ask(session["id"], "After.")

    assert {(answer.status_code, answer.headers.get("Retry-After")) for answer in answers} == {(503, "2")}
    assert (health, answered_in < 5) == (200 if running.settings.is_sqlite else 503, True)
    running.until_job(after["job_id"], JobStatus.SUCCEEDED)
    assert [message["content"] for message in chat.messages(session["id"])] == ["After.", expected_text("pool", 5)]


def health_beside(chat: Chat) -> tuple[int, float]:
    """Return the status of health, and how long it took to say so."""
    began = time.monotonic()
    return chat.http.get("/health").status_code, time.monotonic() - began


@pytest.mark.parametrize("deployment", [SQLITE], indirect=True)
def test_a_full_disk_refuses_with_503_loses_nothing_and_is_forgotten_once_there_is_room(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=60,delay=0.03,tag=disk")
    viewer = running.follow(chat, session["id"], deltas=1)
    job = chat.ask(session["id"], "Go on.")
    viewer.until_text(20)

    with full_disk(running):
        refused = [chat.http.post(f"/sessions/{session['id']}/messages", json={"content": "x"}) for _ in range(3)]
        read = chat.messages(session["id"])
        wait_until(lambda: running.calls("disk")[0]["finished"], why="the provider has finished")
        health = chat.http.get("/health")
    accepted = chat.send(session["id"], "There is room.")

    assert [(answer.status_code, answer.headers["Retry-After"]) for answer in refused] == [(503, "2")] * 3
    assert (len(read), health.status_code) == (2, 200)
    assert viewer.until_action("completed")["message"]["content"] == expected_text("disk", 60)
    running.until_job(job["job_id"], JobStatus.SUCCEEDED)
    assert [message["id"] for message in chat.messages(session["id"])] == [*(m["id"] for m in read), accepted["id"]]
    assert (running.web.exit_status, running.worker.exit_status) == (None, None)


@contextmanager
def full_disk(running: Deployment) -> Iterator[None]:
    """Let no file of these processes grow; what they have to write fails as on a full disk."""
    limit_files(running, ROOM_BYTES)
    try:
        yield
    finally:
        limit_files(running, resource.RLIM_INFINITY)


def limit_files(running: Deployment, size: int) -> None:
    for process in (running.web, running.worker):
        for pid in process.family:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


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
    running.ensure(webs=2, workers=2)
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
    assert [process.exit_status for process in (*running.webs, *running.workers)] == [None] * 4
