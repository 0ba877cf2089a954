"""What is sent to a model."""

from __future__ import annotations

from dataclasses import replace

from chat_backend.domain.errors import ProviderRefused
from chat_backend.domain.retry import RetryPolicy
from chat_backend.services import attempts, llm_jobs
from tests.integration.services.conftest import ALICE, World, measured


def prompt(world: World, session_id: object, question: str) -> list[tuple[str, str]]:
    job = world.ask(session_id, question)  # type: ignore[arg-type]
    return [(turn.role, turn.content) for turn in world.must_claim(job.id).request.turns]


def test_a_prompt_is_the_system_prompt_and_every_turn_up_to_the_question(world: World) -> None:
    session_id = world.new_session(system_prompt="Be brief.")
    world.answer(session_id, "One", "First")
    world.say(session_id, "A rule", role="system")
    world.say(session_id, "An aside")

    sent = prompt(world, session_id, "Two")

    assert sent == [
        ("system", "Be brief.\n\nA rule"),
        ("user", "One"),
        ("assistant", "First"),
        ("user", "An aside\n\nTwo"),
    ]


def test_a_question_follows_one_without_a_reply_in_one_turn(world: World) -> None:
    session_id = world.new_session()
    failed = world.ask(session_id, "One")
    claim = world.must_claim(failed.id)
    with world.backend.unit_of_work() as uow:
        error = ProviderRefused("No.")
        attempts.failed(uow, claim, measured(), error=error, policy=RetryPolicy(1, 0.001, 0.001))

    sent = prompt(world, session_id, "Two")

    assert sent == [("user", "One\n\nTwo")]


def test_an_empty_reply_is_not_sent(world: World) -> None:
    session_id = world.new_session()
    world.answer(session_id, "One", "")

    sent = prompt(world, session_id, "Two")

    assert sent == [("user", "One\n\nTwo")]


def test_reasoning_in_stored_replies_is_not_sent(world: World) -> None:
    session_id = world.new_session()
    world.answer(session_id, "One", "<think>\nHm.\n</think>\n\nFirst")
    world.answer(session_id, "Two", "Hm.\n</think>\n\nSecond")

    sent = prompt(world, session_id, "Three")

    assert [text for role, text in sent if role == "assistant"] == ["First", "Second"]


def test_the_newest_complete_reply_of_a_question_is_the_chosen_one(world: World) -> None:
    session_id = world.new_session()
    first = world.answer(session_id, "One", "First")
    with world.backend.unit_of_work() as uow:
        sibling = llm_jobs.regenerate(uow, first.assistant_message_id, ALICE)[0]
    claim = world.must_claim(sibling.id)
    with world.backend.unit_of_work() as uow:
        attempts.succeed(uow, claim, measured("Better"))

    sent = prompt(world, session_id, "Two")

    assert sent == [("user", "One"), ("assistant", "Better"), ("user", "Two")]
    assert [(t.role, t.content) for t in claim.request.turns] == [("user", "One")]


def test_a_cancelled_reply_with_text_stands_in_where_no_complete_one_is(world: World) -> None:
    session_id = world.new_session()
    job = world.ask(session_id, "One")
    claim = world.must_claim(job.id)
    with world.backend.unit_of_work() as uow:
        llm_jobs.cancel(uow, job.id, ALICE)
    with world.backend.unit_of_work() as uow:
        attempts.stopped(uow, claim, measured("Half"))

    sent = prompt(world, session_id, "Two")

    assert sent == [("user", "One"), ("assistant", "Half"), ("user", "Two")]


def test_old_turns_fall_out_with_their_replies_when_they_do_not_fit(world: World) -> None:
    session_id = world.new_session(context_tokens=256, system_prompt="Be brief.")
    world.answer(session_id, "old " * 400, "old reply")
    world.answer(session_id, "new", "new reply")

    sent = prompt(world, session_id, "Now")

    assert sent == [("system", "Be brief."), ("user", "new"), ("assistant", "new reply"), ("user", "Now")]


def test_a_question_is_sent_however_long_it_is(world: World) -> None:
    session_id = world.new_session(context_tokens=256)

    sent = prompt(world, session_id, "long " * 1000)

    assert sent == [("user", "long " * 1000)]


def test_options_of_the_session_reach_the_provider_and_those_of_the_request_come_first(world: World) -> None:
    session_id = world.new_session(temperature=0.5, max_tokens=10)

    job = world.ask(session_id, "Hello")
    request = world.must_claim(job.id).request

    assert request.options == {"temperature": 0.5, "max_tokens": 10}


def test_a_reply_asked_for_beyond_the_models_window_is_limited_to_what_the_prompt_leaves(world: World) -> None:
    world.terms = replace(world.terms, windows={"LOCAL:m": 1024})
    session_id = world.new_session(max_tokens=1_000_000)

    request = world.must_claim(world.ask(session_id, "Hello").id).request

    assert request.options == {"max_tokens": 512}
