"""A short memory of failures, so that a dependency that is away costs its wait seldom, not every time."""

from __future__ import annotations

import time
from collections.abc import Callable


class Outage:
    """After some failures in a row, say no for a while, then let one caller try."""

    def __init__(
        self, *, failures: int = 2, pause_seconds: float = 2.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = failures
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._failures = 0
        self._until = 0.0

    def over(self) -> bool:
        """Whether it is worth trying now."""
        if self._failures < self._limit:
            return True
        if self._clock() < self._until:
            return False
        # One caller tries; the others go on refusing until it has come back.
        self._until = self._clock() + self._pause_seconds
        return True

    def failed(self) -> None:
        self._failures += 1
        self._until = self._clock() + self._pause_seconds

    def succeeded(self) -> None:
        self._failures = 0
