"""What no longer fits a prompt is summed up by the model itself, once."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import select

from chat_backend.domain.enums import JobStatus, MessageStatus, Outcome, Purpose
from chat_backend.domain.errors import LeaseLost, ProviderUnreachable
from chat_backend.domain.quota import Quota
from chat_backend.domain.usage import Usage
from chat_backend.models import ContextSummary, Message
from chat_backend.services import attempts, chat_sessions, llm_jobs, messages, quotas
from chat_backend.services.attempts import Claim
from chat_backend.services.invariants import examine
from chat_backend.services.summaries import LEFT_ALONE_TURNS
from tests.integration.services.conftest import ALICE, World, measured

LONG = "word " * 57  # about 70 tokens
SUMMARY = "They spoke of words."


@pytest.fixture
def summing(world: World) -> World:
    """A deployment that sums up, with a session of its own."""
    world.terms = replace(world.terms, sums_up=True)
    return world


@pytest.fixture
def session_id(summing: World) -> UUID:
    """A session whose beginning no longer fits: three exchanges, and room for about three turns."""
    session_id = summing.new_session(context_tokens=256, system_prompt="Be brief.")
    summing.terms = replace(summing.terms, sums_up=False)
    for number in range(3):
        summing.answer(session_id, f"Question {number} {LONG}", f"Answer {number}")
    summing.terms = replace(summing.terms, sums_up=True)
    return session_id


def go_on(world: World, claim: Claim, text: str = SUMMARY, **how: object) -> Claim:
    with world.backend.unit_of_work() as uow:
        following = attempts.go_on(uow, claim, measured(text, counts=Usage(50, 5)), world.terms, **how)
    assert isinstance(following, Claim)
    return following


def succeed(world: World, claim: Claim) -> None:
    with world.backend.unit_of_work() as uow:
        attempts.succeed(uow, claim, measured("An answer.", counts=Usage(50, 5)))


def stored(world: World) -> list[tuple[int, str]]:
    query = select(ContextSummary.covered_seq, ContextSummary.content).order_by(ContextSummary.covered_seq)
    with world.backend.reading() as session:
        return [(seq, content) for seq, content in session.execute(query)]


def said(claim: Claim) -> list[str]:
    return [turn.content for turn in claim.request.turns]


def test_what_falls_out_is_summed_up_before_the_reply(summing: World, session_id: UUID) -> None:
    job = summing.ask(session_id, "Now")

    first = summing.must_claim(job.id)
    second = go_on(summing, first)

    (asked,) = said(first)
    assert (first.purpose, first.number, first.request.options) == (Purpose.SUMMARY, 1, {"max_tokens": 1064})
    assert "user: Question 0" in asked
    assert "assistant: Answer 0" in asked
    assert (second.purpose, second.number) == (Purpose.REPLY, 2)
    assert said(second)[0] == f"Be brief.\n\nWhat was said before, summed up:\n{SUMMARY}"
    assert said(second)[-1] == "Now"
    assert stored(summing) == [(3, SUMMARY)]


def test_both_calls_are_attempts_and_only_the_reply_is_shown(summing: World, session_id: UUID) -> None:
    job = summing.ask(session_id, "Now")
    claim = summing.must_claim(job.id)
    meanwhile = summing.reply(job)

    succeed(summing, go_on(summing, claim))

    ended = summing.job(job.id)
    assert (meanwhile.content, meanwhile.status) == ("", MessageStatus.STREAMING)
    assert [(a.number, a.purpose, a.outcome) for a in ended.attempts] == [
        (1, Purpose.SUMMARY, Outcome.SUCCEEDED),
        (2, Purpose.REPLY, Outcome.SUCCEEDED),
    ]
    assert (summing.reply(job).content, summing.reply(job).attempt) == ("An answer.", 2)
    with summing.backend.reading() as session:
        assert examine(session, patience_seconds=5).healthy


def test_a_summary_serves_until_something_falls_out_that_it_does_not_cover(summing: World, session_id: UUID) -> None:
    succeed(summing, go_on(summing, summing.must_claim(summing.ask(session_id, "One").id)))

    again = summing.must_claim(summing.ask(session_id, "Two").id)

    assert again.purpose == Purpose.REPLY
    assert SUMMARY in said(again)[0]
    assert "Question 0" not in "".join(said(again))


def test_a_later_summary_goes_on_from_the_one_before(summing: World, session_id: UUID) -> None:
    succeed(summing, go_on(summing, summing.must_claim(summing.ask(session_id, "One").id)))
    for number in range(10, 20):
        claim = summing.must_claim(summing.ask(session_id, f"Question {number} {LONG}").id)
        if claim.purpose == Purpose.SUMMARY:
            break
        succeed(summing, claim)

    (asked,) = said(claim)

    assert SUMMARY in asked
    assert "Question 0" not in asked
    assert "One" in asked


def test_without_the_setting_nothing_is_summed_up(world: World, session_id: UUID) -> None:
    world.terms = replace(world.terms, sums_up=False)

    claim = world.must_claim(world.ask(session_id, "Now").id)

    assert claim.purpose == Purpose.REPLY
    assert said(claim)[0] == "Be brief."


def test_where_everything_fits_nothing_is_summed_up(summing: World) -> None:
    session_id = summing.new_session()
    summing.answer(session_id, "One", "First")

    claim = summing.must_claim(summing.ask(session_id, "Two").id)

    assert claim.purpose == Purpose.REPLY
    assert said(claim) == ["One", "First", "Two"]


def test_a_summary_that_fails_fails_nothing_else(summing: World, session_id: UUID) -> None:
    job = summing.ask(session_id, "Now")
    claim = summing.must_claim(job.id)

    reply = go_on(summing, claim, "", error=ProviderUnreachable("Nobody there."))
    succeed(summing, reply)

    assert said(reply)[0] == "Be brief."
    ended = summing.job(job.id)
    assert (ended.status, ended.failures) == (JobStatus.SUCCEEDED, 0)
    assert [(a.outcome, a.error_code) for a in ended.attempts] == [
        (Outcome.FAILED, "PROVIDER_UNREACHABLE"),
        (Outcome.SUCCEEDED, None),
    ]
    assert stored(summing) == []


@pytest.mark.parametrize("text", [" \n ", "<think>They spoke, and"])
def test_a_summary_that_says_nothing_is_a_failed_one(summing: World, session_id: UUID, text: str) -> None:
    job = summing.ask(session_id, "Now")

    reply = go_on(summing, summing.must_claim(job.id), text)

    assert said(reply)[0] == "Be brief."
    assert stored(summing) == []
    assert summing.job(job.id).attempts[0].outcome == Outcome.FAILED


def test_a_job_whose_summary_failed_does_without_in_every_later_attempt(summing: World, session_id: UUID) -> None:
    job = summing.ask(session_id, "Now")
    reply = go_on(summing, summing.must_claim(job.id), "", error=ProviderUnreachable("Nobody there."))
    with summing.backend.unit_of_work() as uow:
        attempts.stopped(uow, reply, measured("Half an ans"))

    again = summing.must_claim(job.id)

    assert (again.purpose, again.number) == (Purpose.REPLY, 3)


def test_after_a_summary_that_failed_the_session_is_left_alone_for_some_turns(summing: World, session_id: UUID) -> None:
    claim = summing.must_claim(summing.ask(session_id, "Now").id)
    succeed(summing, go_on(summing, claim, "", error=ProviderUnreachable("Nobody there.")))

    purposes = []
    for number in range(LEFT_ALONE_TURNS):
        claim = summing.must_claim(summing.ask(session_id, f"Next {number}").id)
        purposes.append(claim.purpose)
        succeed(summing, go_on(summing, claim) if claim.purpose == Purpose.SUMMARY else claim)

    assert purposes == [Purpose.REPLY] * (LEFT_ALONE_TURNS - 1) + [Purpose.SUMMARY]


def test_a_summary_asks_for_no_more_than_the_models_window_holds(summing: World, session_id: UUID) -> None:
    summing.terms = replace(summing.terms, windows={"LOCAL:m": 400})

    claim = summing.must_claim(summing.ask(session_id, "Now").id)

    assert (claim.purpose, claim.request.options) == (Purpose.SUMMARY, {"max_tokens": 400 - 256 + 64})


def test_a_reply_is_not_asked_of_a_model_that_is_left_alone_since_its_summary(summing: World, session_id: UUID) -> None:
    job = summing.ask(session_id, "Now")
    claim = summing.must_claim(job.id)

    with summing.backend.unit_of_work() as uow:
        wait = attempts.go_on(uow, claim, measured(SUMMARY), summing.terms, may_ask=False)

    back = summing.job(job.id)
    assert (wait, back.status, back.attempts[0].outcome) == (0.0, JobStatus.QUEUED, Outcome.SUCCEEDED)
    assert stored(summing) == [(3, SUMMARY)]
    assert summing.must_claim(job.id).purpose == Purpose.REPLY


def test_a_summary_is_never_longer_than_it_may_be(summing: World, session_id: UUID) -> None:
    go_on(summing, summing.must_claim(summing.ask(session_id, "Now").id), "wörter " * 1000)

    ((_, content),) = stored(summing)

    assert 250 <= len(content.encode()) <= 256


def test_a_cancel_while_it_is_summed_up_ends_the_job_without_text(summing: World, session_id: UUID) -> None:
    job = summing.ask(session_id, "Now")
    claim = summing.must_claim(job.id)
    with summing.backend.unit_of_work() as uow:
        llm_jobs.cancel(uow, job.id, ALICE)

    with summing.backend.unit_of_work() as uow:
        attempts.stopped(uow, claim, measured("They sp"))

    assert summing.job(job.id).status == JobStatus.CANCELLED
    assert summing.reply(job).content == ""


def test_a_cancel_that_comes_with_the_summary_ends_the_job(summing: World, session_id: UUID) -> None:
    job = summing.ask(session_id, "Now")
    claim = summing.must_claim(job.id)
    with summing.backend.unit_of_work() as uow:
        llm_jobs.cancel(uow, job.id, ALICE)

    with summing.backend.unit_of_work() as uow:
        following = attempts.go_on(uow, claim, measured(SUMMARY), summing.terms)

    assert following is None
    assert summing.job(job.id).status == JobStatus.CANCELLED


def test_a_summary_of_a_worker_that_lost_its_lease_is_refused(summing: World, session_id: UUID) -> None:
    job = summing.ask(session_id, "Now")
    claim = summing.must_claim(job.id)
    go_on(summing, claim)

    with pytest.raises(LeaseLost), summing.backend.unit_of_work() as uow:
        attempts.go_on(uow, claim, measured("Late"), summing.terms)

    assert stored(summing) == [(3, SUMMARY)]


def test_what_is_handed_over_while_it_is_summed_up_is_summed_up_anew(summing: World, session_id: UUID) -> None:
    job = summing.ask(session_id, "Now")
    claim = summing.must_claim(job.id)
    with summing.backend.unit_of_work() as uow:
        attempts.stopped(uow, claim, measured("They sp"))

    again = summing.must_claim(job.id)

    assert (again.purpose, again.number) == (Purpose.SUMMARY, 2)
    assert summing.reply(job).content == ""


@pytest.mark.parametrize("who", ["a question", "a reply"])
def test_a_change_of_what_was_summed_up_undoes_the_summary(summing: World, session_id: UUID, who: str) -> None:
    succeed(summing, go_on(summing, summing.must_claim(summing.ask(session_id, "Now").id)))
    with summing.backend.reading() as session:
        seq = 1 if who == "a question" else 2
        message_id = session.scalars(
            select(Message.id).where(Message.session_id == session_id, Message.seq == seq)
        ).one()

    with summing.backend.unit_of_work() as uow:
        messages.change(uow, message_id, ALICE, content="Changed")

    assert stored(summing) == []


def test_a_change_of_what_was_not_summed_up_keeps_the_summary(summing: World, session_id: UUID) -> None:
    job = summing.ask(session_id, "Now")
    succeed(summing, go_on(summing, summing.must_claim(job.id)))

    with summing.backend.unit_of_work() as uow:
        messages.change(uow, job.message_id, ALICE, content="Later")

    assert stored(summing) == [(3, SUMMARY)]


@pytest.mark.parametrize(
    ("seq", "kept"), [(1, False), (4, False), (5, True), (6, True)], ids=["question", "reply", "later", "later reply"]
)
def test_a_change_while_it_is_summed_up_is_not_lost(summing: World, session_id: UUID, seq: int, kept: bool) -> None:
    claim = summing.must_claim(summing.ask(session_id, "Now").id)
    with summing.backend.reading() as session:
        at = (Message.session_id == session_id, Message.seq == seq)
        message_id = session.scalars(select(Message.id).where(*at)).one()
    with summing.backend.unit_of_work() as uow:
        messages.change(uow, message_id, ALICE, content="Changed")

    go_on(summing, claim)

    assert bool(stored(summing)) is kept


def test_what_a_long_system_prompt_leaves_is_shared_by_the_summary_and_the_newest_turns(summing: World) -> None:
    session_id = summing.new_session(context_tokens=400, system_prompt="rule " * 180)
    summing.terms = replace(summing.terms, sums_up=False)
    for number in range(16):
        summing.answer(session_id, f"Question {number}", "Yes, certainly so.")
    summing.terms = replace(summing.terms, sums_up=True)
    first = summing.must_claim(summing.ask(session_id, "One").id)
    succeed(summing, go_on(summing, first, "word " * 80))

    again = summing.must_claim(summing.ask(session_id, "Two").id)

    # The summary left room for it: the next turn needs no other one.
    assert again.purpose == Purpose.REPLY


def test_a_reply_that_is_written_anew_undoes_the_summary_of_the_old_one(summing: World, session_id: UUID) -> None:
    succeed(summing, go_on(summing, summing.must_claim(summing.ask(session_id, "Now").id)))
    with summing.backend.reading() as session:
        reply_id = session.scalars(select(Message.id).where(Message.session_id == session_id, Message.seq == 2)).one()

    with summing.backend.unit_of_work() as uow:
        job = llm_jobs.regenerate(uow, reply_id, ALICE)[0]

    assert stored(summing) == []
    # Of what came after the question it knows nothing.
    assert said(summing.must_claim(job.id)) == ["Be brief.", f"Question 0 {LONG}"]


def test_a_summary_goes_with_its_session(summing: World, session_id: UUID) -> None:
    go_on(summing, summing.must_claim(summing.ask(session_id, "Now").id))

    with summing.backend.unit_of_work() as uow:
        chat_sessions.remove(uow, session_id, ALICE)

    assert stored(summing) == []


def test_a_summary_counts_in_the_quota_and_is_reserved_for(summing: World, session_id: UUID) -> None:
    quota = Quota(tokens=100_000, reply_tokens=100)
    plain = summing.ask(session_id, "Now", quota=quota)
    summed = summing.ask(session_id, "Then", quota=replace(quota, summed_up=True))

    claim = summing.must_claim(plain.id)
    succeed(summing, go_on(summing, claim))

    with summing.backend.reading() as session:
        used = quotas.standing(session, ALICE.id).used
    assert (used.requests, used.tokens) == (1, 2 * 55)
    assert (summed.reserved_prompt_tokens or 0) > (plain.reserved_prompt_tokens or 0) + 128
