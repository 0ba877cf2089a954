"""Every call that may be billed is on record: the attempts against the provider's own ledger, after chaos."""

from __future__ import annotations

import signal
from typing import Any

from sqlalchemy import select

from chat_backend.domain.enums import Outcome
from chat_backend.models import LlmAttempt, LlmJob
from tests.support.deployment import Deployment
from tests.support.waiting import wait_until

SCRIPTS = [
    "tokens=20,delay=0.05", "tokens=60,delay=0.05", "tokens=200,delay=0.02", "tokens=7,whole", "tokens=30,reasoning=4",
    "tokens=20,fail=429,times=1", "tokens=20,fail=500,times=2", "tokens=20,fail=400", "tokens=9,fail=503,retry_after=1",
    "tokens=20,cut=5,times=1,delay=0.02", "tokens=20,eof=5", "tokens=20,error_event=5,times=1", "tokens=20,reset=3",
    "tokens=20,no_usage", "tokens=20,server=llamacpp", "tokens=20,hang=stream,after=5,times=1",
    "tokens=20,drop,times=1",
]  # fmt: skip
CANCELLED = ("tokens=900,delay=0.02", "hang=headers", "hang=stream,after=3")
# Ends that come without a word from the provider, or before one.
CUT_SHORT = (Outcome.ABANDONED, Outcome.HANDED_OVER, Outcome.CANCELLED)


def test_after_chaos_the_attempts_are_the_provider_s_ledger(running: Deployment) -> None:
    running.ensure(workers=2)
    chat = running.chat()
    doomed, survivor = running.workers

    asked = [ask(chat, script, number) for number, script in enumerate(SCRIPTS)]
    stopped = [ask(chat, script, number) for number, script in enumerate(CANCELLED, len(SCRIPTS))]
    wait_until(lambda: len(running.calls()) >= len(asked), why="the provider is busy")
    doomed.kill()
    running.start("worker")
    for job_id in stopped:
        chat.cancel(job_id)
    survivor.send(signal.SIGTERM)
    running.until_quiet()
    survivor.wait()

    compare(running)


def ask(chat: Any, script: str, number: int) -> str:
    session = chat.new_session(f"stub:{script},tag=a{number}")
    job_id: str = chat.ask(session["id"], f"Question {number}.")["job_id"]
    return job_id


def compare(running: Deployment) -> None:
    with running.backend.reading() as session:
        attempts = list(session.scalars(select(LlmAttempt).join(LlmJob).order_by(LlmAttempt.job_id, LlmAttempt.number)))
    calls = running.stub.ledger()

    pairs = [(attempt_of(call, attempts), call) for call in calls]
    # A kept connection that is dropped without an answer is replaced within the attempt.
    answered = {(attempt.job_id, attempt.number) for attempt, call in pairs if not call["dropped"]}
    pairs = [(a, call) for a, call in pairs if not (call["dropped"] and (a.job_id, a.number) in answered)]

    assert len({(attempt.job_id, attempt.number) for attempt, _ in pairs}) == len(pairs)
    uncalled = [a for a in attempts if (a.job_id, a.number) not in {(b.job_id, b.number) for b, _ in pairs}]
    assert {attempt.outcome for attempt in uncalled} <= set(CUT_SHORT)
    # What was cut short nobody has counted: its prompt is on record as estimated, and what was read of the reply.
    cut = [(attempt, call) for attempt, call in pairs if attempt.outcome in CUT_SHORT]
    assert cut
    assert all(attempt.prompt_tokens and (attempt.usage_estimated or call["usage"]) for attempt, call in cut)
    assert all(
        (attempt.completion_tokens or 0) <= -(-len(call["text"]) // 4) for attempt, call in cut if not call["usage"]
    )
    heard = [(attempt, call) for attempt, call in pairs if attempt.outcome not in CUT_SHORT]
    assert [call["status"] or 200 for attempt, call in heard if attempt.http_status] == [
        attempt.http_status for attempt, _ in heard if attempt.http_status
    ]
    for name in ("prompt_tokens", "completion_tokens", "cost"):
        billed = sum(call["usage"][name] for _, call in heard if call["usage"])
        recorded = sum(getattr(attempt, name) or 0 for attempt, _ in heard if not attempt.usage_estimated)
        assert (name, round(recorded, 6)) == (name, round(billed, 6))
    assert {attempt.usage_estimated for attempt, call in heard if call["usage"]} == {False}
    estimated = [(attempt, call) for attempt, call in heard if attempt.usage_estimated]
    assert estimated
    assert all(attempt.completion_tokens == -(-len(call["text"]) // 4) for attempt, call in estimated)


def attempt_of(call: dict[str, Any], attempts: list[LlmAttempt]) -> LlmAttempt:
    """Find the attempt that made a call: the one of its model within whose time it came."""
    at = call["received_at"][1]
    found = [a for a in attempts if a.model == call["model"] and began(a) <= at <= ended(a)]
    assert len(found) == 1, (call["model"], at, [(began(a), ended(a)) for a in attempts if a.model == call["model"]])
    return found[0]


def began(attempt: LlmAttempt) -> float:
    return attempt.started_at.timestamp()


def ended(attempt: LlmAttempt) -> float:
    assert attempt.finished_at is not None
    return attempt.finished_at.timestamp()
