"""Whose replies a worker writes while more are wanted than it has places.

The order and who may use a reserved place are decided by the database: tests of the services, on both databases.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from uuid import UUID

import pytest

from chat_backend.bootstrap import Backend, connect
from chat_backend.config import Settings
from chat_backend.domain.enums import JobStatus
from chat_backend.domain.user import User
from chat_backend.services import attempts, chat_sessions, llm_jobs, messages
from tests.integration.services.conftest import Remembered
from tests.support.provider_stub import Stub, provider_stub
from tests.support.waiting import wait_until
from workers.runtime import Runtime
from workers.wake_up import answer

LONG, SHORT = "stub:tokens=2000,delay=0.05,tag=long", "stub:tokens=2,tag=short"


class Worker:
    """A worker process's runtime, woken by threads as Celery would wake it, and the jobs that it is given."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._backend = runtime.backend

    def ask(self, user: str, model: str) -> UUID:
        with self._backend.unit_of_work() as uow:
            fields = {"llm_provider": "LOCAL", "llm_model": model, "title": None, "settings": {}}
            chat = chat_sessions.make(uow, User(user), **fields)[0]
        with self._backend.unit_of_work() as uow:
            job = messages.send(uow, chat.id, User(user), content="Hello", process=True).job
        assert job is not None
        return job.id

    def wake(self, *job_ids: UUID) -> None:
        """Deliver a wake-up for each job, one after the other; each is passed over or running after this."""
        for job_id in job_ids:
            done = threading.Event()

            def deliver(job_id: UUID = job_id, done: threading.Event = done) -> None:
                answer(self._runtime, job_id)
                done.set()

            threading.Thread(target=deliver, daemon=True).start()
            wait_until(lambda: done.is_set() or self.status(job_id) != JobStatus.QUEUED)  # noqa: B023

    def status(self, job_id: UUID) -> JobStatus | None:
        with self._backend.reading() as session:
            return attempts.standing(session, job_id)[0]

    def running(self, *job_ids: UUID) -> int:
        return [self.status(job_id) for job_id in job_ids].count(JobStatus.RUNNING)

    def until_succeeded(self, *job_ids: UUID) -> None:
        wait_until(lambda: {self.status(job_id) for job_id in job_ids} == {JobStatus.SUCCEEDED}, why="all are answered")

    def cancel(self, user: str, *job_ids: UUID) -> None:
        for job_id in job_ids:
            with self._backend.unit_of_work() as uow:
                llm_jobs.cancel(uow, job_id, User(user))


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    with provider_stub() as stub:
        yield stub


@pytest.fixture
def backend(sqlite_url: str, stub: Stub) -> Iterator[Backend]:
    environment = {"AUTH_MODE": "dev", "DATABASE_URL": sqlite_url, "LOCAL_LLM_BASE_URL": stub.base_url}
    # No sweep comes to help, and a cancel is found by the heartbeat.
    settings = Settings.from_environment(environment | {"FORGOTTEN_SECONDS": "600", "HEARTBEAT_SECONDS": "0.1"})
    backend = connect(settings)
    backend.out.close()
    backend.out = Remembered()
    yield backend
    backend.close()


@pytest.fixture
def worker_of(backend: Backend) -> Iterator[Callable[[int], Worker]]:
    """Start a worker of so many places."""
    started: list[Runtime] = []

    def start(places: int) -> Worker:
        settings = replace(backend.settings, worker_concurrency=places, drain_seconds=0)
        runtime = Runtime(settings, backend, life_seconds=3, exit=lambda _: None)
        runtime.start()
        started.append(runtime)
        return Worker(runtime)

    yield start
    for runtime in started:
        runtime.drain()
        wait_until(lambda: not len(runtime.runs), why="all replies are handed over")  # noqa: B023
        runtime.stop()


@pytest.mark.parametrize("places", [1, 4])
def test_newcomers_are_answered_beside_one_users_long_replies(worker_of: Callable[[int], Worker], places: int) -> None:
    worker = worker_of(places)
    many = [worker.ask("hog", LONG) for _ in range(3 * places)]
    worker.wake(*many)
    assert worker.running(*many) == places

    others = [worker.ask(f"user-{number}", SHORT) for number in range(9)]
    worker.wake(*others)

    worker.until_succeeded(*others)
    assert worker.running(*many) == places


def test_place_that_comes_free_goes_to_whose_turn_it_is(worker_of: Callable[[int], Worker]) -> None:
    worker = worker_of(3)
    many = [worker.ask("hog", LONG) for _ in range(6)]
    worker.wake(*many)
    others = [worker.ask(user, LONG) for user in ("ann", "bob", "eve", "joe")]
    worker.wake(*others)
    assert (worker.running(*many), worker.running(*others)) == (3, 2)

    worker.cancel("hog", *many[:2])

    wait_until(lambda: worker.running(*others) == 4, why="the other users' replies are written")
    assert worker.running(*many) == 1


def test_one_user_alone_has_all_places_and_begins_what_waits(worker_of: Callable[[int], Worker]) -> None:
    worker = worker_of(2)
    long = [worker.ask("ann", LONG) for _ in range(2)]
    short = [worker.ask("ann", SHORT) for _ in range(5)]
    worker.wake(*long, *short)
    assert worker.running(*long, *short) == 2

    worker.cancel("ann", long[0])

    worker.until_succeeded(*short)
