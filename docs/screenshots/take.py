"""Take the pictures of the README anew: `make screenshots`. Needs Chromium, starts a backend of its own."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from chat_backend.cli.embedded import free_port
from tests.support.browser import Window, running_browser
from tests.support.chat import Chat
from tests.support.processes import Process
from tests.support.waiting import wait_until

FOLDER = Path(__file__).parent
READY_SECONDS = 60
CHATS = ("Renaming a column without downtime", "Ideas for Friday", "Why is the sky blue?", "Letter to the landlord")
DESKTOP = {"width": 1180, "height": 760}
PHONE = {"width": 390, "height": 780}


@contextmanager
def running_backend(folder: Path) -> Iterator[str]:
    """Start everything, as `make run` does, and give its address."""
    port = free_port()
    environ = {"PORT": str(port), "LOCAL_LLM_BASE_URL": "http://127.0.0.1:9/v1"}
    command = [str(Path(sys.executable).parent / "chat-backend"), "up", "--data", str(folder / "data")]
    process = Process("up", command, environ, folder)
    try:
        process.wait_until_ready(lambda: "is running at" in process.log, seconds=READY_SECONDS)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stop()


def fill(url: str) -> str:
    """Put some chats there, two people in the last; return its id."""
    with Chat(url, "alice") as alice:
        for title in CHATS:
            alice.new_session("demo", title=title)
        session: str = alice.new_session("demo", title="How shall we greet people?")["id"]
        alice.request(
            "POST", f"/sessions/{session}/participants", json={"user_id": "bob", "role": "member"}, status=201
        )
        for text in ("Show me some code, please. Say: markdown", "markdown"):
            if text == "markdown":
                alice.wait_for_job(alice.ask(session, text)["job_id"])
    return session


def take(page: Page, name: str) -> None:
    path = FOLDER / f"{name}.png"
    page.screenshot(path=path)
    print(f"{path}: {path.stat().st_size // 1024} KB")


def take_all(browser: Browser, url: str) -> None:
    session = fill(url)
    bob = Window(browser.new_context(viewport=DESKTOP, locale="en-GB"), url).open(user="bob", session=session)
    bob.wait_for_state("live")
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport=DESKTOP, color_scheme=scheme, locale="en-GB")
        window = Window(context, url).open(user="alice", session=session)
        window.wait_for_state("live")
        if scheme == "light":
            bob.say("count to 90")
        wait_until(lambda shown=window: len(shown.text_of(1)) > 60, why="there is some text")
        # Who has stopped and begins again is told of at once.
        bob.field.fill("")
        bob.field.type("Nice")
        expect(window.page.locator(".typists")).not_to_be_empty()
        take(window.page, f"chat-{scheme}")
    phone = Window(browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True, locale="en-GB"), url)
    phone.open(user="alice", session=session).wait_for_state("live")
    take(phone.page, "phone")
    window.page.get_by_role("link", name="Status").click()
    expect(window.page.locator(".card .value").first).to_be_visible()
    take(window.page, "status")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, running_backend(Path(folder)) as url, running_browser() as browser:
        take_all(browser, url)


if __name__ == "__main__":
    main()
