"""What OpenRouter documents of itself, through the whole product: web, worker, and a provider that behaves so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TIMINGS
from tests.support.chat import Frame
from tests.support.databases import SQLITE, Databases
from tests.support.provider_stub import Stub, expected_text
from tests.support.stack import Stack, running
from tests.support.valkey import Valkey


@pytest.fixture(scope="module")
def stack(databases: Databases, valkey_server: Valkey, stub_server: Stub, tmp_path_factory: Any) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("openrouter")
    valkey_server.start()
    with databases.new(SQLITE, folder) as url:
        environ = {"AUTH_MODE": "dev", "DATABASE_URL": url, "REDIS_URL": valkey_server.url, **TIMINGS}
        here = {"OPENROUTER_BASE_URL": stub_server.base_url, "OPENROUTER_API_KEY": "a-key"}
        app = {"APP_URL": "https://chat.example", "APP_TITLE": "Our chat"}
        with running(environ, folder, stub_server, **here, **app) as made:
            yield made


def answered(stack: Stack, script: str, **more: Any) -> tuple[Frame, Frame]:
    """Ask once, and return the job and the reply."""
    chat = stack.chat()
    session = chat.new_session(f"stub:tag=t,{script}", llm_provider="OPENROUTER", **more)
    job = chat.wait_for_job(chat.ask(session["id"], "Go on.")["job_id"])
    return job, chat.messages(session["id"])[-1]


def test_comments_are_no_text_and_usage_and_cost_come_in_the_last_message(stack: Stack) -> None:
    job, reply = answered(stack, "server=openrouter,tokens=6,reasoning=2")

    attempt = job["attempts"][0]
    assert (job["status"], reply["content"]) == ("succeeded", expected_text("t", 6))
    assert (attempt["prompt_tokens"], attempt["completion_tokens"], attempt["cost"]) == (7, 6, 0.001)
    assert (attempt["cached_tokens"], attempt["reasoning_tokens"], attempt["usage_estimated"]) == (3, 2, False)
    assert (reply["tokens_used"], reply["metadata"]["usage"]["cost"]) == (6, 0.001)


def test_the_app_says_who_it_is_and_the_generation_s_id_is_kept(stack: Stack, stub_server: Stub) -> None:
    job, reply = answered(stack, "server=openrouter,tokens=2")

    headers = stub_server.ledger()[-1]["headers"]
    assert (headers["http-referer"], headers["x-title"]) == ("https://chat.example", "Our chat")
    assert (headers["x-openrouter-title"], headers["authorization"]) == ("Our chat", "Bearer a-key")
    assert (job["attempts"][0]["generation_id"], reply["metadata"]["generation_id"]) == ("gen-t", "gen-t")


@pytest.mark.parametrize("script", ["error_event=0,error_code=502", "error_event=4,error_code=server_error"])
def test_an_error_with_status_200_is_none_of_the_text_and_asked_again(stack: Stack, script: str) -> None:
    job, reply = answered(stack, f"{script},times=1,tokens=9")

    assert (job["status"], reply["content"]) == ("succeeded", expected_text("t", 9))
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["failed", "succeeded"]
    assert (job["attempts"][0]["error_code"], job["attempts"][0]["generation_id"]) == ("PROVIDER_FAILED", "gen-t")


def test_a_stream_that_ends_without_a_reason_is_asked_again(stack: Stack) -> None:
    job, _ = answered(stack, "no_finish,no_done,tokens=3")

    assert [attempt["error_code"] for attempt in job["attempts"]] == ["STREAM_BROKEN"] * 3


def test_a_finish_reason_error_is_one_whatever_else_is_said(stack: Stack) -> None:
    job, _ = answered(stack, "finish=error,tokens=3")

    assert (job["status"], job["error_code"]) == ("failed", "PROVIDER_FAILED")


def test_without_credits_nothing_is_asked_again_unless_it_is_said_when(stack: Stack) -> None:
    final, _ = answered(stack, "fail=402")
    later, reply = answered(stack, "fail=402,retry_after=1,times=1,tokens=2")

    assert (final["error_code"], len(final["attempts"])) == ("PROVIDER_PAYMENT_REQUIRED", 1)
    assert [attempt["http_status"] for attempt in later["attempts"]] == [402, 200]
    assert reply["content"] == expected_text("t", 2)


def test_a_moderation_s_reasons_are_told_and_what_it_flagged_is_not(stack: Stack) -> None:
    job, reply = answered(stack, "fail=403,flagged=violence+self-harm")

    assert (job["error_code"], len(job["attempts"])) == ("PROVIDER_MODERATED", 1)
    assert job["error_message"].endswith("turned the request down: violence, self-harm (HTTP 403).")
    assert "CANARY" not in f"{job}{reply}"


def test_an_effort_is_sent_in_openrouter_s_words(stack: Stack, stub_server: Stub) -> None:
    answered(stack, "tokens=2", settings={"reasoning_effort": "high", "seed": 5})

    parameters = stub_server.ledger()[-1]["parameters"]
    assert (parameters["reasoning"], parameters["seed"]) == ({"effort": "high"}, 5)
    assert "reasoning_effort" not in parameters
