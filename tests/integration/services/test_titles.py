"""Titles of chat sessions that nobody has named."""

from __future__ import annotations

from uuid import UUID

import pytest

from chat_backend.domain.enums import Titles
from chat_backend.models import ChatSession, LlmJob
from chat_backend.protocol.events import read_durable
from chat_backend.services import attempts, chat_sessions, llm_jobs
from tests.integration.services.conftest import ALICE, World, measured


def finish(world: World, job: LlmJob, how: str = Titles.WORDS) -> None:
    claim = world.must_claim(job.id)
    with world.backend.unit_of_work() as uow:
        attempts.succeed(uow, claim, measured("An answer."), titled=how)


def title(world: World, session_id: UUID) -> str | None:
    with world.backend.reading() as session:
        chat = session.get(ChatSession, session_id)
        assert chat is not None
        return chat.title


def rename(world: World, session_id: UUID, new: str | None) -> None:
    with world.backend.unit_of_work() as uow:
        chat_sessions.change(uow, session_id, ALICE, title=new)


def events(world: World) -> list[str]:
    return [read_durable(envelope)["type"] for _, envelope in world.out.envelopes]  # type: ignore[arg-type]


def test_a_session_is_named_after_its_first_exchange_by_its_first_words(world: World) -> None:
    session_id = world.new_session()
    world.say(session_id, "A rule", role="system")
    job = world.ask(session_id, "How do I\nbake bread?")
    before = title(world, session_id)

    finish(world, job)

    assert (before, title(world, session_id)) == (None, "How do I bake bread?")


def test_everyone_is_told_after_the_turn(world: World) -> None:
    session_id = world.new_session()

    finish(world, world.ask(session_id, "Hello"))

    assert events(world)[-3:] == ["message_update", "job_update", "session_update"]
    assert world.out.offsets == list(range(1, len(world.out.offsets) + 1))


@pytest.mark.parametrize("given", ["My own", ""])
def test_a_title_that_somebody_gave_stays(world: World, given: str) -> None:
    session_id = world.new_session()
    job = world.ask(session_id, "Hello")
    rename(world, session_id, given)

    finish(world, job)

    assert title(world, session_id) == given


def test_a_name_once_given_is_not_given_again(world: World) -> None:
    session_id = world.new_session()
    finish(world, world.ask(session_id, "One"))

    finish(world, world.ask(session_id, "Two"))

    assert title(world, session_id) == "One"
    assert events(world).count("session_update") == 1


def test_by_default_a_session_stays_without_a_title(world: World) -> None:
    session_id = world.new_session()

    finish(world, world.ask(session_id, "Hello"), Titles.OFF)

    assert title(world, session_id) is None


def test_a_cancelled_reply_is_no_exchange(world: World) -> None:
    session_id = world.new_session()
    job = world.ask(session_id, "Hello")
    claim = world.must_claim(job.id)
    with world.backend.unit_of_work() as uow:
        llm_jobs.cancel(uow, job.id, ALICE)

    with world.backend.unit_of_work() as uow:
        attempts.succeed(uow, claim, measured("An answer."), titled=Titles.WORDS)

    assert title(world, session_id) is None
