"""Typing indicators: few are passed on, and the last one is always right."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from chat_backend.web.websocket.flood import FrameRate

# For one user in one session; a few changes of state may come at once.
PER_SECOND, AT_ONCE = 1.0, 4.0
FORGET_SECONDS = 10.0

Key = TypeVar("Key", bound=Hashable)


class _Typist:
    def __init__(self, clock: Callable[[], float]) -> None:
        self.is_typing = False
        self.passed_at = clock()
        # A state that could not be passed on yet.
        self.late: bool | None = None
        self.rate = FrameRate(PER_SECOND, at_once=AT_ONCE, clock=clock)


class Indicators(Generic[Key]):
    """Decides for each typist whether a state is passed on now, later (`due`), or not at all."""

    def __init__(self, typing_seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        # Sooner than an indicator ends by itself, or one who goes on typing would seem to stop.
        self._repeat_seconds = min(1.0, typing_seconds / 2)
        self._clock = clock
        self._typists: dict[Key, _Typist] = {}
        self._lock = threading.Lock()

    def take(self, key: Key, is_typing: bool) -> bool:
        """Note a state; return whether to pass it on now."""
        with self._lock:
            if key not in self._typists and not is_typing:
                return False
            typist = self._typists.setdefault(key, _Typist(self._clock))
            typist.late = None
            at = self._clock()
            if is_typing == typist.is_typing and (not is_typing or at - typist.passed_at < self._repeat_seconds):
                return False
            if not typist.rate.allows():
                typist.late = is_typing
                return False
            typist.is_typing, typist.passed_at = is_typing, at
            return True

    def due(self) -> list[tuple[Key, bool]]:
        """Return the states that can be passed on by now; typists who have rested are forgotten."""
        with self._lock:
            due: list[tuple[Key, bool]] = []
            for key, typist in list(self._typists.items()):
                at = self._clock()
                if typist.late is not None and typist.rate.allows():
                    typist.is_typing, typist.passed_at, typist.late = typist.late, at, None
                    due.append((key, typist.is_typing))
                elif typist.late is None and at - typist.passed_at > FORGET_SECONDS:
                    del self._typists[key]
            return due

    @property
    def waiting(self) -> bool:
        """Whether a state is still to be passed on."""
        with self._lock:
            return any(typist.late is not None for typist in self._typists.values())
