"""The catalogue of providers, over a real worker, a real provider, and two that are not there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chat_backend.cli.embedded import free_port
from tests.conftest import TIMINGS
from tests.support.databases import SQLITE, Databases
from tests.support.provider_stub import Stub
from tests.support.stack import Stack, running
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

MODELS = [{"id": "stub"}, {"id": "stub:tokens=200,delay=0.02"}]


@pytest.fixture(scope="module")
def stack(databases: Databases, valkey_server: Valkey, stub_server: Stub, tmp_path_factory: Any) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("catalogue")
    valkey_server.start()
    with databases.new(SQLITE, folder) as url:
        environ = {"AUTH_MODE": "dev", "DATABASE_URL": url, "REDIS_URL": valkey_server.url, **TIMINGS}
        nowhere = {"OPENAI_BASE_URL": f"http://127.0.0.1:{free_port()}/v1", "OPENAI_API_KEY": "a-key"}
        with running(environ, folder, stub_server, **nowhere) as made:
            yield made


def test_a_provider_s_models_are_brought_once_however_many_ask(stack: Stack, stub_server: Stub) -> None:
    chat = stack.chat()
    stub_server.clear()

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: chat.request("GET", "/providers/LOCAL/models"), range(12)))

    assert [answer["models"] for answer in answers] == [MODELS] * 12
    assert (answers[0]["provider"], answers[0]["stale"], answers[0]["error_code"]) == ("LOCAL", False, None)
    assert answers[0]["fetched_at"].endswith("Z")
    assert stub_server.models_asked == 1


def test_a_provider_that_is_not_there_is_told_of_not_failed_at(stack: Stack) -> None:
    answer = stack.chat().request("GET", "/providers/OPENAI/models")

    assert (answer["models"], answer["stale"], answer["fetched_at"]) == ([], True, None)
    assert (answer["error_code"], answer["error_message"]) == (
        "PROVIDER_UNREACHABLE",
        "The provider can't be reached.",
    )


def test_what_has_answered_is_as_fast_as_it_was(stack: Stack) -> None:
    chat = stack.chat()
    before = {provider["name"]: provider for provider in chat.request("GET", "/providers")["providers"]}
    session = chat.new_session("stub:first=0.2,tokens=2")

    chat.wait_for_job(chat.ask(session["id"], "Go on.")["job_id"])

    after = {provider["name"]: provider for provider in chat.request("GET", "/providers")["providers"]}
    assert after["LOCAL"]["time_to_first_token_ms"] >= 190
    assert after["LOCAL"]["last_answer_at"] > (before["LOCAL"]["last_answer_at"] or "")
    assert after["OPENAI"]["time_to_first_token_ms"] is None


def test_a_model_that_keeps_failing_is_seen_in_the_catalogue_and_in_health(stack: Stack) -> None:
    # Failures of one user do not open it for others.
    for chat in (stack.chat(), stack.chat()):
        session = chat.new_session("stub:fail=500,tag=down")
        chat.wait_for_job(chat.ask(session["id"], "Go on.")["job_id"])

    def states() -> list[str]:
        listed = chat.request("GET", "/providers")["providers"][0]["breaker"]
        return [listed, chat.request("GET", "/health")["checks"]["providers"]["LOCAL"]["breaker"]]

    # Refused, and after that half open until somebody tries.
    assert wait_until(lambda: set(states()) <= {"open", "half_open"}, why="the breaker has opened")
