"""The page where users bring tokens."""

from __future__ import annotations

import time

import jwt
import pytest
from playwright.sync_api import expect

from tests.e2e.page.conftest import OpenWindow
from tests.support.provider_stub import expected_text

SECRET = "a secret of more than thirty-two bytes"


@pytest.fixture(scope="module")
def changes() -> dict[str, str]:
    return {"AUTH_MODE": "jwt", "JWT_SECRET": SECRET}


def token_of(user: str, *, seconds: float = 600) -> str:
    return jwt.encode({"sub": user, "exp": time.time() + seconds}, SECRET, "HS256")


def test_a_token_is_asked_for_kept_for_the_window_and_never_in_an_address(new_window: OpenWindow) -> None:
    window, token = new_window(), token_of("Ann")
    addresses: list[str] = []
    window.page.on("request", lambda request: addresses.append(request.url))
    window.page.on("websocket", lambda socket: addresses.append(socket.url))
    window.refuses = "401"
    window.open()

    window.page.get_by_label("Token").fill("not.a.token")
    window.page.get_by_role("button", name="Sign in").click()
    expect(window.page.get_by_text("This token was not accepted.")).to_be_visible()
    window.page.get_by_label("Token").fill(token)
    window.page.get_by_role("button", name="Sign in").click()
    window.begin("Hello", model="stub:tokens=5,tag=q")
    window.wait_for_text(expected_text("q", 5))
    window.page.reload()
    window.wait_for_state("live")

    expect(window.page.get_by_role("button", name="Ann")).to_be_visible()
    assert any("?ticket=" in address for address in addresses)
    assert not any(token in address for address in addresses)
