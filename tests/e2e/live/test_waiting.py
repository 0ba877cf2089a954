"""Requests that wait for a reply: answered when it is there, and never more of them than the process bears."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from chat_backend.web.waiting import LOOK_SECONDS
from tests.support.chat import Chat, Frame
from tests.support.processes import HEALTH
from tests.support.provider_stub import expected_text
from tests.support.stack import Stack
from tests.support.waiting import wait_until

PLACES = 3
NEVER = "stub:hang=first"


@pytest.fixture(scope="module")
def changes() -> dict[str, str]:
    return {"MAX_WAITING_REQUESTS": str(PLACES), "LLM_FIRST_TOKEN_TIMEOUT_SECONDS": "60"}


@pytest.fixture
def chat(stack: Stack) -> Chat:
    return stack.chat()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(PLACES) as pool:
        yield pool


def _ask(chat: Chat, session: Frame, **more: object) -> httpx.Response:
    return chat.http.post(f"/sessions/{session['id']}/process-llm", json={"prompt": "Hello"} | more)


def _wait_for_all_places(chat: Chat, pool: ThreadPoolExecutor) -> list[tuple[Frame, Future[httpx.Response]]]:
    sessions = [chat.new_session(NEVER) for _ in range(PLACES)]
    waits = [(session, pool.submit(_ask, chat, session)) for session in sessions]
    for session in sessions:
        wait_until(lambda session=session: len(chat.messages(session["id"])) == 2, why="the request waits")
    return waits


def _cancel_all(chat: Chat, waits: list[tuple[Frame, Future[httpx.Response]]]) -> list[httpx.Response]:
    for session, _ in waits:
        reply = chat.messages(session["id"])[1]
        chat.cancel(reply["job_id"])
    return [wait.result(15) for _, wait in waits]


def test_a_request_that_does_not_stream_waits_and_is_answered_with_the_text(chat: Chat) -> None:
    answer = _ask(chat, chat.new_session("stub:tokens=20,delay=0.02,tag=t"))

    said = answer.json()
    assert (answer.status_code, said["success"], said["status"]) == (200, True, "succeeded")
    assert said["response"] == expected_text("t", 20)


def test_a_wait_ends_when_the_reply_does_not_at_the_next_look(chat: Chat) -> None:
    took = []
    for _ in range(5):
        session, began = chat.new_session("stub:tokens=2"), time.monotonic()
        assert _ask(chat, session).json()["success"]
        took.append(time.monotonic() - began)

    # Each, if it waited for a look; a busy machine may delay some.
    assert min(took) < LOOK_SECONDS


def test_beyond_the_places_a_wait_is_answered_202_at_once_and_health_answers(
    stack: Stack, chat: Chat, pool: ThreadPoolExecutor
) -> None:
    waits = _wait_for_all_places(chat, pool)
    began = time.monotonic()

    answer = _ask(chat, chat.new_session("stub:tokens=40,delay=0.05"))
    seconds = time.monotonic() - began
    health = httpx.get(stack.web.url + HEALTH, timeout=3, trust_env=False)
    chat.request("GET", "/sessions")
    ended = _cancel_all(chat, waits)

    assert (answer.status_code, answer.json()["response"]) == (202, None)
    assert answer.headers["Location"].endswith(answer.json()["job_id"])
    assert seconds < 5
    assert health.status_code == 200
    assert [(wait.status_code, wait.json()["status"]) for wait in ended] == [(200, "cancelled")] * PLACES
    assert chat.wait_for_job(answer.json()["job_id"])["status"] == "succeeded"


def test_a_wait_whose_session_is_deleted_is_answered_404(chat: Chat, pool: ThreadPoolExecutor) -> None:
    (session, wait), *others = _wait_for_all_places(chat, pool)
    chat.request("DELETE", f"/sessions/{session['id']}")

    assert wait.result(5).status_code == 404
    _cancel_all(chat, others)


def test_a_process_that_ends_answers_its_waits(stack: Stack, chat: Chat, pool: ThreadPoolExecutor) -> None:
    web = stack.launch("web")
    there = stack.chat(chat.user, web=web)
    waits = _wait_for_all_places(there, pool)
    began = time.monotonic()

    web.send(signal.SIGTERM)
    answers = [wait.result(10) for _, wait in waits]
    seconds = time.monotonic() - began

    assert [answer.status_code for answer in answers] == [202] * PLACES
    assert seconds < 3
    there.http.close()
    assert web.wait(10) == 0
    for answer in answers:
        chat.cancel(answer.json()["job_id"])
