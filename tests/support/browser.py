"""The page in a real browser: windows of users, watched for whatever no page of ours may do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect, sync_playwright

from tests.support.waiting import wait_until

NAMES = ("chromium", "chromium-browser", "google-chrome")
# It asks nobody but us, and needs no sandbox beside the container's.
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
PATIENCE_SECONDS = 15.0
# What a browser says by itself while the server is away, or answers that there is nothing.
AWAY = ("net::ERR_CONNECTION", "net::ERR_EMPTY_RESPONSE", "net::ERR_SOCKET", "WebSocket connection to")


def chromium() -> str:
    """Return where Chromium is; without one the test is skipped, in CI it fails."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    sentence = "There is no Chromium here, so the page is not tested: apt-get install chromium."
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Start a browser with nothing in it."""
    path = chromium()
    expect.set_options(timeout=PATIENCE_SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


class Window:
    """One user's window on the page."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.page: Page = context.new_page()
        self.url = url
        self.faults: list[str] = []
        self.expects_outage = False
        # A status that the test provokes, and the browser complains of.
        self.refuses = ""
        self.page.set_default_timeout(PATIENCE_SECONDS * 1000)
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.faults.append(f"uncaught: {error}"))
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.on("websocket", lambda socket: self._asked(socket.url))
        self.page.on("dialog", lambda dialog: self.faults.append(f"a dialog: {dialog.message}"))

    def _heard(self, message: ConsoleMessage) -> None:
        away = self.expects_outage and any(text in message.text for text in AWAY)
        provoked = bool(self.refuses) and f"status of {self.refuses}" in message.text
        # Where there is no page of ours around a test, a browser looks for an icon.
        iconless = message.location["url"].endswith("/favicon.ico")
        if message.type in ("error", "warning") and not (away or iconless or provoked):
            self.faults.append(f"console: {message.text}")

    def _asked(self, url: str) -> None:
        if urlsplit(url).netloc != urlsplit(self.url).netloc:
            self.faults.append(f"asked another host: {url}")

    def open(self, *, user: str | None = None, session: str | None = None) -> Window:
        """Open the page as a user, at a session or at the beginning."""
        query = f"?user={quote(user)}" if user else ""
        self.page.goto(f"{self.url}/{query}{f'#/s/{session}' if session else ''}")
        return self

    def begin(self, text: str, *, model: str) -> str:
        """Begin a chat with a model by its first message; return the session's id."""
        self.page.get_by_label("Model", exact=True).fill(model)
        self.say(text)
        self.page.wait_for_url(lambda url: "#/s/" in url)
        return self.page.url.rpartition("/")[2]

    def say(self, text: str) -> None:
        self.field.fill(text)
        self.field.press("Enter")

    @property
    def field(self) -> Locator:
        return self.page.get_by_role("textbox", name="Message", exact=True)

    @property
    def replies(self) -> Locator:
        return self.page.locator("article[data-role=assistant]")

    def reply(self, number: int = 0) -> Locator:
        return self.replies.nth(number)

    def text_of(self, number: int = 0) -> str:
        """Return a reply's text as it stands."""
        return self.reply(number).locator(".text").text_content() or ""

    def wait_for_text(self, text: str, number: int = 0) -> None:
        """Wait until a reply is complete and says just this."""
        expect(self.reply(number)).to_have_attribute("data-status", "complete", timeout=PATIENCE_SECONDS * 2000)
        wait_until(lambda: self.text_of(number).strip() == text.strip(), why="the reply says what it should")

    def wait_for_state(self, state: str) -> None:
        """Wait for the connection to be live, waiting, ..."""
        expect(self.page.locator(".connection")).to_have_attribute("data-state", state)

    def run(self, script: str, argument: Any = None) -> Any:
        """Run a script in the page."""
        return self.page.evaluate(script, argument)
