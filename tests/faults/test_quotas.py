"""Quotas while workers die: nothing stays reserved, and what was asked is counted once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from chat_backend.domain.enums import JobStatus
from chat_backend.domain.quota import Standing
from chat_backend.models import LlmAttempt, LlmJob
from chat_backend.services import quotas
from tests.support.deployment import Deployment
from tests.support.waiting import wait_until

REQUESTS = 6


@pytest.fixture
def rationed(running: Deployment) -> Deployment:
    """A deployment whose second web process gives everyone six requests a day, and many tokens."""
    running.start("web", QUOTA_REQUESTS_PER_DAY=str(REQUESTS), QUOTA_TOKENS_PER_DAY="1000000")
    return running


def standing(running: Deployment, user: str) -> Standing:
    with running.backend.reading() as session:
        return quotas.standing(session, user)


def test_what_a_killed_worker_had_in_hand_is_settled_once(rationed: Deployment) -> None:
    chat = rationed.chat("kim", web=1)
    sessions = [chat.new_session(f"stub:tokens=40,delay=0.03,tag=q{n}")["id"] for n in range(3 * REQUESTS)]

    def ask(session_id: str) -> int:
        return chat.http.post(f"/sessions/{session_id}/process-llm", json={"prompt": "Go", "stream": True}).status_code

    with ThreadPoolExecutor(len(sessions)) as pool:
        answers = list(pool.map(ask, sessions))
    wait_until(lambda: len(rationed.calls()) >= REQUESTS, why="all are being answered")
    rationed.worker.kill()
    rationed.ensure(webs=2)
    rationed.until_quiet()

    assert (answers.count(202), answers.count(429)) == (REQUESTS, 2 * REQUESTS)
    found = standing(rationed, "kim")
    with rationed.backend.reading() as session:
        succeeded = session.scalar(select(func.count()).where(LlmJob.status == JobStatus.SUCCEEDED))
        counted = session.scalar(select(func.sum(LlmAttempt.prompt_tokens + LlmAttempt.completion_tokens)))
    assert (succeeded, found.used.requests, found.reserved.requests, found.reserved.tokens) == (
        REQUESTS,
        REQUESTS,
        0,
        0,
    )
    assert found.used.tokens >= (counted or 0) > 0


def test_long_replies_asked_for_at_once_exceed_the_tokens_of_a_day_by_no_more_than_one_reservation(
    running: Deployment,
) -> None:
    running.start("web", QUOTA_TOKENS_PER_DAY="300", QUOTA_REPLY_TOKENS="50")
    chat = running.chat("lee", web=1)
    sessions = [chat.new_session(f"stub:tokens=500,tag=l{n}")["id"] for n in range(12)]

    def ask(session_id: str) -> int:
        return chat.http.post(f"/sessions/{session_id}/process-llm", json={"prompt": "Go", "stream": True}).status_code

    with ThreadPoolExecutor(len(sessions)) as pool:
        answers = list(pool.map(ask, sessions))
    running.until_quiet()

    assert 0 < answers.count(202) < len(sessions)
    assert {call["parameters"]["max_tokens"] for call in running.calls()} == {50}
    # A reservation here: 50, and the prompt, which the provider counts as 7.
    assert 0 < standing(running, "lee").used.tokens <= 300 + 57
