"""How many replies may be unfinished: of one user, and of all."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from chat_backend.domain.errors import ChatError, ErrorCode, TooMany, Unavailable
from chat_backend.domain.quota import Backlog, Quota
from chat_backend.domain.user import User
from chat_backend.models import Message
from chat_backend.services import attempts, chat_sessions, llm_jobs, messages
from tests.integration.services.conftest import ALICE, World, measured

TWO_EACH = Quota(backlog=Backlog(jobs_of_user=2))
TWO_QUEUED = Quota(backlog=Backlog(queued_jobs=2))
BOB = User("bob")


def ask_as_bob(world: World, quota: Quota) -> None:
    fields = {"llm_provider": "LOCAL", "llm_model": "m", "title": None, "settings": {}}
    with world.backend.unit_of_work() as uow:
        chat = chat_sessions.make(uow, BOB, **fields)[0]
    with world.backend.unit_of_work() as uow:
        messages.send(uow, chat.id, BOB, content="Hello", process=True, quota=quota)


def messages_in(world: World) -> int:
    with world.backend.reading() as session:
        return session.scalar(select(func.count()).select_from(Message)) or 0


@pytest.mark.parametrize(
    ("quota", "kind", "status"), [(TWO_EACH, TooMany, 429), (TWO_QUEUED, Unavailable, 503)], ids=["of one", "of all"]
)
def test_one_reply_too_many_is_refused_and_nothing_is_stored(
    world: World, quota: Quota, kind: type[ChatError], status: int
) -> None:
    for _ in range(2):
        world.ask(world.new_session(), "Hello", quota=quota)
    session_id, stored = world.new_session(), messages_in(world)

    with pytest.raises(kind) as refused:
        world.ask(session_id, "One too many", quota=quota)

    assert (refused.value.status, refused.value.code) == (status, ErrorCode.TOO_MANY_JOBS)
    assert refused.value.retry_after_seconds
    assert messages_in(world) == stored
    assert world.say(session_id, "No reply asked for")


def test_everyone_has_a_limit_of_their_own(world: World) -> None:
    for _ in range(2):
        world.ask(world.new_session(), "Hello", quota=TWO_EACH)

    ask_as_bob(world, TWO_EACH)

    with pytest.raises(TooMany):
        world.ask(world.new_session(), "Hello", quota=TWO_EACH)


def test_what_waits_for_all_is_counted_together_and_what_is_written_is_not(world: World) -> None:
    jobs = [world.ask(world.new_session(), "Hello", quota=TWO_QUEUED) for _ in range(2)]
    with pytest.raises(Unavailable):
        ask_as_bob(world, TWO_QUEUED)

    world.must_claim(jobs[0].id)

    ask_as_bob(world, TWO_QUEUED)


def test_what_has_ended_makes_room(world: World) -> None:
    answered, cancelled = [world.ask(world.new_session(), "Hello", quota=TWO_EACH) for _ in range(2)]
    claim = world.must_claim(answered.id)
    with world.backend.unit_of_work() as uow:
        attempts.succeed(uow, claim, measured("An answer."))
    with world.backend.unit_of_work() as uow:
        llm_jobs.cancel(uow, cancelled.id, ALICE)

    more = [world.ask(world.new_session(), "Hello", quota=TWO_EACH) for _ in range(2)]

    assert len(more) == 2


def test_who_asks_again_for_what_is_being_written_gets_that(world: World) -> None:
    job = world.ask(world.new_session(), "Hello", quota=TWO_EACH)
    world.ask(world.new_session(), "Hello", quota=TWO_EACH)

    with world.backend.unit_of_work() as uow:
        again, _ = llm_jobs.request(uow, job.session_id, ALICE, message_id=job.message_id, quota=TWO_EACH)

    assert again.id == job.id
