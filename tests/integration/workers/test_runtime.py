"""A worker process's runtime over a real database, without Celery."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, update

from chat_backend.bootstrap import Backend, connect
from chat_backend.cli.embedded import free_port
from chat_backend.config import Settings
from chat_backend.domain.enums import JobStatus
from chat_backend.domain.user import User
from chat_backend.models import LlmJob
from chat_backend.realtime.breaker_state import OPEN_CIRCUITS
from chat_backend.services import chat_sessions, messages
from tests.integration.services.conftest import Remembered
from tests.support.provider_stub import provider_stub
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until
from workers.running import Run, Runs
from workers.runtime import Runtime
from workers.wake_up import JobStanding, answer

# Where no provider answers.
NOWHERE = "http://127.0.0.1:9/v1"


@pytest.fixture
def out() -> Remembered:
    return Remembered()


@pytest.fixture
def backend(sqlite_url: str, out: Remembered) -> Iterator[Backend]:
    settings = Settings.from_environment({"AUTH_MODE": "dev", "DATABASE_URL": sqlite_url, "DRAIN_SECONDS": "0"})
    backend = connect(settings)
    backend.out.close()
    backend.out = out
    yield backend
    backend.close()


@pytest.fixture
def job_id(backend: Backend) -> UUID:
    """A job that waits for a worker."""
    return _ask(backend)


def _ask(backend: Backend, user: str = "ann", content: str = "Hello", **stored: Any) -> UUID:
    """Queue a job; `stored` are columns as another release may have written them."""
    with backend.unit_of_work() as uow:
        fields = {"llm_provider": "LOCAL", "llm_model": "m", "title": None, "settings": {}}
        chat = chat_sessions.make(uow, User(user), **fields)[0]
    with backend.unit_of_work() as uow:
        job = messages.send(uow, chat.id, User(user), content=content, process=True).job
        assert job is not None
        if stored:
            uow.session.flush()
            uow.session.execute(update(LlmJob).where(LlmJob.id == job.id).values(**stored))
    return job.id


def _status(backend: Backend, job_id: UUID) -> JobStatus:
    with backend.reading() as session:
        job = session.get(LlmJob, job_id)
        assert job is not None
        return JobStatus(job.status)


class _Drained(Runs):
    """Runs of a worker that is told to drain just before one is added."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self._runtime = runtime

    @contextmanager
    def add(self, run: Run) -> Iterator[bool]:
        self._runtime.drain()
        self._runtime._drain_until(deadline=0)
        with super().add(run) as mine:
            yield mine


def test_a_job_that_comes_as_an_idle_worker_drains_is_left_to_another(
    backend: Backend, job_id: UUID, out: Remembered
) -> None:
    runtime = Runtime(backend.settings, backend)
    runtime.runs = _Drained(runtime)
    out.woken.clear()

    thread = threading.Thread(target=runtime.process, args=(job_id,), daemon=True)
    thread.start()
    wait_until(lambda: out.woken or _status(backend, job_id) != JobStatus.QUEUED)

    assert _status(backend, job_id) == JobStatus.QUEUED
    assert out.woken == [job_id]
    thread.join(5)


def test_exception_of_ours_fails_job_at_once_and_opens_no_circuit(backend: Backend, valkey: Valkey) -> None:
    settings = replace(backend.settings, redis_url=valkey.url, breaker_failures=1)
    jobs = [_ask(backend, user, options={"context_tokens": "many"}) for user in ("ann", "ann", "bob")]
    runtime = Runtime(settings, backend, life_seconds=0.1, exit=lambda _: None)
    runtime.start()

    standings = [answer(runtime, job_id) for job_id in jobs]
    runtime.stop()

    assert standings == [JobStanding(job_id, JobStatus.FAILED, "INTERNAL_ERROR") for job_id in jobs]
    with valkey.client() as redis:
        assert not redis.exists(OPEN_CIRCUITS)


def test_a_failure_is_known_to_all_workers_before_one_may_take_the_job_up_again(
    backend: Backend, valkey: Valkey
) -> None:
    earlier, job_id = _ask(backend), _ask(backend)
    settings = replace(backend.settings, redis_url=valkey.url, breaker_failures=1)
    once = replace(settings, llm_max_attempts=1, local_llm_base_url=NOWHERE)
    open_at_commits, redis = list[bool](), valkey.client()
    left: list[int] = []
    runtime = Runtime(once, backend, life_seconds=0.1, exit=left.append)
    runtime.start()
    runtime.process(earlier)
    event.listen(backend.engine, "commit", lambda _: open_at_commits.append(bool(redis.exists(OPEN_CIRCUITS))))

    runtime.process(job_id)

    assert _status(backend, job_id) == JobStatus.FAILED
    assert (open_at_commits[0], open_at_commits[-1]) == (False, True)
    runtime.stop()
    redis.close()


