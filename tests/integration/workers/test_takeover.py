"""A running worker beside a database that was unavailable for longer than a lease."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import event, text

from chat_backend.bootstrap import Backend, connect
from chat_backend.config import Settings
from chat_backend.models import LlmJob
from chat_backend.services import leases
from tests.integration.services.conftest import TERMS, Remembered, World
from tests.support.databases import SQLITE
from tests.support.waiting import wait_until
from workers.runtime import Runtime

OTHER = "another worker"
HEARTBEAT, LEASE = 0.4, 2.0


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings.from_environment(
        {
            "AUTH_MODE": "dev",
            "DATABASE_URL": database_url,
            "LOCAL_LLM_BASE_URL": "http://127.0.0.1:9/v1",
            "LEASE_SECONDS": str(LEASE),
            "HEARTBEAT_SECONDS": str(HEARTBEAT),
            "SWEEP_SECONDS": "0.05",
            "LLM_MAX_ATTEMPTS": "1",
        }
    )


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    """The database as another worker sees it."""
    backend = connect(settings)
    backend.out.close()
    out = backend.out = Remembered()
    yield World(backend, out, replace(TERMS, worker=OTHER, lease_seconds=LEASE))
    backend.close()


@contextmanager
def sweeping(settings: Settings) -> Iterator[Backend]:
    """Run a worker that has watched the database for a while."""
    backend = connect(settings)
    runtime = Runtime(settings, backend, life_seconds=0.1, exit=lambda _: None)
    runtime.start()
    try:
        wait_until(lambda: runtime._watch.takeover().allowed, why="the worker knows its database")
        yield backend
    finally:
        runtime.stop()


@contextmanager
def no_writes(world: World, job_id: UUID) -> Iterator[None]:
    """Let nobody write until the job's lease has expired."""
    with world.backend.engine.execution_options(writes=True).begin() as holding:
        if holding.dialect.name == "postgresql":
            holding.execute(text("LOCK TABLE llm_jobs IN EXCLUSIVE MODE"))
        yield
        expires = world.job(job_id).lease_until or 0.0
        with world.backend.reading() as session:
            wait_until(lambda: leases.database_time(session) > expires + 0.1, why="the lease has expired")


def until_swept(backend: Backend) -> None:
    """Wait until the worker has looked for jobs a few times more."""
    statements: list[str] = []
    event.listen(backend.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    wait_until(lambda: len(statements) >= 8, why="the worker sweeps")


def test_outage_takes_no_reply_from_living_worker(world: World, settings: Settings) -> None:
    job = world.ask(world.new_session(), "Hello")
    with sweeping(settings) as sweeper:
        world.must_claim(job.id)
        with no_writes(world, job.id):
            pass
        until_swept(sweeper)
        with world.backend.unit_of_work() as uow:
            leases.renew(uow.session, OTHER, [job.id], lease_seconds=60)
        until_swept(sweeper)

    held = world.job(job.id)
    assert (held.lease_owner, held.attempt, held.abandonments) == (OTHER, 1, 0)


# Once: whether it counts is decided by the worker, not by the database.
@pytest.mark.parametrize("database_url", [SQLITE], indirect=True)
def test_killed_worker_loses_its_job_and_outage_is_not_counted(world: World, settings: Settings) -> None:
    in_outage = world.ask(world.new_session(), "Hello")

    def taken_over(job: LlmJob) -> bool:
        return world.job(job.id).attempt > 1

    with sweeping(settings):
        world.must_claim(in_outage.id)
        with no_writes(world, in_outage.id):
            pass
        wait_until(lambda: taken_over(in_outage), why="the killed worker's job is taken over")
        after = world.ask(world.new_session(), "Hello")
        world.must_claim(after.id)
        wait_until(lambda: taken_over(after), why="and the next one, which no outage excuses")

    assert [world.job(job.id).abandonments for job in (in_outage, after)] == [0, 1]
