"""The page where users bring tokens."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.e2e.page.conftest import OpenWindow
from tests.support.provider_stub import expected_text
from tests.support.tokens import KEY, token


@pytest.fixture(scope="module")
def changes() -> dict[str, str]:
    return {
        "AUTH_MODE": "jwt",
        "JWT_SECRET": KEY,
        "SESSION_TITLES": "words",
        "FLOWER_URL": "https://flower.example/tasks",
    }


def test_a_token_is_asked_for_kept_for_the_window_and_never_in_an_address(new_window: OpenWindow) -> None:
    window, given = new_window(), token("Ann")
    addresses: list[str] = []
    window.page.on("request", lambda request: addresses.append(request.url))
    window.page.on("websocket", lambda socket: addresses.append(socket.url))
    window.refuses = "401"
    window.open()

    window.page.get_by_label("Token").fill("not.a.token")
    window.page.get_by_role("button", name="Sign in").click()
    expect(window.page.get_by_text("This token was not accepted.")).to_be_visible()
    window.page.get_by_label("Token").fill(given)
    window.page.get_by_role("button", name="Sign in").click()
    window.begin("Hello", model="stub:tokens=5,tag=q")
    window.wait_for_text(expected_text("q", 5))
    window.page.reload()
    window.wait_for_state("live")

    expect(window.page.get_by_role("button", name="Ann")).to_be_visible()
    assert any("?ticket=" in address for address in addresses)
    assert not any(given in address for address in addresses)


def test_a_token_that_is_taken_no_more_is_asked_for_and_a_server_that_fails_is_not_blamed_on_it(
    new_window: OpenWindow,
) -> None:
    window = new_window()
    window.refuses = "500"
    window.page.add_init_script(f"sessionStorage.setItem('chat.token', '{token('Ann')}')")
    window.page.route("**/stats", lambda route: route.fulfill(status=500, json={}))

    window.open()
    said = window.page.get_by_role("main").get_by_role("alert")
    expect(said).to_have_text("This page could not begin: The server answered with 500.")
    window.page.unroute("**/stats")
    window.page.get_by_role("button", name="Try again").click()
    expect(window.page.get_by_role("button", name="Ann")).to_be_visible()

    window.refuses = "401"
    window.page.add_init_script(f"sessionStorage.setItem('chat.token', '{token('Ann', seconds=-60)}')")
    window.page.reload()
    expect(window.page.get_by_role("dialog")).to_contain_text("Your token is no longer accepted.")


def test_a_chat_is_named_by_the_deployment_and_flower_is_where_it_says(new_window: OpenWindow) -> None:
    window = new_window()
    window.page.add_init_script(f"sessionStorage.setItem('chat.token', '{token('Ann')}')")
    window.open()

    with window.page.expect_request(lambda request: request.method == "POST") as asked:
        window.begin("What is this called?", model="stub:tokens=5,tag=q")

    assert "title" not in asked.value.post_data_json
    expect(window.page.get_by_role("heading", name="What is this called?")).to_be_visible()
    expect(window.page.locator(".sessions .title").first).to_have_text("What is this called?")
    window.page.get_by_role("link", name="Status").click()
    flower = window.page.get_by_role("link", name="Jobs in Flower")
    expect(flower).to_have_attribute("href", "https://flower.example/tasks")
