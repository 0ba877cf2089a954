"""Summaries and titles by the model, in real workers over real HTTP."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from chat_backend.domain.enums import JobStatus, Outcome, Purpose
from chat_backend.models import ContextSummary, LlmAttempt
from tests.support.chat import Chat
from tests.support.deployment import Deployment
from tests.support.provider_stub import expected_text
from tests.support.waiting import wait_until

LONG = "word " * 100
STOPS_WITHIN_SECONDS = 0.5


@pytest.fixture
def summing(running: Deployment) -> Iterator[Deployment]:
    """A deployment whose one worker sums up, and asks the model for titles."""
    running.ensure(workers=0)
    running.start("worker", CONTEXT_SUMMARY="on", SESSION_TITLES="model")
    yield running
    running.ensure(workers=0)


def long_session(chat: Chat, aside: str = "", *, model: str = "stub:tokens=5,tag=s", title: str | None = "Mine") -> str:
    """Return a session whose beginning no longer fits; `aside` is among what falls out."""
    session_id: str = chat.new_session(model, title=title, settings={"context_tokens": 256})["id"]
    for text in (f"{aside} {LONG}", LONG, LONG):
        chat.send(session_id, text)
    return session_id


def calls(running: Deployment, job_id: str) -> list[tuple[Purpose, Outcome | None]]:
    return [(attempt.purpose, attempt.outcome) for attempt in running.job(job_id).attempts]


def test_what_does_not_fit_is_summed_up_once_and_every_call_is_on_record(summing: Deployment) -> None:
    chat = summing.chat()
    session_id = long_session(chat)
    summing.follow(chat, session_id, deltas=1)
    jobs = [chat.ask(session_id, text)["job_id"] for text in ("One", "Two")]
    for job_id in jobs:
        summing.until_job(job_id, JobStatus.SUCCEEDED)

    asked = [call["last_user_message"] for call in summing.calls("s")]
    with summing.backend.reading() as session:
        summaries = session.scalars(select(ContextSummary.content)).all()
        attempts = session.scalars(select(LlmAttempt)).all()
    assert calls(summing, jobs[0]) == [(Purpose.SUMMARY, Outcome.SUCCEEDED), (Purpose.REPLY, Outcome.SUCCEEDED)]
    assert calls(summing, jobs[1]) == [(Purpose.REPLY, Outcome.SUCCEEDED)]
    assert asked[0].startswith("Sum up the conversation below")
    assert asked[1:] == ["One", "Two"]
    assert summaries == [expected_text("s", 5).strip()]
    assert [summaries[0] in call["turns"][0]["content"] for call in summing.calls("s")[1:]] == [True, True]
    assert len(attempts) == len(asked)


def test_a_summary_that_fails_does_not_fail_the_reply(summing: Deployment) -> None:
    chat = summing.chat()
    session_id = long_session(chat, "stub:fail=500")

    job_id = chat.ask(session_id, "One")["job_id"]

    summing.until_job(job_id, JobStatus.SUCCEEDED)
    assert calls(summing, job_id) == [(Purpose.SUMMARY, Outcome.FAILED), (Purpose.REPLY, Outcome.SUCCEEDED)]


def test_a_cancel_stops_a_summary_at_once(summing: Deployment) -> None:
    chat = summing.chat()
    session_id = long_session(chat, "stub:hang=first,tag=hung")
    job_id = chat.ask(session_id, "One")["job_id"]
    wait_until(lambda: summing.stub.ledger(), why="the summary is asked for")

    chat.cancel(job_id)
    accepted = time.time()
    wait_until(lambda: summing.stub.ledger()[0]["disconnected"], why="the provider is left")

    assert summing.stub.ledger()[0]["ended_at"][1] - accepted < STOPS_WITHIN_SECONDS
    assert summing.until_job(job_id, JobStatus.CANCELLED).attempts[0].outcome == Outcome.CANCELLED
    assert chat.messages(session_id)[-1]["content"] == ""


def test_a_worker_that_is_killed_while_it_sums_up_is_replaced(summing: Deployment) -> None:
    chat = summing.chat()
    session_id = long_session(chat, "stub:hang=first,times=1")
    job_id = chat.ask(session_id, "One")["job_id"]
    wait_until(lambda: summing.stub.ledger(), why="the summary is asked for")

    summing.worker.kill()
    summing.start("worker", CONTEXT_SUMMARY="on")

    summing.until_job(job_id, JobStatus.SUCCEEDED)
    assert calls(summing, job_id) == [
        (Purpose.SUMMARY, Outcome.ABANDONED),
        (Purpose.SUMMARY, Outcome.SUCCEEDED),
        (Purpose.REPLY, Outcome.SUCCEEDED),
    ]


def test_the_model_names_a_session_after_its_first_exchange(summing: Deployment) -> None:
    chat = summing.chat()
    session_id = chat.new_session("stub:tokens=3,tag=t", title=None)["id"]
    viewer = summing.follow(chat, session_id)

    job_id = chat.ask(session_id, "Hello")["job_id"]
    named = viewer.until(lambda frame: frame["type"] == "session_update")

    assert named["session"]["title"] == "t.1 t.2 t.3"
    assert calls(summing, job_id) == [(Purpose.REPLY, Outcome.SUCCEEDED), (Purpose.TITLE, Outcome.SUCCEEDED)]
    assert Counter(call["last_user_message"][:10] for call in summing.calls("t")) == {"Hello": 1, "Give the c": 1}


def test_a_session_is_named_by_its_first_words_where_the_model_fails(summing: Deployment) -> None:
    chat = summing.chat()
    session_id = chat.new_session("stub:tokens=3,tag=t", title=None)["id"]
    viewer = summing.follow(chat, session_id)

    job_id = chat.ask(session_id, "Hello stub:cut=1,times=1 there")["job_id"]
    named = viewer.until(lambda frame: frame["type"] == "session_update")

    assert named["session"]["title"] == "Hello stub:cut=1,times=1 there"
    assert calls(summing, job_id)[-1] == (Purpose.TITLE, Outcome.FAILED)
