"""Who may no longer watch is cut off, however they came in; with the intervals that a deployment has by itself."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest

from chat_backend.config import Settings
from tests.support.chat import API, Chat, Frame, Viewer
from tests.support.stack import Stack, dial, socket_url
from tests.support.tokens import KEY, bearer


@pytest.fixture(scope="module")
def changes() -> dict[str, str]:
    by_itself = Settings()
    return {
        "AUTH_MODE": "jwt",
        "JWT_SECRET": KEY,
        "HOST": "127.0.0.1",
        "CATCH_UP_SECONDS": str(by_itself.catch_up_seconds),
    }


@pytest.fixture
def chat(stack: Stack) -> Chat:
    chat = stack.chat()
    chat.http.headers.update(bearer(chat.user))
    return chat


@pytest.fixture
def session(chat: Chat) -> Frame:
    return chat.new_session()


def test_a_socket_opened_by_ticket_ends_with_the_token_that_fetched_it(
    stack: Stack, chat: Chat, session: Frame
) -> None:
    path = f"/sessions/{session['id']}/ws-ticket"
    ticket = chat.request("POST", path, headers=bearer(chat.user, seconds=3), status=201)["ticket"]

    with Viewer(dial(socket_url(stack.web, session["id"], ticket=ticket))) as viewer:
        viewer.greeting()
        code = viewer.until_closed(seconds=8)

    assert (code, viewer.frames[-1]["error_code"]) == (4401, "UNAUTHENTICATED")


def test_an_event_stream_ends_with_its_token(stack: Stack, chat: Chat, session: Frame) -> None:
    address = f"{stack.web.url}{API}/sessions/{session['id']}/events"
    headers = bearer(chat.user, seconds=3)

    with httpx.stream("GET", address, headers=headers, timeout=10, trust_env=False) as response:
        said: list[dict[str, Any]] = [json.loads(line[6:]) for line in response.iter_lines() if line[:6] == "data: "]

    assert response.status_code == 200
    assert said[0]["type"] == "connection_established"
    assert (said[-1]["type"], said[-1]["error_code"]) == ("error", "UNAUTHENTICATED")


def test_who_is_removed_is_cut_off_within_a_second_on_sockets_and_streams(
    stack: Stack, chat: Chat, session: Frame
) -> None:
    body = {"user_id": "bob", "role": "member"}
    chat.request("POST", f"/sessions/{session['id']}/participants", json=body, status=201)
    address = f"{stack.web.url}{API}/sessions/{session['id']}/events"
    with (
        Viewer(dial(socket_url(stack.web, session["id"]), additional_headers=bearer("bob"))) as viewer,
        httpx.stream("GET", address, headers=bearer("bob"), timeout=10, trust_env=False) as response,
    ):
        viewer.greeting()
        lines = response.iter_lines()
        next(line for line in lines if "connection_established" in line)

        began = time.monotonic()
        chat.request("DELETE", f"/sessions/{session['id']}/participants/bob", status=204)
        code = viewer.until_closed(seconds=5)
        last = [line for line in lines if line.startswith("data: ")][-1]
        seconds = time.monotonic() - began

    assert code == 4403
    assert json.loads(last[6:])["error_code"] == "NOT_A_PARTICIPANT"
    assert seconds < 1
