"""What a worker process is doing right now, and how each of it can be stopped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from uuid import UUID

from chat_backend.services.attempts import Claim
from workers.live_publisher import LiveReply


class Stop(Enum):
    """Why an attempt is stopped."""

    CANCELLED = "cancelled"
    HANDED_OVER = "handed over"
    LOST = "lost"


class Run:
    """One job in this process, from before its claim until its end is stored."""

    def __init__(self, job_id: UUID, loop: asyncio.AbstractEventLoop) -> None:
        self.job_id = job_id
        self.claim: Claim | None = None
        self.live: LiveReply | None = None
        self.stop: Stop | None = None
        self._loop = loop
        self._task: asyncio.Task[object] | None = None

    def begin(self, claim: Claim, task: asyncio.Task[object]) -> None:
        """Note, on the loop, which task asks the provider; a stop that came before ends it at once."""
        self.claim, self._task = claim, task
        if self.stop is not None:
            task.cancel()

    def end(self) -> None:
        """Note, on the loop, that nothing is asked any more; what comes next for the job is another attempt."""
        self.claim = self._task = None

    def request(self, why: Stop) -> None:
        """Stop the attempt, from any thread; the first reason counts."""
        if self.stop is None:
            self.stop = why
            self._loop.call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        if self._task is not None:
            self._task.cancel()


class Runs:
    """All runs of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[UUID, Run] = {}
        self._none = threading.Condition(self._lock)

    @contextmanager
    def add(self, run: Run) -> Iterator[bool]:
        """Hold a place for a run; False where this process has the job in hand already."""
        with self._lock:
            mine = run.job_id not in self._runs
            if mine:
                self._runs[run.job_id] = run
        try:
            yield mine
        finally:
            if mine:
                with self._none:
                    self._runs.pop(run.job_id, None)
                    self._none.notify_all()

    def __len__(self) -> int:
        return len(self._runs)

    def all(self) -> list[Run]:
        with self._lock:
            return list(self._runs.values())

    def get(self, job_id: UUID) -> Run | None:
        return self._runs.get(job_id)

    def wait_until_none(self, seconds: float) -> bool:
        """Wait until nothing runs, at most so long; say whether nothing does."""
        with self._none:
            return self._none.wait_for(lambda: not self._runs, timeout=seconds)
