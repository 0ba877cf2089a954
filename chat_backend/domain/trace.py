"""The name of what is being done, a request or a frame: it follows a job to its worker, into every log line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[str | None] = ContextVar("trace_id", default=None)


def current_trace() -> str | None:
    """Return the name of what this thread, greenlet or task is doing; None where it has none."""
    return _current.get()


def begin_trace(trace_id: str | None) -> None:
    """From here on, until the next one, everything is done under this name."""
    _current.set(trace_id)


@contextmanager
def traced(trace_id: str | None) -> Iterator[None]:
    """Do something under a name, then go on under the one before."""
    token = _current.set(trace_id)
    try:
        yield
    finally:
        _current.reset(token)
