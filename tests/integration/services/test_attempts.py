"""Claims, ends and everything between, as the database decides them."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import update

from chat_backend.domain.enums import JobStatus, MessageStatus, Outcome
from chat_backend.domain.errors import (
    ConnectionRefused,
    ErrorCode,
    InternalFault,
    LeaseLost,
    ProviderRefused,
    ProviderTimeout,
    ReplyTooLong,
    StreamBroken,
)
from chat_backend.domain.retry import RetryPolicy
from chat_backend.domain.usage import Usage
from chat_backend.models import LlmAttempt, LlmJob
from chat_backend.models.base import now
from chat_backend.services import attempts, leases, llm_jobs
from chat_backend.services.attempts import Asked, Claim
from tests.integration.services.conftest import ALICE, WORKER, World, measured

POLICY = RetryPolicy(max_attempts=2, base_seconds=0.0, cap_seconds=0.0)
SLOW = RetryPolicy(max_attempts=2, base_seconds=100.0, cap_seconds=100.0)
STARTING = RetryPolicy(max_attempts=2, base_seconds=0.0, cap_seconds=0.0, starting_seconds=300.0)


def fail(world: World, claim: Claim, error: Exception, text: str = "", policy: RetryPolicy = POLICY) -> float | None:
    with world.backend.unit_of_work() as uow:
        return attempts.failed(uow, claim, measured(text), error=error, policy=policy)  # type: ignore[arg-type]


def let_lease_end(world: World, claim: Claim) -> None:
    with world.backend.unit_of_work() as uow:
        uow.session.execute(update(LlmJob).where(LlmJob.id == claim.job_id).values(lease_until=1.0))


def test_after_a_timeout_the_same_model_is_asked_once_more_with_more_patience(world: World) -> None:
    policy = RetryPolicy(max_attempts=5, base_seconds=0.0, cap_seconds=0.0)
    session_id = world.new_session(fallbacks=["LOCAL:other"])
    job = world.ask(session_id, "Hello")

    asked = []
    for error in (ProviderTimeout("x"), StreamBroken("x"), ProviderTimeout("x"), ProviderTimeout("x")):
        claim = world.must_claim(job.id)
        asked.append((claim.request.model, claim.request.patient))
        fail(world, claim, error, policy=policy)
    last = world.must_claim(job.id)

    first = asked[0][0]
    assert asked == [(first, False), (first, True), (first, False), ("other", False)]
    assert (last.request.model, last.request.patient) == ("other", True)


def test_an_attempt_keeps_all_that_is_billed(world: World) -> None:
    job = world.ask(world.new_session(), "Hello")
    claim = world.must_claim(job.id)
    counts = Usage(10, 20, cached_tokens=4, reasoning_tokens=5, cost=0.25)

    with world.backend.unit_of_work() as uow:
        attempts.succeed(uow, claim, measured("Hi!", counts=counts, http_status=200, generation_id="gen-1"))

    attempt = world.job(job.id).attempts[0]

    assert (attempt.prompt_tokens, attempt.completion_tokens, attempt.cost) == (10, 20, 0.25)
    assert (attempt.cached_tokens, attempt.reasoning_tokens, attempt.usage_estimated) == (4, 5, False)
    assert (attempt.generation_id, attempt.error_type) == ("gen-1", None)


def test_a_lost_worker_s_text_is_counted_as_far_as_it_is_known(world: World) -> None:
    job = world.ask(world.new_session(), "Hello")
    claim = world.must_claim(job.id)
    with world.backend.unit_of_work() as uow:
        leases.checkpoint(uow.session, [leases.Progress(claim.message_id, claim.number, "Hi, I wa")])
    let_lease_end(world, claim)

    world.must_claim(job.id)

    attempt = world.job(job.id).attempts[0]
    assert (attempt.outcome, attempt.completion_tokens, attempt.usage_estimated) == (Outcome.ABANDONED, 2, True)
    assert attempt.prompt_tokens == 6


def test_a_call_has_the_count_of_its_prompt_from_its_beginning_and_keeps_it_where_it_is_cut_short(
    world: World,
) -> None:
    lost, left, stopped = (world.ask(world.new_session(), "Hello") for _ in range(3))
    let_lease_end(world, world.must_claim(lost.id))
    world.must_claim(lost.id)
    claim = world.must_claim(left.id)
    with world.backend.unit_of_work() as uow:
        attempts.stopped(uow, claim, measured())
    claim = world.must_claim(stopped.id)
    with world.backend.unit_of_work() as uow:
        llm_jobs.cancel(uow, stopped.id, ALICE)
    with world.backend.unit_of_work() as uow:
        attempts.stopped(uow, claim, measured())

    found = [world.job(job.id).attempts[0] for job in (lost, left, stopped)]

    assert [a.outcome for a in found] == [Outcome.ABANDONED, Outcome.HANDED_OVER, Outcome.CANCELLED]
    assert [(a.prompt_tokens, a.usage_estimated) for a in found] == [(6, True)] * 3


def test_a_call_that_was_refused_has_no_count(world: World) -> None:
    job = world.ask(world.new_session(), "Hello")
    fail(world, world.must_claim(job.id), ProviderRefused("No.", http_status=400))

    attempt = world.job(job.id).attempts[0]

    assert (attempt.prompt_tokens, attempt.completion_tokens, attempt.usage_estimated) == (None, None, False)


def test_a_second_delivery_finds_nothing_to_claim(world: World) -> None:
    job = world.ask(world.new_session(), "Hello")

    first, second = world.claim(job.id), world.claim(job.id)

    assert first is not None
    assert (first.number, second) == (1, None)


def test_a_reply_is_stored_whole_with_what_the_provider_counted(world: World) -> None:
    job = world.ask(world.new_session(), "Hello")
    claim = world.must_claim(job.id)

    with world.backend.unit_of_work() as uow:
        status = attempts.succeed(uow, claim, measured("Hi!", completion_tokens=7, usage={"completion_tokens": 7}))

    reply = world.reply(job)
    assert (status, reply.content, reply.status) == (JobStatus.SUCCEEDED, "Hi!", MessageStatus.COMPLETE)
    assert (reply.tokens_used, reply.message_metadata["usage"]) == (7, {"completion_tokens": 7})
    assert "usage_estimated" not in reply.message_metadata


def test_a_count_that_the_provider_did_not_give_is_estimated_and_says_so(world: World) -> None:
    job = world.answer(world.new_session(), "Hello", "x" * 40)

    reply = world.reply(job)

    assert (reply.tokens_used, reply.message_metadata["usage_estimated"]) == (10, True)


def test_who_slept_past_its_lease_is_refused(world: World) -> None:
    job = world.ask(world.new_session(), "Hello")
    sleeper = world.must_claim(job.id)
    let_lease_end(world, sleeper)
    other = world.must_claim(job.id)

    with pytest.raises(LeaseLost), world.backend.unit_of_work() as uow:
        attempts.succeed(uow, sleeper, measured("too late"))

    assert other.number == 2
    assert [a.outcome for a in world.job(job.id).attempts] == [Outcome.ABANDONED, None]
    assert world.reply(job).content == ""


def test_a_take_over_empties_the_text_and_says_so(world: World) -> None:
    job = world.ask(world.new_session(), "Hello")
    fail(world, world.must_claim(job.id), StreamBroken("broke"), text="Half an ans")
    before = len(world.out.envelopes)

    again = world.must_claim(job.id)

    told = [envelope.frame for _, envelope in world.out.envelopes[before:]]  # type: ignore[union-attr]
    assert again.number == 2
    assert b'"restarted"' in told[0]
    assert world.reply(job).content == ""


def test_a_job_that_loses_its_workers_again_and_again_fails(world: World) -> None:
    job = world.ask(world.new_session(), "Hello")
    for _ in range(3):
        let_lease_end(world, world.must_claim(job.id))

    claim = world.claim(job.id)

    ended = world.job(job.id)
    assert claim is None
    assert (ended.status, ended.error_code, ended.attempt) == (JobStatus.FAILED, ErrorCode.WORKER_LOST, 3)
    assert world.reply(job).status == MessageStatus.FAILED


def test_a_failure_that_may_pass_waits_in_the_queue_and_keeps_its_text(world: World) -> None:
    job = world.ask(world.new_session(), "Hello")

    delay = fail(world, world.must_claim(job.id), StreamBroken("broke"), "Half", SLOW)

    waiting = world.job(job.id)
    assert delay is not None
    assert (waiting.status, waiting.attempt, waiting.lease_owner) == (JobStatus.QUEUED, 1, None)
    assert waiting.retry_at is not None
    assert world.reply(job).content == "Half"
    assert world.reply(job).status == MessageStatus.STREAMING


def test_a_retry_that_waits_keeps_its_place(world: World) -> None:
    session_id = world.new_session()
    first, second = world.ask(session_id, "One"), world.ask(session_id, "Two")
    fail(world, world.must_claim(first.id), StreamBroken("broke"), policy=SLOW)

    claim = world.claim(second.id)

    assert claim is None


def test_when_a_provider_is_used_up_the_next_is_asked_at_once(world: World) -> None:
    job = world.ask(world.new_session(fallbacks=["OPENROUTER:other"]), "Hello")
    fail(world, world.must_claim(job.id), StreamBroken("broke"))

    delay = fail(world, world.must_claim(job.id), StreamBroken("broke again"))
    third = world.must_claim(job.id)

    assert delay == 0.0
    assert (third.number, third.provider, third.request.model) == (3, "OPENROUTER", "other")
    assert world.reply(job).llm_model == "other"


def test_a_hopeless_failure_is_not_repeated(world: World) -> None:
    job = world.ask(world.new_session(), "Hello")

    delay = fail(world, world.must_claim(job.id), ProviderRefused("no", http_status=400))

    ended = world.job(job.id)
    assert delay is None
    assert (ended.status, ended.error_code) == (JobStatus.FAILED, ErrorCode.PROVIDER_REJECTED)
    assert [a.http_status for a in ended.attempts] == [400]


def test_a_reply_that_is_too_long_ends_there_and_keeps_its_text(world: World) -> None:
    job = world.ask(world.new_session(fallbacks=["OPENROUTER:other"]), "Hello")

    delay = fail(world, world.must_claim(job.id), ReplyTooLong("too long"), "very long")

    assert delay is None
    assert world.job(job.id).error_code == ErrorCode.REPLY_TOO_LONG
    assert world.reply(job).content == "very long"


def test_success_is_refused_once_a_cancel_was_accepted(world: World) -> None:
    job = world.ask(world.new_session(), "Hello")
    claim = world.must_claim(job.id)
    with world.backend.unit_of_work() as uow:
        stopped = llm_jobs.cancel(uow, job.id, ALICE)

    with world.backend.unit_of_work() as uow:
        status = attempts.succeed(uow, claim, measured("All of it"))

    assert stopped
    assert status == JobStatus.CANCELLED
    assert (world.reply(job).status, world.reply(job).content) == (MessageStatus.CANCELLED, "All of it")


def test_a_stop_that_nobody_asked_for_hands_the_job_over(world: World) -> None:
    job = world.ask(world.new_session(), "Hello")
    claim = world.must_claim(job.id)
    world.out.woken.clear()

    with world.backend.unit_of_work() as uow:
        attempts.stopped(uow, claim, measured("Half"))

    back = world.job(job.id)
    assert (back.status, back.attempts[0].outcome, back.abandonments) == (JobStatus.QUEUED, Outcome.HANDED_OVER, 0)
    assert world.out.woken == [job.id]


def test_the_end_of_a_job_wakes_the_next_of_its_session(world: World) -> None:
    session_id = world.new_session()
    first, second = world.ask(session_id, "One"), world.ask(session_id, "Two")
    world.out.woken.clear()
    claim = world.must_claim(first.id)

    with world.backend.unit_of_work() as uow:
        attempts.succeed(uow, claim, measured("Done"))

    assert world.out.woken == [second.id]


def test_a_job_that_nobody_could_begin_in_time_fails(world: World) -> None:
    job = world.ask(world.new_session(), "Hello")
    world.terms = attempts.Terms("w", lease_seconds=15, max_abandonments=3, expiry_seconds=0, context_tokens=8192)

    claim = world.claim(job.id)

    assert claim is None
    assert world.job(job.id).error_code == ErrorCode.JOB_EXPIRED


def test_offsets_have_no_gap_whatever_happens(world: World) -> None:
    session_id = world.new_session()
    job = world.ask(session_id, "One")
    fail(world, world.must_claim(job.id), StreamBroken("broke"), "Half")
    claim = world.must_claim(job.id)
    with world.backend.unit_of_work() as uow:
        attempts.succeed(uow, claim, measured("Done"))

    offsets = world.out.offsets

    assert offsets == list(range(1, len(offsets) + 1))


def pass_over(world: World, job: LlmJob) -> float | None:
    with world.backend.unit_of_work() as uow:
        return attempts.pass_over(uow, job.id, world.terms, wait_seconds=0.0, patience_seconds=60)


def grow_older(world: World, seconds: float) -> None:
    """Let jobs, and what they have waited for an open circuit, be older."""
    with world.backend.unit_of_work() as uow:
        older = {"created_at": now() - timedelta(seconds=seconds)}
        uow.session.execute(update(LlmJob).values(passed_over_at=LlmJob.passed_over_at - seconds, **older))


def test_an_open_circuit_is_passed_over_for_the_next_of_the_chain(world: World) -> None:
    job = world.ask(world.new_session(fallbacks=["OPENAI:other"]), "Hello")

    wait = pass_over(world, job)

    passed, claim = world.job(job.id), world.must_claim(job.id)
    assert (wait, passed.status, passed.attempt) == (0.0, JobStatus.QUEUED, 0)
    assert (claim.provider, claim.request.model, claim.number) == ("OPENAI", "other", 1)
    assert (world.reply(job).llm_provider, world.reply(job).llm_model) == ("OPENAI", "other")


def test_a_job_waits_for_the_only_model_it_has_and_then_gives_up(world: World) -> None:
    job = world.ask(world.new_session(), "Hello")

    waits = [pass_over(world, job)]
    grow_older(world, 50)
    waits.append(pass_over(world, job))
    grow_older(world, 20)
    waits.append(pass_over(world, job))

    ended = world.job(job.id)
    assert waits == [0.0, 0.0, None]
    assert (ended.status, ended.error_code, ended.attempts) == (JobStatus.FAILED, ErrorCode.CIRCUIT_OPEN, [])
    assert world.reply(job).status == MessageStatus.FAILED


def test_a_job_that_had_waited_long_for_its_turn_waits_for_the_circuit_all_the_same(world: World) -> None:
    job = world.ask(world.new_session(), "Hello")
    grow_older(world, 1000)

    wait = pass_over(world, job)

    assert (wait, world.job(job.id).status) == (0.0, JobStatus.QUEUED)


def test_after_an_attempt_patience_begins_anew(world: World) -> None:
    job = world.ask(world.new_session(), "Hello")
    pass_over(world, job)
    grow_older(world, 1000)
    fail(world, world.must_claim(job.id), StreamBroken("broke"))

    wait = pass_over(world, job)

    assert (wait, world.job(job.id).status) == (0.0, JobStatus.QUEUED)


def test_only_a_job_that_is_to_be_taken_up_asks_whether_its_model_may_be_asked(world: World) -> None:
    session_id = world.new_session()
    first, second = world.ask(session_id, "One"), world.ask(session_id, "Two")

    asked = [next_asked(world, job.id) for job in (first, second)]
    claim = world.must_claim(first.id)
    asked.append(next_asked(world, first.id))
    let_lease_end(world, claim)
    asked.append(next_asked(world, first.id))
    fail(world, world.must_claim(first.id), StreamBroken("broke"), policy=SLOW)
    asked.append(next_asked(world, first.id))

    model = Asked("LOCAL", "m", "alice")
    assert asked == [model, None, None, model, None]


def next_asked(world: World, job_id: UUID) -> Asked | None:
    with world.backend.reading() as session:
        return attempts.next_asked(session, job_id)


@pytest.mark.parametrize("running", [False, True])
def test_internal_error_ends_job_and_its_attempt(world: World, running: bool) -> None:
    job = world.ask(world.new_session(), "Hello")
    if running:
        world.must_claim(job.id)

    with world.backend.unit_of_work() as uow:
        attempts.fail_internally(uow, job.id, worker=WORKER)

    stored = world.job(job.id)
    assert (stored.status, stored.error_code) == (JobStatus.FAILED, "INTERNAL_ERROR")
    assert [(a.outcome, a.error_code) for a in stored.attempts] == [(Outcome.FAILED, "INTERNAL_ERROR")] * running
    assert world.reply(job).status == MessageStatus.FAILED


def test_internal_error_leaves_another_workers_job_alone(world: World) -> None:
    job = world.ask(world.new_session(), "Hello")
    world.must_claim(job.id)

    with world.backend.unit_of_work() as uow:
        attempts.fail_internally(uow, job.id, worker="worker-2")

    assert world.job(job.id).status == JobStatus.RUNNING


def test_internal_error_asks_no_fallback(world: World) -> None:
    job = world.ask(world.new_session(fallbacks=["LOCAL:other"]), "Hello")
    claim = world.must_claim(job.id)

    fail(world, claim, InternalFault())

    assert (world.job(job.id).status, world.job(job.id).error_code) == (JobStatus.FAILED, "INTERNAL_ERROR")


def loading() -> ProviderRefused:
    return ProviderRefused("The model is still loading.", code=ErrorCode.MODEL_LOADING, retryable=True)


def begun_earlier(world: World, job: LlmJob, seconds: float) -> None:
    earlier = now() - timedelta(seconds=seconds)
    with world.backend.unit_of_work() as uow:
        uow.session.execute(update(LlmAttempt).where(LlmAttempt.job_id == job.id).values(started_at=earlier))


@pytest.mark.parametrize("error", [loading(), ConnectionRefused("Nothing listens.")], ids=["loading", "refused"])
def test_a_server_that_starts_is_waited_for_up_to_the_limit(world: World, error: Exception) -> None:
    job = world.ask(world.new_session(), "Hello")

    for _ in range(5):
        assert fail(world, world.must_claim(job.id), error, policy=STARTING) is not None
    waiting = world.job(job.id)
    begun_earlier(world, job, 301)
    ended = fail(world, world.must_claim(job.id), error, policy=STARTING)

    assert (waiting.status, waiting.failures, len(waiting.attempts)) == (JobStatus.QUEUED, 0, 5)
    assert ended is None
    assert world.job(job.id).status == JobStatus.FAILED


def test_the_time_for_a_server_that_starts_begins_anew_after_another_failure(world: World) -> None:
    job = world.ask(world.new_session(), "Hello")
    fail(world, world.must_claim(job.id), loading(), policy=STARTING)
    fail(world, world.must_claim(job.id), StreamBroken("broke"), policy=STARTING)
    begun_earlier(world, job, 301)

    assert fail(world, world.must_claim(job.id), loading(), policy=STARTING) is not None


def test_a_server_that_refuses_connections_is_not_waited_for_if_another_can_be_asked(world: World) -> None:
    job = world.ask(world.new_session(), "Hello", fallbacks=["LOCAL:other"])

    claims = []
    for _ in range(3):
        claims.append(world.must_claim(job.id))
        fail(world, claims[-1], ConnectionRefused("Nothing listens."), policy=STARTING)

    assert [claim.request.model for claim in claims] == ["m", "m", "other"]
    assert [claim.is_last for claim in claims] == [False, False, True]
    assert world.job(job.id).status == JobStatus.QUEUED


def test_a_job_that_waits_for_its_server_is_cancelled_at_once(world: World) -> None:
    session_id = world.new_session()
    first, second = world.ask(session_id, "One"), world.ask(world.new_session(), "Two")
    slow = RetryPolicy(max_attempts=2, base_seconds=100.0, cap_seconds=100.0, starting_seconds=300.0)
    fail(world, world.must_claim(first.id), loading(), policy=slow)

    with world.backend.unit_of_work() as uow:
        llm_jobs.cancel(uow, first.id, ALICE)

    assert world.job(first.id).status == JobStatus.CANCELLED
    assert world.claim(second.id) is not None
