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
    FINISHED = 2  # the text is whole, counts may follow
    DONE = 3  # nothing follows


@dataclass(frozen=True)
class Limits:
    """Seconds: until the first token, between tokens, for all of it, and for what may follow the text."""

    first: float
    between: float
    total: float
    after_finish: float = 5.0
    # Only for the end of the body to come in, so that the connection can be used again.
    after_done: float = 0.05


class Deadlines:
    """Ends a block by TimeoutError when its deadline passes; the deadline moves with the stages of a reply.

    Moving it is one assignment: the loop's timer looks again when it fires. A timer a token would be a heap of them.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
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
        """Take note that the provider said something, and how far the reply is."""
        if stage is Stage.WRITING:
            self._due = self._loop.time() + self._limits.between
        if stage is not self._stage:
            self._enter(stage)

    def _enter(self, stage: Stage) -> None:
        self._stage = stage
        if stage is not Stage.WRITING:
            allowed = self._limits.after_done if stage is Stage.DONE else self._limits.after_finish
            self._due = self._loop.time() + allowed
        # The new deadline may be earlier than the one that the timer knows.
        self._timer.cancel()
        self._look()

    def _look(self) -> None:
        due, now = min(self._due, self._end), self._loop.time()
        if now >= due:
            self._scope.reschedule(now)
        else:
            self._timer = self._loop.call_at(due, self._look)
