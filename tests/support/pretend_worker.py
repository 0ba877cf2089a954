"""The worker's part in the database, played by the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import select

from chat_backend.bootstrap import Backend
from chat_backend.domain.enums import JobStatus
from chat_backend.domain.errors import ProviderError, ProviderRefused
from chat_backend.domain.retry import RetryPolicy
from chat_backend.domain.usage import Usage
from chat_backend.models import LlmJob
from chat_backend.services import attempts
from chat_backend.services.attempts import Claim, Measured, Terms
from tests.support.waiting import wait_until

TERMS = Terms(worker="pretend", lease_seconds=15, max_abandonments=3, expiry_seconds=3600, context_tokens=8192)
POLICY = RetryPolicy(max_attempts=1, base_seconds=0.01, cap_seconds=0.01)
REPLY = "An answer."


class PretendWorker:
    """Claims and ends jobs as a worker would, without a provider."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def claim(self, job_id: str) -> Claim:
        """Claim a job, which must be there to be claimed."""
        with self._backend.unit_of_work() as uow:
            claim = attempts.claim(uow, UUID(job_id), TERMS)
        assert claim is not None
        return claim

    def answer(self, job_id: str, text: str = REPLY, **more: Any) -> None:
        """Bring a queued job to its good end; `more` is what else was measured."""
        claim = self.claim(job_id)
        with self._backend.unit_of_work() as uow:
            counts = Usage(prompt_tokens=5, completion_tokens=7)
            measured = {"text": text, "duration_ms": 1500, "counts": counts, "http_status": 200, **more}
            attempts.succeed(uow, claim, Measured(**measured))

    def fail(self, job_id: str, text: str = "", error: ProviderError | None = None) -> None:
        """Bring a queued job to its bad end."""
        claim = self.claim(job_id)
        error = error or ProviderRefused("The provider refused the prompt.", http_status=400)
        with self._backend.unit_of_work() as uow:
            attempts.failed(uow, claim, Measured(text=text, duration_ms=20), error=error, policy=POLICY)

    @contextmanager
    def answering(self, text: str = REPLY) -> Iterator[None]:
        """While this lasts, answer the next job that is queued, beside the test."""
        thread = threading.Thread(target=lambda: self.answer(str(wait_until(self._queued)), text), daemon=True)
        thread.start()
        yield
        thread.join(10)

    def _queued(self) -> UUID | None:
        with self._backend.reading() as session:
            return session.scalar(select(LlmJob.id).where(LlmJob.status == JobStatus.QUEUED))
