"""Logging of exceptions of our own."""

from __future__ import annotations

import logging
from uuid import UUID

log = logging.getLogger(__name__)


def log_fault(message: str, error: Exception, *, job_id: UUID, **facts: object) -> None:
    """Log an exception with its traceback, without its own message: that may quote what people have written."""
    nameless = RuntimeError(type(error).__name__).with_traceback(error.__traceback__)
    log.error(message, exc_info=nameless, extra={"action": "job", "job_id": str(job_id), **facts})
