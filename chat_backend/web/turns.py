"""So many requests of one user at once: the rest of a flood waits in line, and other users beside it, not behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from flask import Flask, current_app, request

from chat_backend.config import Settings
from chat_backend.domain.errors import TooMany
from chat_backend.domain.limits import WAITING_IN_LINE
from chat_backend.domain.rate import Paces
from chat_backend.domain.user import User

# Of one user; of all, as many as the process has threads for beside those for everything else.
MOST_WAITING = 100
PATIENCE_SECONDS = 10.0
RETRY_AFTER_SECONDS = 2
# What a user may ask for as fast as it is answered, and how often a place is given out after that: what a minute allows
# at once would otherwise be worked at with all that the process has.
HURRIED = 100
PLACE_INTERVAL_SECONDS = 0.04


# Where a request's place and its user stand in the WSGI environment, which lasts until the response has been sent.
PLACE, USER = "chat_backend.place", "chat_backend.user"


def install(app: Flask, settings: Settings) -> None:
    """Give an app its limits; a place is given back when its response has been sent (`sending`), or before."""
    app.extensions["turns"] = Turns(settings.requests_at_once)


def begin_turn(user: User) -> None:
    """Wait for a place of the user's. Raises TooMany."""
    turns: Turns = current_app.extensions["turns"]
    request.environ[USER] = user.id
    request.environ[PLACE] = turns.take(user.id)


def end_turn() -> None:
    """Let the user's next request begin, though this one goes on: it only waits, and works no more."""
    give_back(request.environ)


def give_back(environ: dict[str, Any]) -> None:
    """Give back the place of a request, unless that was done."""
    environ.pop(PLACE, _nothing)()


class Turns:
    """Gives each user so many places in this process, and slowly to who hurries; 0: as many as they like."""

    def __init__(
        self, at_once: int, *, patience_seconds: float = PATIENCE_SECONDS, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._at_once = at_once
        self._patience_seconds = patience_seconds
        self._pause = pause
        self._paces = Paces(HURRIED, PLACE_INTERVAL_SECONDS / max(1, at_once))
        self._lines: dict[str, _Line] = {}
        self._waiting = 0
        self._lock = threading.Lock()

    def take(self, user_id: str) -> Callable[[], None]:
        """Wait for a place, and return what gives it back; to be called once.

        Raises TooMany where too many wait already, or for too long.
        """
        if not self._at_once:
            return _nothing
        with self._lock:
            line = self._lines.setdefault(user_id, _Line(self._at_once))
            waits = line.people >= self._at_once
            if waits and (line.people >= self._at_once + MOST_WAITING or self._waiting >= WAITING_IN_LINE):
                raise _too_many()
            line.people += 1
            self._waiting += waits
        came_in = line.places.acquire(timeout=self._patience_seconds)
        with self._lock:
            self._waiting -= waits
        if not came_in:
            self._leave(user_id, line)
            raise _too_many()
        # In their place: the rest of the line waits behind it, so nobody pauses for longer than a place is worth.
        if (seconds := self._paces.wait(user_id)) > 0:
            self._pause(seconds)
        return lambda: self._give_back(user_id, line)

    def people(self, user_id: str) -> int:
        """Return how many requests of a user have a place or wait for one."""
        with self._lock:
            line = self._lines.get(user_id)
            return line.people if line else 0

    def _give_back(self, user_id: str, line: _Line) -> None:
        line.places.release()
        self._leave(user_id, line)

    def _leave(self, user_id: str, line: _Line) -> None:
        with self._lock:
            line.people -= 1
            if not line.people:
                del self._lines[user_id]


class _Line:
    """A user's places, and how many requests have one or wait for one."""

    def __init__(self, places: int) -> None:
        self.places = threading.Semaphore(places)
        self.people = 0


def _nothing() -> None:
    return


def _too_many() -> TooMany:
    return TooMany("Too many of your requests are waiting.", retry_after_seconds=RETRY_AFTER_SECONDS)
