"""What a worker does for all of its jobs at once."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import insert, select, update

from chat_backend.models import ChatSession, IdempotencyKey, LlmJob, Message, SessionEvent
from chat_backend.models.base import database_clock, new_id, now
from chat_backend.services import attempts, events, housekeeping, leases, llm_jobs
from chat_backend.services.leases import Progress
from tests.integration.services.conftest import ALICE, WORKER, World, measured
from tests.support.waiting import wait_until


def forgotten(world: World, seconds: float = -1.0) -> list[UUID]:
    with world.backend.reading() as session:
        return [job.job_id for job in leases.forgotten(session, forgotten_seconds=seconds)]


def asked_by(world: World, user: str) -> LlmJob:
    """Ask in a chat session of its own."""
    job = world.ask(world.new_session(), "Hello")
    with world.backend.unit_of_work() as uow:
        uow.session.execute(update(LlmJob).where(LlmJob.id == job.id).values(user_id=user))
    return job


def first_in_turn(world: World) -> UUID | None:
    with world.backend.reading() as session:
        return next((job.job_id for job in leases.waiting(session)), None)


def forget_events(world: World) -> None:
    """As a worker does it: look, then a transaction for each chat session."""
    with world.backend.reading() as session:
        old, _ = housekeeping.old_events(session, events_seconds=86400)
    for some in old:
        with world.backend.unit_of_work() as uow:
            housekeeping.forget_events(uow.session, some)


def test_a_heartbeat_renews_every_lease_and_brings_cancels(world: World) -> None:
    one, two = (world.ask(world.new_session(), "Hello") for _ in range(2))
    for job in (one, two):
        world.must_claim(job.id)
    with world.backend.unit_of_work() as uow:
        uow.session.execute(update(LlmJob).values(lease_until=1.0))
        llm_jobs.cancel(uow, two.id, ALICE)

    with world.backend.unit_of_work() as uow:
        leases.renew(uow.session, WORKER, [one.id, two.id], lease_seconds=15)
        held = leases.held(uow.session, WORKER, [one.id, two.id])
        clock = uow.session.scalar(select(database_clock()))

    assert {job_id: lease.cancel_requested for job_id, lease in held.items()} == {one.id: False, two.id: True}
    assert all((world.job(job.id).lease_until or 0) > (clock or 0) + 14 for job in (one, two))


def test_a_checkpoint_writes_running_text_and_nothing_of_an_attempt_that_is_over(world: World) -> None:
    running = world.ask(world.new_session(), "Hello")
    claim = world.must_claim(running.id)
    done = world.answer(world.new_session(), "Hello", "Whole")

    with world.backend.unit_of_work() as uow:
        leases.checkpoint(
            uow.session,
            [
                Progress(claim.message_id, 1, "Half, 半分, \N{GRINNING FACE}"),
                Progress(done.assistant_message_id, 1, "late"),
                Progress(claim.message_id, 0, "of an older attempt"),
            ],
        )

    assert world.reply(running).content == "Half, 半分, \N{GRINNING FACE}"
    assert world.reply(done).content == "Whole"


def test_what_is_due_and_unclaimed_or_lost_its_worker_is_found_and_nothing_else(world: World) -> None:
    session_id = world.new_session()
    due, behind = world.ask(session_id, "One"), world.ask(session_id, "Two")
    held, lost = (world.ask(world.new_session(), "Hello") for _ in range(2))
    for job in (held, lost):
        world.must_claim(job.id)
    with world.backend.unit_of_work() as uow:
        uow.session.execute(update(LlmJob).where(LlmJob.id == lost.id).values(lease_until=1.0))

    found = forgotten(world)

    assert set(found) == {due.id, lost.id}
    assert behind.id not in found
    assert due.id not in forgotten(world, seconds=60)


def test_events_are_kept_for_their_time_and_always_the_last_thousand(world: World) -> None:
    session_id = world.new_session()
    world.say(session_id, "Hello")
    with world.backend.unit_of_work() as uow:
        old = now() - timedelta(days=2)
        for offset in range(2, 1206):
            uow.session.add(SessionEvent(session_id=session_id, offset=offset, type="session_update", created_at=old))
        uow.session.execute(update(SessionEvent).values(created_at=old))
        uow.session.execute(update(events.ChatSession).values(last_offset=1205))

    forget_events(world)

    with world.backend.reading() as session:
        assert events.can_replay(session, session_id, 205, 1205)
        assert not events.can_replay(session, session_id, 204, 1205)


def test_what_was_handed_over_is_found_without_its_wake_up(world: World) -> None:
    fresh, handed_over = (world.ask(world.new_session(), "Hello") for _ in range(2))
    claim = world.must_claim(handed_over.id)

    with world.backend.unit_of_work() as uow:
        attempts.stopped(uow, claim, measured("Half"))

    assert wait_until(lambda: forgotten(world, seconds=100)) == [handed_over.id]
    assert fresh.id not in forgotten(world, seconds=100)


def test_a_log_is_shortened_from_its_beginning_only_whatever_the_clocks_of_its_writers_said(world: World) -> None:
    session_id = world.new_session()
    old = now() - timedelta(days=2)
    with world.backend.unit_of_work() as uow:
        for offset in range(1, 1206):
            at = now() if offset == 101 else old
            uow.session.add(SessionEvent(session_id=session_id, offset=offset, type="session_update", created_at=at))
        uow.session.execute(update(events.ChatSession).values(last_offset=1205))

    forget_events(world)

    with world.backend.reading() as session:
        kept = sorted(session.scalars(select(SessionEvent.offset)))
    assert kept == list(range(101, 1206))


def test_a_long_log_is_forgotten_in_portions_each_in_a_transaction_of_its_own(world: World) -> None:
    session_ids = [world.new_session() for _ in range(2)]
    old = now() - timedelta(days=2)
    length = housekeeping.ROWS_AT_ONCE + 1500
    with world.backend.unit_of_work() as uow:
        for session_id in session_ids:
            rows = [
                {"session_id": session_id, "offset": offset, "type": "session_update", "created_at": old}
                for offset in range(1, length + 1)
            ]
            uow.session.execute(insert(SessionEvent), rows)
        uow.session.execute(update(events.ChatSession).values(last_offset=length))

    with world.backend.reading() as session:
        portions, _ = housekeeping.old_events(session, events_seconds=86400)

    expected = {(session_id, housekeeping.ROWS_AT_ONCE + 1) for session_id in session_ids}
    assert {(some.session_id, some.before) for some in portions} == expected


def test_a_last_place_is_for_the_user_of_whom_the_fewest_replies_are_written(world: World) -> None:
    running, waiting, later = (asked_by(world, "ann") for _ in range(3))
    world.must_claim(running.id)
    other, others_next = (asked_by(world, "bob") for _ in range(2))

    order = []
    while (first := first_in_turn(world)) is not None:
        order.append(first)
        world.must_claim(first)

    assert order == [other.id, waiting.id, others_next.id, later.id]


def test_it_is_the_turn_of_nothing_that_is_not_due(world: World) -> None:
    session_id = world.new_session()
    first, _ = world.ask(session_id, "One"), world.ask(session_id, "Two")
    world.must_claim(first.id)
    tomorrow = asked_by(world, "bob")
    with world.backend.unit_of_work() as uow:
        uow.session.execute(update(LlmJob).where(LlmJob.id == tomorrow.id).values(not_before=database_clock() + 86400))

    assert first_in_turn(world) is None


def test_what_was_forgotten_is_found_in_turn_too(world: World) -> None:
    running, waiting = (asked_by(world, "ann") for _ in range(2))
    world.must_claim(running.id)
    other = asked_by(world, "bob")

    assert forgotten(world) == [other.id, waiting.id]


def test_users_take_turns(world: World) -> None:
    running, *anns = (asked_by(world, "ann") for _ in range(4))
    world.must_claim(running.id)
    bobs = [asked_by(world, "bob") for _ in range(3)]

    with world.backend.reading() as session:
        order = [job.job_id for job in leases.waiting(session)]

    expected = [bobs[0], anns[0], bobs[1], anns[1], bobs[2], anns[2]]
    assert order == [job.id for job in expected]


def test_many_jobs_of_others_hide_nobody(world: World) -> None:
    template = asked_by(world, "ann")
    newcomer = asked_by(world, "bob")
    _copy(world, template, leases.LOOKED_AT + 1)

    with world.backend.reading() as session:
        order = [job.job_id for job in leases.waiting(session)]

    assert newcomer.id in order[:2]


def _copy(world: World, job: LlmJob, times: int) -> None:
    """Queue a job so often again, each time in a session of its own and before every other job."""
    with world.backend.unit_of_work() as uow:
        tables = [
            (ChatSession, "id", job.session_id),
            (Message, "session_id", job.session_id),
            (LlmJob, "id", job.id),
        ]
        rows = [
            (table, dict(row._mapping))
            for table, name, value in tables
            for row in uow.session.execute(select(table.__table__).where(table.__table__.c[name] == value))
        ]
        for _ in range(times):
            new = {row["id"]: new_id() for _, row in rows}
            for table, row in rows:
                copied = {
                    name: new.get(value, value) if isinstance(value, UUID) else value for name, value in row.items()
                }
                uow.session.execute(
                    insert(table.__table__).values(copied | ({"not_before": 1.0} if table is LlmJob else {}))
                )


def test_reserve_is_for_users_without_reply_in_hand(world: World) -> None:
    running, waiting = (asked_by(world, "ann") for _ in range(2))
    world.must_claim(running.id)
    newcomer = asked_by(world, "bob")

    with world.backend.reading() as session:
        allowed = [leases.may_use_reserve(session, job.id) for job in (running, waiting, newcomer)]
        shown = {job.job_id: job.is_newcomers for job in leases.waiting(session)}

    assert allowed == [False, False, True]
    assert shown == {newcomer.id: True, waiting.id: False}


def test_expired_idempotency_keys_are_forgotten(world: World) -> None:
    with world.backend.unit_of_work() as uow:
        for name, age in (("old", 2), ("new", 0)):
            made = now() - timedelta(days=age)
            uow.session.add(
                IdempotencyKey(user_id="alice", scope=UUID(int=0), key=name, fingerprint="x", created_at=made)
            )

    with world.backend.unit_of_work() as uow:
        housekeeping.forget_expired(uow.session, keys_seconds=86400)

    with world.backend.reading() as session:
        assert list(session.scalars(select(IdempotencyKey.key))) == ["new"]


def test_replayed_events_show_messages_and_jobs_as_they_are_now(world: World) -> None:
    session_id = world.new_session()
    job = world.ask(session_id, "Hello")
    claim = world.must_claim(job.id)
    with world.backend.unit_of_work() as uow:
        attempts.succeed(uow, claim, measured("Whole"))

    with world.backend.reading() as session:
        replay = events.after(session, session_id, 1, limit=100)

    assert [durable.offset for durable in replay] == [2, 3, 4, 5, 6]
    assert all(b"Whole" in durable.frame or b'"succeeded"' in durable.frame for durable in replay)
