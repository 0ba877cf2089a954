"""The numbers of the contract that everyone asks for, with the settings as they are shipped."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from chat_backend.domain.enums import JobStatus, Outcome
from tests.conftest import TIMINGS
from tests.faults.test_stopping import begin, until_provider_closed
from tests.faults.test_workers import who_works_at
from tests.support.databases import POSTGRESQL, Databases
from tests.support.deployment import Deployment, recovered
from tests.support.provider_stub import expected_text, provider_stub
from tests.support.valkey import Valkey

TAKEN_OVER_WITHIN_SECONDS = 20.0
GONE_WITHIN_SECONDS = 25.0
HANDED_OVER_WITHIN_SECONDS = 2.0
CLOSED_WITHIN_SECONDS = 0.5


@pytest.fixture
def shipped(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two workers and a web process with default settings, over PostgreSQL."""
    folder = tmp_path_factory.mktemp("shipped")
    valkey = Valkey(tmp_path_factory.mktemp("valkey"))
    valkey.start()
    with databases.new(POSTGRESQL, folder) as url, provider_stub() as stub:
        environment = {"AUTH_MODE": "dev", "DATABASE_URL": url}
        assert not environment.keys() & TIMINGS.keys()
        made = Deployment(environment, valkey=valkey, stub=stub, folder=folder)
        made.ensure(workers=2)
        try:
            with recovered(made):
                yield made
        finally:
            made.stop()
            valkey.kill()


def test_with_default_settings_a_killed_worker_is_taken_over_from_within_20_seconds(shipped: Deployment) -> None:
    shipped.ensure(workers=2)
    chat = shipped.chat()
    _, cancelled = begin(shipped, chat, "hang=stream,after=5", "cancel")
    session_id, job_id = begin(shipped, chat, "tokens=100,delay=0.05", "takeover")
    viewer = shipped.follow(chat, session_id, deltas=1)
    viewer.until_text(20)

    asked = time.monotonic()
    chat.cancel(cancelled)
    closed_after = until_provider_closed(shipped, "cancel", asked)
    who_works_at(shipped, job_id).kill()
    killed = time.monotonic()
    shipped.until_called("takeover", times=2, seconds=30)
    taken_over_after = time.monotonic() - killed

    print(f"taken over {taken_over_after:.1f} s after the kill, cancelled within {closed_after * 1000:.0f} ms")
    assert taken_over_after < TAKEN_OVER_WITHIN_SECONDS
    assert closed_after < CLOSED_WITHIN_SECONDS
    assert viewer.until_action("completed")["message"]["content"] == expected_text("takeover", 100)
    outcomes = [attempt.outcome for attempt in shipped.job(job_id).attempts]
    assert outcomes == [Outcome.ABANDONED, Outcome.SUCCEEDED]


def test_with_default_settings_a_terminated_worker_hands_over_after_its_grace_and_is_gone(shipped: Deployment) -> None:
    shipped.ensure(workers=2)
    chat = shipped.chat()
    _, job_id = begin(shipped, chat, "tokens=2000,delay=0.05", "handover")
    worker = who_works_at(shipped, job_id)

    worker.send(signal.SIGTERM)
    terminated = time.monotonic()
    again = shipped.until_called("handover", times=2, seconds=30)
    status = worker.wait()
    gone_after = time.monotonic() - terminated
    chat.cancel(job_id)
    shipped.until_job(job_id, JobStatus.CANCELLED)

    handed_over_after = again["received_at"][0] - terminated
    print(f"went on elsewhere {handed_over_after:.1f} s after SIGTERM, gone after {gone_after:.1f} s")
    grace = shipped.settings.drain_seconds
    assert grace <= handed_over_after < grace + HANDED_OVER_WITHIN_SECONDS
    assert (status, gone_after < GONE_WITHIN_SECONDS) == (0, True)
    outcomes = [attempt.outcome for attempt in shipped.job(job_id).attempts]
    assert outcomes == [Outcome.HANDED_OVER, Outcome.CANCELLED]
