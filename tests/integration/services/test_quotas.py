"""Quotas: reserved before a job is queued, settled when it ends, never kept by what is gone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from chat_backend.domain.errors import ErrorCode, ProviderUnreachable, ReplyTooLong, StreamBroken, TooMany
from chat_backend.domain.quota import Amount, Quota, Standing
from chat_backend.domain.retry import RetryPolicy
from chat_backend.domain.usage import Usage
from chat_backend.domain.user import User
from chat_backend.models import LlmJob, Message, QuotaDay
from chat_backend.models.base import now
from chat_backend.services import attempts, chat_sessions, housekeeping, llm_jobs, messages, participants, quotas
from chat_backend.services.attempts import Terms
from chat_backend.services.invariants import examine
from tests.integration.services.conftest import ALICE, World, measured

TWO_A_DAY = Quota(requests=2)
THOUSAND_TOKENS = Quota(tokens=1000, reply_tokens=100)
ONCE = RetryPolicy(max_attempts=1, base_seconds=0.01, cap_seconds=0.01)
BOB = User("bob")


def standing(world: World, user: User = ALICE) -> Standing:
    with world.backend.reading() as session:
        return quotas.standing(session, user.id)


def refused(world: World, session_id: UUID, quota: Quota, **more: object) -> TooMany:
    with pytest.raises(TooMany) as caught:
        world.ask(session_id, "One too many", quota=quota, **more)
    return caught.value


def messages_in(world: World) -> int:
    with world.backend.reading() as session:
        return session.scalar(select(func.count()).select_from(Message)) or 0


def succeed(world: World, job: LlmJob, prompt: int = 5, completion: int = 7) -> None:
    claim = world.must_claim(job.id)
    with world.backend.unit_of_work() as uow:
        attempts.succeed(uow, claim, measured("An answer.", counts=Usage(prompt, completion)))


def test_who_has_asked_often_enough_is_refused_and_nothing_is_stored(world: World) -> None:
    for _ in range(2):
        world.ask(world.new_session(), "Hello", quota=TWO_A_DAY)
    session_id, stored = world.new_session(), messages_in(world)

    error = refused(world, session_id, TWO_A_DAY)

    assert (error.status, error.code) == (429, ErrorCode.QUOTA_EXCEEDED)
    assert messages_in(world) == stored


def test_a_quota_is_each_users_own(world: World) -> None:
    for _ in range(2):
        world.ask(world.new_session(), "Hello", quota=TWO_A_DAY)

    with world.backend.unit_of_work() as uow:
        chat = chat_sessions.make(uow, BOB, llm_provider="LOCAL", llm_model="m", title=None, settings={})[0]
    with world.backend.unit_of_work() as uow:
        sent = messages.send(uow, chat.id, BOB, content="Hello", process=True, quota=TWO_A_DAY)

    assert sent.job is not None


def test_without_a_quota_nothing_is_reserved_or_counted(world: World) -> None:
    job = world.ask(world.new_session(), "Hello")

    succeed(world, job, prompt=5, completion=7)

    assert standing(world) == Standing(Amount(), Amount())


def test_what_is_reserved_becomes_what_was_used(world: World) -> None:
    job = world.ask(world.new_session(), "Hello", quota=THOUSAND_TOKENS)
    before = standing(world)

    succeed(world, job, prompt=50, completion=70)

    assert (before.used, before.reserved.requests) == (Amount(), 1)
    assert before.reserved.tokens == 100 + 6  # the reply, and the prompt as it is estimated
    assert standing(world) == Standing(used=Amount(1, 120), reserved=Amount())


def test_a_reservation_is_as_large_as_the_reply_may_become(world: World) -> None:
    world.ask(world.new_session(max_tokens=30), "Hello", quota=THOUSAND_TOKENS)

    reserved = standing(world).reserved

    assert reserved == Amount(1, 30 + 6)


def test_a_reply_that_names_no_limit_is_given_the_one_that_is_reserved(world: World) -> None:
    job = world.ask(world.new_session(), "Hello", quota=THOUSAND_TOKENS)

    claim = world.must_claim(job.id)

    assert claim.request.options == {"max_tokens": 100}


def test_a_quota_of_requests_alone_limits_no_reply(world: World) -> None:
    job = world.ask(world.new_session(), "Hello", quota=TWO_A_DAY)

    claim = world.must_claim(job.id)

    assert claim.request.options == {}


def test_who_changes_the_settings_after_asking_gets_what_was_reserved(world: World) -> None:
    session_id = world.new_session(max_tokens=30, context_tokens=256)
    world.answer(session_id, "long " * 300, "An answer.")
    job = world.ask(session_id, "Hello", quota=THOUSAND_TOKENS)
    with world.backend.unit_of_work() as uow:
        chat_sessions.change(uow, session_id, ALICE, settings={"max_tokens": 100_000, "context_tokens": 100_000})

    claim = world.must_claim(job.id)

    assert claim.request.options == {"max_tokens": 30}
    assert [turn.content for turn in claim.request.turns] == ["Hello"]


def test_the_replies_that_a_prompt_waits_for_are_reserved_too(world: World) -> None:
    session_id = world.new_session()
    first = world.ask(session_id, "Hello", quota=THOUSAND_TOKENS)

    second = world.ask(session_id, "And then?", quota=THOUSAND_TOKENS)

    # Both messages as one turn; then the reply between them, which makes three of it.
    assert (first.reserved_prompt_tokens, second.reserved_prompt_tokens) == (6, 8 + 100 + 8)


def test_tokens_that_are_used_up_refuse_the_next(world: World) -> None:
    succeed(world, world.ask(world.new_session(), "Hello", quota=THOUSAND_TOKENS), prompt=1, completion=999)

    error = refused(world, world.new_session(), THOUSAND_TOKENS)

    assert {name: error.details[name] for name in ("quota", "limit", "used", "reserved")} == {
        "quota": "tokens",
        "limit": 1000,
        "used": 1000,
        "reserved": 0,
    }
    assert error.details["resets_at"] == quotas.resets_at().strftime("%Y-%m-%dT00:00:00.000000Z")
    assert error.retry_after_seconds == pytest.approx((quotas.resets_at() - now()).total_seconds(), abs=60)


def test_where_only_reservations_are_in_the_way_it_is_worth_trying_again_soon(world: World) -> None:
    for _ in range(2):
        world.ask(world.new_session(), "Hello", quota=TWO_A_DAY)

    error = refused(world, world.new_session(), TWO_A_DAY)

    assert error.retry_after_seconds == quotas.SOON_SECONDS


def cancelled(world: World, job: LlmJob) -> None:
    with world.backend.unit_of_work() as uow:
        llm_jobs.cancel(uow, job.id, ALICE)


def failed_before_it_began(world: World, job: LlmJob) -> None:
    world.terms = Terms("w", lease_seconds=15, max_abandonments=3, expiry_seconds=0, context_tokens=8192)
    assert world.claim(job.id) is None


def unreachable(world: World, job: LlmJob) -> None:
    claim = world.must_claim(job.id)
    with world.backend.unit_of_work() as uow:
        attempts.failed(uow, claim, measured(), error=ProviderUnreachable("Nobody there."), policy=ONCE)


def deleted(world: World, job: LlmJob) -> None:
    with world.backend.unit_of_work() as uow:
        chat_sessions.remove(uow, job.session_id, ALICE)


@pytest.mark.parametrize("end", [cancelled, failed_before_it_began, unreachable, deleted])
def test_what_came_to_nothing_costs_nothing(world: World, end: Callable[[World, LlmJob], None]) -> None:
    job = world.ask(world.new_session(), "Hello", quota=THOUSAND_TOKENS)

    end(world, job)

    assert standing(world) == Standing(Amount(), Amount())


def test_a_reply_that_was_stopped_in_the_middle_costs_what_was_written(world: World) -> None:
    job = world.ask(world.new_session(), "Hello", quota=THOUSAND_TOKENS)
    claim = world.must_claim(job.id)
    cancelled(world, job)

    with world.backend.unit_of_work() as uow:
        attempts.stopped(uow, claim, measured("Twelve chars", counts=Usage(6, 3, estimated=True)))

    assert standing(world) == Standing(used=Amount(1, 6 + 3), reserved=Amount())


def test_every_attempt_costs_and_a_failed_reply_is_no_request_used_up(world: World) -> None:
    job = world.ask(world.new_session(), "Hello", quota=THOUSAND_TOKENS)
    broken = StreamBroken("It broke.")
    for counts in (Usage(10, 1), Usage(10, 2)):
        claim = world.must_claim(job.id)
        with world.backend.unit_of_work() as uow:
            again = RetryPolicy(max_attempts=2, base_seconds=1e-9, cap_seconds=1e-9)
            attempts.failed(uow, claim, measured("x", counts=counts), error=broken, policy=again)

    assert standing(world) == Standing(used=Amount(0, 23), reserved=Amount())


def test_a_reply_without_end_is_a_request_used_up(world: World) -> None:
    job = world.ask(world.new_session(), "Hello", quota=THOUSAND_TOKENS)
    claim = world.must_claim(job.id)

    with world.backend.unit_of_work() as uow:
        whole = measured("x", counts=Usage(10, 50))
        attempts.failed(uow, claim, whole, error=ReplyTooLong("No end."), policy=ONCE)

    assert standing(world).used == Amount(1, 60)


def test_a_reply_that_is_deleted_while_it_is_written_costs_what_was_written(world: World) -> None:
    job = world.ask(world.new_session(), "Hello", quota=THOUSAND_TOKENS)
    world.must_claim(job.id)
    with world.backend.unit_of_work() as uow:
        uow.session.execute(
            update(Message).where(Message.id == job.assistant_message_id).values(content="Twelve chars")
        )

    deleted(world, job)

    assert standing(world) == Standing(used=Amount(1, 6 + 3), reserved=Amount())


def test_a_worker_that_is_lost_keeps_the_reservation_for_the_next(world: World) -> None:
    job = world.ask(world.new_session(), "Hello", quota=THOUSAND_TOKENS)
    world.must_claim(job.id)
    with world.backend.unit_of_work() as uow:
        uow.session.execute(update(LlmJob).values(lease_until=1.0))

    claim = world.must_claim(job.id)
    meanwhile = standing(world)
    with world.backend.unit_of_work() as uow:
        attempts.succeed(uow, claim, measured("An answer.", counts=Usage(5, 7)))

    assert meanwhile.reserved.requests == 1
    # The lost call is not known to have been free: its prompt counts.
    assert standing(world) == Standing(used=Amount(1, 6 + 12), reserved=Amount())


def test_what_clients_write_into_counts_is_never_counted(world: World) -> None:
    job = world.ask(world.new_session(), "Hello", quota=THOUSAND_TOKENS)
    succeed(world, job, prompt=50, completion=70)

    with world.backend.unit_of_work() as uow:
        messages.change(uow, job.assistant_message_id, ALICE, tokens_used=0)

    assert standing(world).used == Amount(1, 120)


def test_who_asks_pays_also_for_writing_anew(world: World) -> None:
    session_id = world.new_session()
    first = world.answer(session_id, "Hello", "An answer.")
    with world.backend.unit_of_work() as uow:
        llm_jobs.regenerate(uow, first.assistant_message_id, ALICE, quota=TWO_A_DAY)

    reserved = standing(world).reserved

    assert reserved.requests == 1


def test_asking_again_for_what_is_being_answered_reserves_nothing_more(world: World) -> None:
    session_id = world.new_session()
    job = world.ask(session_id, "Hello", quota=TWO_A_DAY)

    with world.backend.unit_of_work() as uow:
        same, _ = llm_jobs.request(uow, session_id, ALICE, message_id=job.message_id, quota=TWO_A_DAY)

    assert same.id == job.id
    assert standing(world).reserved.requests == 1


def test_an_interruption_gives_back_before_it_reserves(world: World) -> None:
    session_id = world.new_session()
    world.ask(session_id, "One", quota=Quota(requests=1))

    job = world.ask(session_id, "Two", quota=Quota(requests=1), on_busy="interrupt")

    assert job.holds_reservation
    assert standing(world) == Standing(Amount(), Amount(1, 4096))


def test_a_refused_interruption_interrupts_nothing(world: World) -> None:
    session_id = world.new_session()
    succeed(world, world.ask(session_id, "Zero", quota=TWO_A_DAY))
    job = world.ask(session_id, "One", quota=TWO_A_DAY)
    world.must_claim(job.id)
    world.out.cancelled.clear()

    refused(world, session_id, TWO_A_DAY, on_busy="interrupt")

    assert world.out.cancelled == []
    assert world.job(job.id).cancel_requested_at is None


@pytest.mark.parametrize("quota", [Quota(requests=5), Quota(tokens=500, reply_tokens=94)], ids=["requests", "tokens"])
def test_however_many_ask_at_once_a_quota_is_exceeded_by_no_more_than_one_reservation(
    world: World, quota: Quota
) -> None:
    session_ids = [world.new_session() for _ in range(20)]

    def ask(session_id: UUID) -> bool:
        try:
            world.ask(session_id, "Hello", quota=quota)
        except TooMany:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        taken = list(pool.map(ask, session_ids))

    assert taken.count(True) == 5
    assert standing(world).reserved == Amount(5, 5 * (quota.reply_tokens + (6 if quota.tokens else 0)))


def test_two_who_interrupt_each_other_do_not_wait_for_each_other(world: World) -> None:
    session_ids = [world.new_session() for _ in range(2)]
    everyone = [ALICE, BOB]
    for session_id in session_ids:
        with world.backend.unit_of_work() as uow:
            participants.admit(uow, session_id, ALICE, user_id="bob", role="member", most=10)

    def interrupt(number: int) -> None:
        for turn in range(10):
            with world.backend.unit_of_work() as uow:
                user, session_id = everyone[(number + turn) % 2], session_ids[number]
                messages.send(
                    uow, session_id, user, content="x", process=True, on_busy="interrupt", quota=Quota(requests=1000)
                )

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(interrupt, range(2)))

    assert standing(world).reserved.requests + standing(world, BOB).reserved.requests == 2


def test_the_doctor_finds_a_reservation_without_a_live_job(world: World) -> None:
    job = world.ask(world.new_session(), "Hello", quota=TWO_A_DAY)
    succeed(world, job)
    with world.backend.unit_of_work() as uow:
        uow.session.execute(update(LlmJob).values(reserved_prompt_tokens=1, reserved_reply_tokens=1))

    with world.backend.reading() as session:
        found = {finding.name: finding.examples for finding in examine(session, patience_seconds=5).violations}

    assert found["lost_reservations"] == (job.id,)


def test_old_days_are_forgotten(world: World) -> None:
    succeed(world, world.ask(world.new_session(), "Hello", quota=TWO_A_DAY))
    with world.backend.unit_of_work() as uow:
        uow.session.execute(update(QuotaDay).values(day=now().date() - timedelta(days=60)))

    with world.backend.unit_of_work() as uow:
        housekeeping.forget_expired(uow.session, keys_seconds=60)

    with world.backend.reading() as session:
        assert session.scalar(select(func.count()).select_from(QuotaDay)) == 0
