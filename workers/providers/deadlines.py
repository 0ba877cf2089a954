"""Limits on a provider's silence."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType


class Stage(IntEnum):
    """How far a reply has come."""

    WAITING = 0  # nothing written yet
    WRITING = 1
    ENDING = 2  # the text is whole, little may follow
    DONE = 3  # nothing follows


@dataclass(frozen=True)
class Limits:
    """Seconds of silence before the first token, between tokens and near the end, and seconds for all of it."""

    first: float
    between: float
    total: float
    after_ending: float = 5.0
    # Only for the end of the body to come in, so that the connection can be used again.
    after_done: float = 0.05


class Deadlines:
    """Ends a block by TimeoutError when its deadline passes; every sign of life moves the deadline.

    Moving it is one assignment: the loop's timer looks again when it fires. A timer a token would be a heap of them.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._silence = (limits.first, limits.between, limits.after_ending, limits.after_done)
        self._stage = Stage.WAITING
        self._scope = asyncio.timeout(None)

    async def __aenter__(self) -> Deadlines:
        self._loop = asyncio.get_running_loop()
        start = self._loop.time()
        self._end = start + self._limits.total
        self._due = min(start + self._limits.first, self._end)
        await self._scope.__aenter__()
        self._timer = self._loop.call_at(self._due, self._look)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._scope.__aexit__(kind, error, trace)

    @property
    def expired(self) -> bool:
        return self._scope.expired()

    def heard(self, stage: Stage) -> None:
        """Note a sign of life, and how far the reply is."""
        self._due = self._loop.time() + self._silence[stage]
        if stage is not self._stage:
            self._stage = stage
            # The new deadline may be earlier than the one that the timer knows.
            self._timer.cancel()
            self._look()

    def _look(self) -> None:
        due, now = min(self._due, self._end), self._loop.time()
        if now >= due:
            self._scope.reschedule(now)
        else:
            self._timer = self._loop.call_at(due, self._look)