class _Broken(Runs):
    def wait_until_none(self, seconds: float) -> bool:
        raise RuntimeError("nobody has thought of this")


def test_a_drain_that_fails_does_not_keep_the_process(backend: Backend) -> None:
    left: list[int] = []
    runtime = Runtime(backend.settings, backend, life_seconds=0.1, exit=left.append)
    runtime.runs = _Broken()
    runtime.start()

    stopping = threading.Thread(target=runtime.stop, daemon=True)
    stopping.start()
    stopping.join(10)

    assert not stopping.is_alive()
    wait_until(lambda: left == [0], why="it ends all the same")


def test_what_hangs_in_a_terminated_worker_does_not_keep_the_process(backend: Backend, job_id: UUID) -> None:
    left: list[int] = []
    runtime = Runtime(backend.settings, backend, life_seconds=0.1, exit=left.append)
    runtime.start()

    with runtime.runs.add(Run(job_id, runtime._loop)):  # and never comes out
        runtime.drain()
        wait_until(lambda: left == [0])
    runtime.stop()


@contextmanager
def _working(backend: Backend, **settings: object) -> Iterator[Runtime]:
    quick = {"llm_backoff_base_seconds": 0.01, "llm_backoff_cap_seconds": 0.05, "breaker_failures": 1}
    settings = {**quick, "llm_first_token_timeout_seconds": 30.0, **settings}
    runtime = Runtime(replace(backend.settings, **settings), backend, life_seconds=0.1, exit=lambda status: None)
    runtime.start()
    try:
        yield runtime
    finally:
        runtime.stop()


def _job(backend: Backend, job_id: UUID) -> LlmJob:
    with backend.reading() as session:
        job = session.get(LlmJob, job_id)
        assert job is not None
        _ = job.attempts
        return job


def test_a_model_that_loads_is_asked_again_until_it_answers(backend: Backend) -> None:
    job_id = _ask(backend, content="stub:fail=503,loading,times=6")

    with provider_stub() as stub, _working(backend, local_llm_base_url=stub.base_url) as runtime:
        runtime.process(job_id)

    job = _job(backend, job_id)
    assert (job.status, job.failures, len(job.attempts)) == (JobStatus.SUCCEEDED, 0, 7)
    assert {attempt.error_code for attempt in job.attempts[:-1]} == {"MODEL_LOADING"}


def test_a_server_that_does_not_listen_yet_is_waited_for(backend: Backend, job_id: UUID) -> None:
    port = free_port()
    with _working(backend, local_llm_base_url=f"http://127.0.0.1:{port}/v1") as runtime:
        working = threading.Thread(target=runtime.process, args=(job_id,), daemon=True)
        working.start()
        wait_until(lambda: len(_job(backend, job_id).attempts) > 4, why="it was tried often")
        with provider_stub(port):
            working.join(30)

    assert _status(backend, job_id) == JobStatus.SUCCEEDED


def test_a_server_that_never_listens_fails_the_job(backend: Backend, job_id: UUID) -> None:
    with _working(backend, local_llm_base_url=NOWHERE, llm_first_token_timeout_seconds=0.3) as runtime:
        runtime.process(job_id)

    job = _job(backend, job_id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "PROVIDER_UNREACHABLE")
    assert job.error_message == "The provider can't be reached."


@pytest.mark.parametrize("mode", ["dev", "jwt"])
def test_the_provider_s_sentence_is_logged_and_shown_in_dev_mode_without_the_prompt(
    backend: Backend, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    caplog.set_level(logging.INFO)
    job_id = _ask(backend, content="my own words stub:fail=400")

    with provider_stub() as stub, _working(backend, local_llm_base_url=stub.base_url, auth_mode=mode) as runtime:
        runtime.process(job_id)

    ended = next(record for record in caplog.records if record.message == "an attempt ended")
    shown = _job(backend, job_id).error_message or ""
    assert vars(ended)["provider_message"] == "CANARY you said: …"
    assert shown.endswith("It said: CANARY you said: …") == (mode == "dev")
    assert "CANARY" not in shown or mode == "dev"
