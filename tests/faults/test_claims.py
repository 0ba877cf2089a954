"""Races for jobs, at the level of the database: many threads, both databases, no process in between."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import UUID

import pytest

from chat_backend.bootstrap import Backend, connect
from chat_backend.config import Settings
from chat_backend.domain.enums import JobStatus, Outcome
from chat_backend.domain.errors import LeaseLost
from chat_backend.domain.usage import Usage
from chat_backend.domain.user import User
from chat_backend.services import attempts, chat_sessions, leases, messages
from chat_backend.services.attempts import Claim, Measured, Terms
from chat_backend.services.invariants import examine
from chat_backend.services.llm_jobs import find
from tests.conftest import TIMINGS
from tests.support.deployment import Silent
from tests.support.waiting import wait_until

RACERS = 8
JOBS = 24
ALICE = User("alice")
TERMS = Terms(worker="w", lease_seconds=60, max_abandonments=1000, expiry_seconds=60, context_tokens=4096)
WHOLE = Measured(text="An answer.", duration_ms=1, counts=Usage(completion_tokens=2))


@pytest.fixture
def backend(database_url: str) -> Iterator[Backend]:
    settings = Settings.from_environment({"AUTH_MODE": "dev", "DATABASE_URL": database_url, **TIMINGS})
    backend = Backend(settings, connect(settings).engine, Silent())
    yield backend
    backend.close()


def ask(backend: Backend) -> UUID:
    """Queue one job in a session of its own."""
    with backend.unit_of_work() as uow:
        chat, _ = chat_sessions.make(uow, ALICE, llm_provider="LOCAL", llm_model="m", title=None, settings={})
    with backend.unit_of_work() as uow:
        sent = messages.send(uow, chat.id, ALICE, content="Go on.", process=True)
    assert sent.job is not None
    return sent.job.id


def claim(backend: Backend, job_id: UUID, terms: Terms = TERMS) -> Claim | None:
    with backend.unit_of_work() as uow:
        return attempts.claim(uow, job_id, terms)


def succeed(backend: Backend, claimed: Claim) -> bool:
    """Store a whole reply; say whether it was still wanted."""
    try:
        with backend.unit_of_work() as uow:
            attempts.succeed(uow, claimed, WHOLE)
    except LeaseLost:
        return False
    return True


def test_of_many_that_race_for_a_job_exactly_one_wins(backend: Backend) -> None:
    jobs = [ask(backend) for _ in range(JOBS)]

    with ThreadPoolExecutor(RACERS) as racers:
        claims = list(racers.map(lambda job_id: claim(backend, job_id), jobs * RACERS))

    won = [claimed.job_id for claimed in claims if claimed]
    assert sorted(won) == sorted(jobs)


def test_stalls_longer_than_the_lease_give_one_answer_and_refuse_the_others(backend: Backend) -> None:
    jobs = [ask(backend) for _ in range(JOBS)]
    short = replace(TERMS, lease_seconds=0.001)
    refused = []

    def race(number: int) -> None:
        mine = [claimed for job_id in random.sample(jobs, JOBS) if (claimed := claim(backend, job_id, short))]
        refused.extend(claimed for claimed in mine if not succeed(backend, claimed))

    with ThreadPoolExecutor(RACERS) as racers:
        list(racers.map(race, range(RACERS)))

    with backend.reading() as session:
        found = [find(session, job_id) for job_id in jobs]
    assert {job.status for job in found} == {JobStatus.SUCCEEDED}
    for job in found:
        outcomes = [attempt.outcome for attempt in job.attempts]
        assert outcomes == [Outcome.ABANDONED] * (len(outcomes) - 1) + [Outcome.SUCCEEDED]
    assert sum(job.attempt - 1 for job in found) == len(refused)
    with backend.reading() as session:
        assert examine(session, patience_seconds=0).healthy


def test_a_lease_lives_only_as_long_as_its_job_is_in_hand(backend: Backend) -> None:
    kept, lost = ask(backend), ask(backend)
    short = replace(TERMS, lease_seconds=0.2)
    for job_id in (kept, lost):
        assert claim(backend, job_id, short)

    with backend.unit_of_work() as uow:
        leases.renew(uow.session, "w", [kept], lease_seconds=60)

    other = wait_until(lambda: claim(backend, lost, replace(TERMS, worker="other")), seconds=5)
    assert (other.number, claim(backend, kept)) == (2, None)


def test_a_success_after_an_accepted_cancel_is_none(backend: Backend) -> None:
    from chat_backend.services import llm_jobs

    job_id = ask(backend)
    claimed = claim(backend, job_id)
    assert claimed is not None
    with backend.unit_of_work() as uow:
        llm_jobs.cancel(uow, job_id, ALICE)

    with backend.unit_of_work() as uow:
        status = attempts.succeed(uow, claimed, WHOLE)

    assert status == JobStatus.CANCELLED


def test_a_job_that_nobody_started_in_time_fails(backend: Backend) -> None:
    job_id = ask(backend)

    claimed = claim(backend, job_id, replace(TERMS, expiry_seconds=0.0))

    with backend.reading() as session:
        job = find(session, job_id)
    assert (claimed, job.status, job.error_code) == (None, JobStatus.FAILED, "JOB_EXPIRED")


def test_the_jobs_of_a_session_run_one_at_a_time_in_order(backend: Backend) -> None:
    with backend.unit_of_work() as uow:
        chat, _ = chat_sessions.make(uow, ALICE, llm_provider="LOCAL", llm_model="m", title=None, settings={})
    jobs = []
    for number in range(5):
        with backend.unit_of_work() as uow:
            sent = messages.send(uow, chat.id, ALICE, content=f"{number}", process=True)
        assert sent.job is not None
        jobs.append(sent.job.id)
    order: list[UUID] = []

    def race(number: int) -> None:
        while len(order) < len(jobs):
            for job_id in random.sample(jobs, len(jobs)):
                if claimed := claim(backend, job_id):
                    order.append(job_id)
                    succeed(backend, claimed)

    with ThreadPoolExecutor(4) as racers:
        list(racers.map(race, range(4)))

    assert order == jobs
