"""Asking for replies over REST. No worker runs: jobs stay queued until the test plays its part."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.support.pretend_worker import PretendWorker
from tests.support.rest import Rest, fault

MISSING = "01890a5d-ac96-774b-bcce-b302099a8057"
SEED_KEYS = {
    "message_id",
    "session_id",
    "response",
    "tokens_used",
    "response_time_ms",
    "provider",
    "model",
    "success",
    "error_message",
}
KEYS = SEED_KEYS | {"job_id", "assistant_message_id", "status"}


@pytest.fixture
def session_id(rest: Rest) -> str:
    return rest.new_session()


def ask(rest: Rest, session_id: str, body: dict[str, Any] | None = None, **more: Any) -> Any:
    return rest.post(f"/sessions/{session_id}/process-llm", body or {"prompt": "Hi", "stream": True}, **more)


def asked(rest: Rest, session_id: str, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = ask(rest, session_id, {"prompt": "Hi", "stream": True, **fields}).get_json()
    return found


def test_a_stream_is_answered_at_once_with_the_address_of_its_job(rest: Rest, session_id: str) -> None:
    response = ask(rest, session_id)

    said = response.get_json()
    assert response.status_code == 202
    assert response.headers["Location"] == f"/api/v1/chat/jobs/{said['job_id']}"
    assert set(said) == KEYS
    assert (said["status"], said["provider"], said["model"]) == ("queued", "LOCAL", "tiny")
    unknown = ("response", "tokens_used", "response_time_ms", "success", "error_message")
    assert [said[name] for name in unknown] == [None] * 5


def test_a_request_waits_for_its_reply_and_answers_the_seeds_body(
    rest: Rest, session_id: str, worker: PretendWorker
) -> None:
    with worker.answering("Sunny."):
        response = ask(rest, session_id, {"prompt": "Weather?"})

    said = response.get_json()
    assert response.status_code == 200
    assert set(said) == KEYS
    assert (said["response"], said["success"], said["error_message"]) == ("Sunny.", True, None)
    assert (said["tokens_used"], said["response_time_ms"], said["status"]) == (7, 1500.0, "succeeded")


def test_a_failure_at_the_provider_is_told_in_the_body(rest: Rest, session_id: str, worker: PretendWorker) -> None:
    said = asked(rest, session_id)
    worker.fail(said["job_id"], "Half an ans")

    response = ask(rest, session_id, {"message_id": said["message_id"]}, prefer="wait=0")
    job = rest.get(f"/jobs/{said['job_id']}").get_json()

    assert response.status_code == 202
    assert response.get_json()["job_id"] != said["job_id"]
    assert (job["status"], job["error_code"]) == ("failed", "PROVIDER_REJECTED")


def test_a_repeat_of_a_failed_request_shows_the_failure(rest: Rest, session_id: str, worker: PretendWorker) -> None:
    said = ask(rest, session_id, key="k").get_json()
    worker.fail(said["job_id"], "Half an ans")

    response = ask(rest, session_id, {"prompt": "Hi"}, key="k")

    shown = response.get_json()
    assert (response.status_code, response.headers["Idempotency-Replayed"]) == (200, "true")
    assert (shown["success"], shown["response"], shown["status"]) == (False, "Half an ans", "failed")
    assert shown["error_message"] == "The provider refused the prompt."


@pytest.mark.parametrize(
    ("prefer", "stream", "applied"),
    [
        ("respond-async", False, "respond-async"),
        ("wait=0", False, "wait=0"),
        ("Respond-Async; foo=bar", False, "respond-async"),
        ('foo, respond-async, wait="0"', False, "respond-async, wait=0"),
        ("wait=0, wait=30", False, "wait=0"),
        ("wait=abc, handling=lenient", True, None),
        ("wait=-1", True, None),
        ('=, ;, "', True, None),
        (None, True, None),
    ],
)
def test_a_preference_is_followed_and_nonsense_ignored(
    rest: Rest, session_id: str, prefer: str | None, stream: bool, applied: str | None
) -> None:
    response = ask(rest, session_id, {"prompt": "Hi", "stream": stream}, prefer=prefer)

    assert (response.status_code, response.headers.get("Preference-Applied")) == (202, applied)


def test_a_wait_ends_after_the_preferred_time(rest: Rest, session_id: str) -> None:
    begun = time.monotonic()

    response = ask(rest, session_id, prefer="wait=1")

    assert (response.status_code, response.headers["Preference-Applied"]) == (202, "wait=1")
    assert 0.9 < time.monotonic() - begun < 5


@pytest.mark.parametrize("wait", ["61", "9" * 30])
def test_a_longer_wait_is_lowered_to_a_minute(rest: Rest, session_id: str, worker: PretendWorker, wait: str) -> None:
    with worker.answering():
        response = ask(rest, session_id, prefer=f"wait={wait}")

    assert (response.status_code, response.headers["Preference-Applied"]) == (200, "wait=60")


def test_a_prompt_alone_is_stored_as_a_message_first(rest: Rest, session_id: str) -> None:
    said = asked(rest, session_id, prompt="Stored?")

    messages = rest.get(f"/sessions/{session_id}/messages").get_json()["messages"]
    assert [(message["id"], message["role"], message["content"]) for message in messages] == [
        (said["message_id"], "user", "Stored?"),
        (said["assistant_message_id"], "assistant", ""),
    ]


def test_the_seeds_body_is_taken_whole(rest: Rest, session_id: str) -> None:
    message = rest.say(session_id, "Weather?")
    body = {
        "message_id": message["id"],
        "session_id": session_id,
        "prompt": "Weather?",
        "provider": "OPENROUTER",
        "model_name": "llama2:7b",
        "stream": True,
        "max_tokens": 2048,
        "temperature": 0.7,
    }

    response = ask(rest, session_id, body)

    said = response.get_json()
    assert response.status_code == 202
    assert (said["message_id"], said["provider"], said["model"]) == (message["id"], "OPENROUTER", "llama2:7b")


OPTIONS = {
    "temperature": 0.5,
    "top_p": 0.9,
    "max_tokens": 100,
    "stop": ["END", "\n\n"],
    "seed": -7,
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
    "reasoning_effort": "low",
}


def test_the_options_of_the_session_go_to_the_model_and_those_of_the_request_before_them(
    rest: Rest, worker: PretendWorker
) -> None:
    session_id = rest.new_session(settings=OPTIONS | {"of_mine": 1})

    first = worker.claim(asked(rest, session_id, stop="END", seed=8)["job_id"])

    assert first.request.options == OPTIONS | {"stop": "END", "seed": 8}


def test_what_is_written_anew_may_be_written_otherwise(rest: Rest, session_id: str, worker: PretendWorker) -> None:
    said = asked(rest, session_id, temperature=0.0)
    worker.answer(said["job_id"])

    again = rest.made(f"/messages/{said['assistant_message_id']}/regenerate", OPTIONS | {"stream": True})

    assert worker.claim(again["job_id"]).request.options == OPTIONS


def test_a_message_that_is_sent_may_say_how_its_reply_is_written(
    rest: Rest, session_id: str, worker: PretendWorker
) -> None:
    job = rest.say(session_id, process=True, **OPTIONS)["job"]
    refused = rest.post(f"/sessions/{session_id}/messages", {"content": "x", "process": True, "top_p": 2})

    assert worker.claim(job["id"]).request.options == OPTIONS
    assert fault(refused) == (422, "INVALID_INPUT", "top_p")


def test_a_key_that_stands_for_other_options_is_refused(rest: Rest, session_id: str) -> None:
    path, body = f"/sessions/{session_id}/messages", {"content": "x", "process": True, "seed": 1}

    answers = [rest.post(path, body | {"seed": seed}, key="k").status_code for seed in (1, 1, 2)]

    assert answers == [201, 201, 422]


def test_a_change_of_provider_and_model_holds_from_the_next_job_on(
    rest: Rest, session_id: str, worker: PretendWorker
) -> None:
    before = asked(rest, session_id)
    rest.put(f"/sessions/{session_id}", {"llm_provider": "OPENAI", "llm_model": "other", "settings": {"seed": 1}})
    after = asked(rest, session_id)

    worker.answer(before["job_id"])

    claim = worker.claim(after["job_id"])
    assert (before["provider"], before["model"]) == ("LOCAL", "tiny")
    assert (claim.provider, claim.request.model, claim.request.options) == ("OPENAI", "other", {"seed": 1})


def test_asking_again_while_it_is_answered_returns_the_same_job(rest: Rest, session_id: str) -> None:
    said = asked(rest, session_id)

    again = ask(rest, session_id, {"message_id": said["message_id"], "stream": True})

    assert again.get_json()["job_id"] == said["job_id"]


def test_asking_again_after_the_answer_writes_a_sibling(rest: Rest, session_id: str, worker: PretendWorker) -> None:
    said = asked(rest, session_id)
    worker.answer(said["job_id"])

    again = ask(rest, session_id, {"message_id": said["message_id"], "stream": True}).get_json()

    assert again["message_id"] == said["message_id"]
    assert again["assistant_message_id"] != said["assistant_message_id"]


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({}, (422, "INVALID_INPUT", "message_id")),
        ({"message_id": MISSING}, (404, "NOT_FOUND", None)),
        ({"message_id": "msg-123"}, (422, "INVALID_INPUT", "message_id")),
        ({"prompt": "Hi", "session_id": MISSING}, (422, "INVALID_INPUT", "session_id")),
        ({"prompt": ""}, (422, "INVALID_INPUT", "prompt")),
        ({"prompt": "Hi", "provider": "LLAMA"}, (422, "INVALID_INPUT", "provider")),
        ({"prompt": "Hi", "temperature": 2.1}, (422, "INVALID_INPUT", "temperature")),
        ({"prompt": "Hi", "max_tokens": 0}, (422, "INVALID_INPUT", "max_tokens")),
        ({"prompt": "Hi", "top_k": 5}, (422, "INVALID_INPUT", "top_k")),
        ({"prompt": "Hi", "top_p": 1.1}, (422, "INVALID_INPUT", "top_p")),
        ({"prompt": "Hi", "stop": ""}, (422, "INVALID_INPUT", "stop")),
        ({"prompt": "Hi", "stop": []}, (422, "INVALID_INPUT", "stop")),
        ({"prompt": "Hi", "stop": ["a"] * 5}, (422, "INVALID_INPUT", "stop")),
        ({"prompt": "Hi", "stop": ["a", 1]}, (422, "INVALID_INPUT", "stop.1")),
        ({"prompt": "Hi", "stop": None}, (422, "INVALID_INPUT", "stop")),
        ({"prompt": "Hi", "seed": 2**53}, (422, "INVALID_INPUT", "seed")),
        ({"prompt": "Hi", "seed": "1"}, (422, "INVALID_INPUT", "seed")),
        ({"prompt": "Hi", "response_format": "json"}, (422, "INVALID_INPUT", "response_format")),
        ({"prompt": "Hi", "response_format": {"type": "xml"}}, (422, "INVALID_INPUT", "response_format")),
        ({"prompt": "Hi", "response_format": {"type": ["text"]}}, (422, "INVALID_INPUT", "response_format")),
        ({"prompt": "Hi", "response_format": {"type": "json_schema"}}, (422, "INVALID_INPUT", "response_format")),
        ({"prompt": "Hi", "reasoning_effort": "much"}, (422, "INVALID_INPUT", "reasoning_effort")),
        ({"prompt": "Hi", "stream": "yes"}, (422, "INVALID_INPUT", "stream")),
    ],
)
def test_a_wrong_request_is_refused_and_stores_nothing(
    rest: Rest, session_id: str, body: dict[str, Any], refusal: tuple[int, str, str | None]
) -> None:
    response = rest.post(f"/sessions/{session_id}/process-llm", body)

    assert fault(response) == refusal
    assert rest.get(f"/sessions/{session_id}/messages").get_json()["total_count"] == 0


def test_message_and_a_different_prompt_are_refused(rest: Rest, session_id: str) -> None:
    message = rest.say(session_id, "This")

    response = ask(rest, session_id, {"message_id": message["id"], "prompt": "That"})

    assert fault(response) == (422, "INVALID_INPUT", "prompt")


def test_only_a_users_message_can_be_answered(rest: Rest, session_id: str) -> None:
    reply_id = asked(rest, session_id)["assistant_message_id"]

    response = ask(rest, session_id, {"message_id": reply_id})

    assert fault(response) == (422, "INVALID_INPUT", "message_id")


def test_a_message_of_another_session_is_not_found(rest: Rest, session_id: str) -> None:
    elsewhere = rest.say(rest.new_session(), "Elsewhere")

    response = ask(rest, session_id, {"message_id": elsewhere["id"]})

    assert fault(response) == (404, "NOT_FOUND", None)


def test_a_sixth_waiting_prompt_is_refused_and_nothing_of_it_stored(rest: Rest, session_id: str) -> None:
    for _ in range(6):
        asked(rest, session_id)

    response = ask(rest, session_id)

    assert fault(response) == (409, "QUEUE_FULL", None)
    assert rest.get(f"/sessions/{session_id}/messages").get_json()["total_count"] == 12


def test_a_prompt_that_would_not_wait_is_refused_with_the_job_in_its_way(rest: Rest, session_id: str) -> None:
    first = asked(rest, session_id)

    response = ask(rest, session_id, {"prompt": "Now!", "on_busy": "reject"})

    assert fault(response) == (409, "SESSION_BUSY", None)
    assert response.get_json()["details"]["job_id"] == first["job_id"]


def test_an_interrupting_prompt_cancels_what_waits_before_it(rest: Rest, session_id: str) -> None:
    earlier = [asked(rest, session_id) for _ in range(2)]

    said = asked(rest, session_id, on_busy="interrupt")

    statuses = [rest.get(f"/jobs/{one['job_id']}").get_json()["status"] for one in [*earlier, said]]
    assert statuses == ["cancelled", "cancelled", "queued"]


def test_the_session_decides_what_happens_when_it_is_busy_unless_the_request_does(rest: Rest) -> None:
    session_id = rest.new_session(settings={"on_busy": "reject"})
    asked(rest, session_id)

    answers = [
        ask(rest, session_id, {"prompt": "x", "stream": True, **how}).status_code for how in ({}, {"on_busy": "queue"})
    ]

    assert answers == [409, 202]


def test_the_same_key_asks_once_and_waits_again(rest: Rest, session_id: str, worker: PretendWorker) -> None:
    first = ask(rest, session_id, {"prompt": "Hi"}, key="k", prefer="wait=0")

    with worker.answering("Later."):
        again = ask(rest, session_id, {"prompt": "Hi"}, key="k")

    assert (first.status_code, again.status_code) == (202, 200)
    assert (again.get_json()["response"], again.headers["Idempotency-Replayed"]) == ("Later.", "true")
    assert again.get_json()["job_id"] == first.get_json()["job_id"]


def test_regenerating_writes_a_sibling_of_a_finished_reply(rest: Rest, session_id: str, worker: PretendWorker) -> None:
    first = asked(rest, session_id)
    worker.answer(first["job_id"], "First.")

    with worker.answering("Second."):
        response = rest.post(f"/messages/{first['assistant_message_id']}/regenerate")

    said = response.get_json()
    assert (response.status_code, said["response"], said["message_id"]) == (200, "Second.", first["message_id"])
    assert set(said) == KEYS
    messages = rest.get(f"/sessions/{session_id}/messages").get_json()["messages"]
    assert [message["content"] for message in messages] == ["Hi", "First.", "Second."]


def test_regenerating_takes_another_model_for_once(rest: Rest, session_id: str, worker: PretendWorker) -> None:
    first = asked(rest, session_id)
    worker.answer(first["job_id"])

    body = {"provider": "OPENROUTER", "model_name": "big"}
    said = rest.post(f"/messages/{first['assistant_message_id']}/regenerate", body, prefer="respond-async").get_json()

    assert (said["provider"], said["model"]) == ("OPENROUTER", "big")


def test_regenerating_twice_under_one_key_is_once(rest: Rest, session_id: str, worker: PretendWorker) -> None:
    first = asked(rest, session_id)
    worker.answer(first["job_id"])
    path = f"/messages/{first['assistant_message_id']}/regenerate"

    answers = [rest.post(path, key="k", prefer="respond-async") for _ in range(2)]

    assert len({answer.get_json()["job_id"] for answer in answers}) == 1
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [None, "true"]


def test_what_is_no_finished_reply_can_not_be_regenerated(rest: Rest, session_id: str) -> None:
    said = asked(rest, session_id)

    answers = [
        fault(rest.post(f"/messages/{said[name]}/regenerate")) for name in ("message_id", "assistant_message_id")
    ]

    assert answers == [(409, "NOT_A_REPLY", None), (409, "MESSAGE_BUSY", None)]


def test_a_job_shows_its_attempts(rest: Rest, session_id: str, worker: PretendWorker) -> None:
    said = asked(rest, session_id)
    worker.answer(said["job_id"])

    job = rest.get(f"/jobs/{said['job_id']}").get_json()

    assert (job["status"], job["attempt"], job["retry_at"], job["error_code"]) == ("succeeded", 1, None, None)
    assert job["started_at"] <= job["finished_at"]
    assert job["attempts"] == [
        {
            "number": 1,
            "provider": "LOCAL",
            "model": "tiny",
            "purpose": "reply",
            "outcome": "succeeded",
            "http_status": 200,
            "error_code": None,
            "time_to_first_token_ms": None,
            "duration_ms": 1500,
            "prompt_tokens": 5,
            "completion_tokens": 7,
            "cached_tokens": None,
            "reasoning_tokens": None,
            "cost": None,
            "usage_estimated": False,
            "error_type": None,
            "generation_id": None,
        }
    ]


def test_a_queued_job_is_cancelled_in_the_request(rest: Rest, session_id: str) -> None:
    said = asked(rest, session_id)

    response = rest.post(f"/jobs/{said['job_id']}/cancel")

    reply = rest.get(f"/sessions/{session_id}/messages").get_json()["messages"][1]
    assert (response.status_code, response.get_json()["status"]) == (200, "cancelled")
    assert reply["status"] == "cancelled"


def test_a_running_job_is_cancelled_when_its_worker_confirms(
    rest: Rest, session_id: str, worker: PretendWorker
) -> None:
    said = asked(rest, session_id)
    worker.claim(said["job_id"])

    response = rest.post(f"/jobs/{said['job_id']}/cancel")

    assert (response.status_code, response.get_json()["status"]) == (202, "running")
    assert [attempt["outcome"] for attempt in response.get_json()["attempts"]] == [None]


def test_a_finished_job_stays_what_it_was(rest: Rest, session_id: str, worker: PretendWorker) -> None:
    said = asked(rest, session_id)
    worker.answer(said["job_id"])

    response = rest.post(f"/jobs/{said['job_id']}/cancel")

    assert (response.status_code, response.get_json()["status"]) == (200, "succeeded")


def test_a_cancelled_request_answers_with_what_there_is(rest: Rest, session_id: str) -> None:
    said = ask(rest, session_id, key="k").get_json()
    rest.post(f"/jobs/{said['job_id']}/cancel")

    response = ask(rest, session_id, {"prompt": "Hi"}, key="k")

    shown = response.get_json()
    assert (response.status_code, shown["success"], shown["status"]) == (200, False, "cancelled")
    assert (shown["response"], shown["error_message"]) == ("", "The reply was cancelled.")


def test_a_cancel_under_a_key_says_when_it_is_a_repeat(rest: Rest, session_id: str) -> None:
    said = asked(rest, session_id)

    answers = [rest.post(f"/jobs/{said['job_id']}/cancel", key="k") for _ in range(2)]

    assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [None, "true"]
    assert {answer.get_json()["status"] for answer in answers} == {"cancelled"}
