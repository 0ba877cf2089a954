"""The page in Chromium, over one running product for all tests of a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser

from tests.conftest import TIMINGS
from tests.support.browser import Window, running_browser
from tests.support.databases import SQLITE, Databases
from tests.support.provider_stub import Stub
from tests.support.stack import Stack, running
from tests.support.valkey import Valkey

OpenWindow = Callable[..., Window]
# A client says every three seconds that somebody is still typing.
OWN = {"TYPING_SECONDS": "6"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as found:
        yield found


@pytest.fixture(scope="module")
def changes() -> dict[str, str]:
    """Settings of a module's own; overridden there."""
    return {}


@pytest.fixture(scope="module")
def stack(
    browser: Browser,
    databases: Databases,
    tmp_path_factory: pytest.TempPathFactory,
    stub_server: Stub,
    changes: dict[str, str],
) -> Iterator[Stack]:
    """A running product on SQLite; not begun where there is no browser to look at it."""
    folder = tmp_path_factory.mktemp("page")
    valkey = Valkey(folder)
    try:
        valkey.start()
        with databases.new(SQLITE, folder) as url:
            environ = {"AUTH_MODE": "dev", "DATABASE_URL": url, "REDIS_URL": valkey.url, **TIMINGS, **OWN, **changes}
            with running(environ, folder, stub_server) as found:
                yield found
    finally:
        valkey.kill()


@pytest.fixture(autouse=True)
def complete(stack: Stack) -> None:
    """Give each test a web process and a worker, whatever the one before has left."""
    names = [process.name for process in stack.processes if process.exit_status is None]
    for name in {"web", "worker"} - set(names):
        stack.launch(name, **({"PORT": str(stack.web.port)} if name == "web" else {}))


@pytest.fixture
def new_window(browser: Browser, stack: Stack) -> Iterator[OpenWindow]:
    """Open a window with a storage of its own; at the end none may have complained or asked another host."""
    windows: list[Window] = []
    with ExitStack() as contexts:

        def make(**options: object) -> Window:
            context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, "locale": "en-US"} | options)  # type: ignore[arg-type]
            contexts.callback(context.close)
            windows.append(Window(context, stack.web.url))
            return windows[-1]

        yield make
        faults = [fault for window in windows for fault in window.faults]
    assert faults == []
