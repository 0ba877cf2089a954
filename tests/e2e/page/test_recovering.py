"""The page while parts of the backend die and come back: it helps itself, and ends with the truth."""

from __future__ import annotations

from uuid import uuid4

from playwright.sync_api import expect

from tests.e2e.page.conftest import OpenWindow
from tests.support.provider_stub import expected_text
from tests.support.stack import Stack
from tests.support.waiting import wait_until

SLOW = "stub:tokens=80,delay=0.05,tag=t"
QUICK = "stub:tokens=5,tag=q"


def test_a_web_process_that_restarts_in_mid_stream_is_found_again(new_window: OpenWindow, stack: Stack) -> None:
    window = new_window().open(user=uuid4().hex)
    window.begin("Hello", model=SLOW)
    wait_until(lambda: len(window.text_of()) > 20, why="there is some text")
    window.expects_outage = True

    web = stack.web
    web.stop()
    window.wait_for_state("waiting")
    window.say("Said while nobody was there")
    expect(window.page.locator("article[data-status=sending]")).to_be_visible()
    stack.launch("web", PORT=str(web.port))

    window.wait_for_state("live")
    window.wait_for_text(expected_text("t", 80), 0)
    window.wait_for_text(expected_text("t", 80), 1)
    expect(window.page.locator("article")).to_have_count(4)


def test_what_was_sent_to_nobody_is_sent_when_the_page_is_opened_again(new_window: OpenWindow, stack: Stack) -> None:
    window = new_window().open(user=uuid4().hex)
    window.begin("Hello", model=QUICK)
    window.wait_for_text(expected_text("q", 5))
    address, web = window.page.url, stack.web
    window.expects_outage = True

    web.kill()
    window.wait_for_state("waiting")
    window.say("Said while nobody was there")
    expect(window.field).to_have_value("")
    window.page.goto("about:blank")
    stack.launch("web", PORT=str(web.port))
    window.page.goto(address)

    expect(window.page.locator("article[data-mine] .text")).to_have_text(["Hello", "Said while nobody was there"])
    window.wait_for_text(expected_text("q", 5), 1)
    window.page.reload()
    window.wait_for_state("live")
    expect(window.page.locator("article")).to_have_count(4)
    assert window.run("() => Object.keys(localStorage).filter((name) => name.startsWith('chat.unsent'))") == []


def test_a_worker_that_dies_in_mid_stream_is_replaced_before_the_readers_eyes(
    new_window: OpenWindow, stack: Stack
) -> None:
    window = new_window().open(user=uuid4().hex)
    window.begin("Hello", model=SLOW)
    wait_until(lambda: len(window.text_of()) > 20, why="there is some text")

    next(process for process in stack.processes if process.name == "worker" and process.exit_status is None).kill()
    stack.launch("worker")

    window.wait_for_text(expected_text("t", 80))
    expect(window.reply().locator(".facts")).to_contain_text("attempt 2")
    expect(window.page.locator("article")).to_have_count(2)
