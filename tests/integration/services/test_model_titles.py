"""Titles by the model: a call on record after the job has ended."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import update

from chat_backend.domain.enums import Outcome, Purpose, Titles
from chat_backend.domain.errors import ProviderUnreachable
from chat_backend.domain.prompt import ContextLimits
from chat_backend.domain.quota import Amount, Quota
from chat_backend.domain.usage import Usage
from chat_backend.models import ChatSession, LlmAttempt, LlmJob
from chat_backend.models.base import now
from chat_backend.protocol.events import read_durable
from chat_backend.services import attempts, chat_sessions, model_titles, quotas
from chat_backend.services.attempts import Claim
from chat_backend.services.invariants import examine
from tests.integration.services.conftest import ALICE, World, measured

NO_QUOTA = Quota()


def answered(world: World, job: LlmJob) -> Claim | None:
    """Store the reply to a job and open the call for the title."""
    claim = world.must_claim(job.id)
    with world.backend.unit_of_work() as uow:
        attempts.succeed(uow, claim, measured("An answer.", counts=Usage(5, 7)), titled=Titles.MODEL)
        return model_titles.begin(uow, claim, worker="w")


def opened(world: World, session_id: UUID, question: str = "How do I bake bread?") -> Claim:
    claim = answered(world, world.ask(session_id, question))
    assert claim is not None
    return claim


def test_a_title_asks_for_no_more_than_the_models_window_holds(world: World) -> None:
    job = world.ask(world.new_session(), "x" * 800)
    reply = world.must_claim(job.id)
    with world.backend.unit_of_work() as uow:
        attempts.succeed(uow, reply, measured("An answer."))
        claim = model_titles.begin(uow, reply, worker="w", context=ContextLimits(windows={"LOCAL:m": 512}))

    assert claim is not None
    assert 200 < claim.request.options["max_tokens"] < 300


def finish(world: World, claim: Claim, text: str = '"Baking bread"', **how: object) -> None:
    ending = {"error": None, "stopped": False, "quota": NO_QUOTA} | how
    with world.backend.unit_of_work() as uow:
        model_titles.finish(uow, claim, measured(text, counts=Usage(30, 4)), **ending)


def title(world: World, session_id: UUID) -> str | None:
    with world.backend.reading() as session:
        chat = session.get(ChatSession, session_id)
        assert chat is not None
        return chat.title


def violations(world: World) -> list[str]:
    with world.backend.reading() as session:
        return [finding.name for finding in examine(session, patience_seconds=5).violations if finding.count]


def test_the_model_is_asked_for_a_title_of_the_first_exchange(world: World) -> None:
    session_id = world.new_session()

    claim = opened(world, session_id)
    before = title(world, session_id)
    finish(world, claim)

    (turn,) = claim.request.turns
    assert "user: How do I bake bread?\n\nassistant: An answer." in turn.content
    assert (before, title(world, session_id)) == (None, "Baking bread")


def test_the_call_is_on_record_before_it_is_made_and_when_it_has_ended(world: World) -> None:
    claim = opened(world, world.new_session())
    before = world.job(claim.job_id)

    finish(world, claim)

    after = world.job(claim.job_id)
    assert [(a.number, a.purpose, a.outcome) for a in before.attempts] == [
        (1, Purpose.REPLY, Outcome.SUCCEEDED),
        (2, Purpose.TITLE, None),
    ]
    assert (after.attempts[1].outcome, after.attempts[1].prompt_tokens) == (Outcome.SUCCEEDED, 30)
    assert violations(world) == []


def test_everyone_is_told_of_the_call_and_of_the_title(world: World) -> None:
    finish(world, opened(world, world.new_session()))

    events = [read_durable(envelope)["type"] for _, envelope in world.out.envelopes]  # type: ignore[arg-type]
    assert events[-5:] == ["message_update", "job_update", "job_update", "job_update", "session_update"]


@pytest.mark.parametrize(
    "how", [{"error": ProviderUnreachable("Nobody there.")}, {"stopped": True}, {"text": "***"}], ids=str
)
def test_where_it_comes_to_nothing_the_first_words_are_the_title(world: World, how: dict[str, object]) -> None:
    session_id = world.new_session()

    finish(world, opened(world, session_id), **how)  # type: ignore[arg-type]

    assert title(world, session_id) == "How do I bake bread?"


def test_a_title_that_somebody_gave_meanwhile_stays(world: World) -> None:
    session_id = world.new_session()
    claim = opened(world, session_id)
    with world.backend.unit_of_work() as uow:
        chat_sessions.change(uow, session_id, ALICE, title="My own")

    finish(world, claim)

    assert title(world, session_id) == "My own"
    assert world.job(claim.job_id).attempts[1].outcome == Outcome.SUCCEEDED


def test_a_session_with_a_title_is_not_asked_about(world: World) -> None:
    session_id = world.new_session()
    with world.backend.unit_of_work() as uow:
        chat_sessions.change(uow, session_id, ALICE, title="My own")

    claim = answered(world, world.ask(session_id, "Hello"))

    assert claim is None


def test_of_a_session_that_is_gone_nothing_is_stored(world: World) -> None:
    session_id = world.new_session()
    claim = opened(world, session_id)
    with world.backend.unit_of_work() as uow:
        chat_sessions.remove(uow, session_id, ALICE)

    finish(world, claim)

    with world.backend.reading() as session:
        assert session.get(LlmAttempt, (claim.job_id, 2)) is None


def test_the_call_counts_in_the_quota(world: World) -> None:
    quota = Quota(tokens=100_000)
    job = world.ask(world.new_session(), "Hello", quota=quota)
    claim = answered(world, job)
    assert claim is not None

    finish(world, claim, quota=quota)

    with world.backend.reading() as session:
        assert quotas.standing(session, ALICE.id).used == Amount(1, 12 + 34)


def test_a_call_that_was_lost_with_its_worker_is_closed(world: World) -> None:
    session_id = world.new_session()
    claim = opened(world, session_id)
    with world.backend.reading() as session:
        early = model_titles.lost(session)
    with world.backend.unit_of_work() as uow:
        long_ago = now() - timedelta(seconds=1000)
        uow.session.execute(update(LlmAttempt).where(LlmAttempt.number == 2).values(started_at=long_ago))
    open_by_then = violations(world)

    with world.backend.reading() as session:
        lost = model_titles.lost(session)
    with world.backend.unit_of_work() as uow:
        model_titles.give_up(uow, claim.job_id, quota=Quota(tokens=1000))

    assert (early, open_by_then, lost) == ([], ["open_attempts"], [claim.job_id])
    attempt = world.job(claim.job_id).attempts[1]
    with world.backend.reading() as session:
        used = quotas.standing(session, ALICE.id).used
    assert (attempt.outcome, attempt.usage_estimated) == (Outcome.ABANDONED, True)
    assert used == Amount(0, attempt.prompt_tokens or 0) != Amount()
    assert title(world, session_id) == "How do I bake bread?"
    assert violations(world) == []
