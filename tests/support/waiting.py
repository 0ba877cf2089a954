"""The only place where a test waits: for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

POLL_SECONDS = 0.02


def wait_until(condition: Callable[[], Found | None], *, seconds: float = 10.0, why: str = "") -> Found:
    """Return what the condition returns as soon as it is true.

    Fails the test after so many seconds, saying what was waited for.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            name = why or getattr(condition, "__qualname__", repr(condition))
            raise AssertionError(f"Not within {seconds:g} s: {name}")
        time.sleep(POLL_SECONDS)
    return found
