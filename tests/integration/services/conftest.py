"""The services over a real database; what goes out is remembered instead of sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from chat_backend.bootstrap import Backend, connect
from chat_backend.config import Settings
from chat_backend.domain.usage import Usage
from chat_backend.domain.user import User
from chat_backend.models import LlmJob, Message
from chat_backend.protocol.envelope import Durable, Envelope
from chat_backend.services import attempts, chat_sessions, messages
from chat_backend.services.attempts import Claim, Measured, Terms

ALICE = User("alice")
WORKER = "worker-1"
TERMS = Terms(WORKER, lease_seconds=15, max_abandonments=3, expiry_seconds=86400, context_tokens=8192)


@dataclass
class Remembered:
    """A way out with a memory."""

    envelopes: list[tuple[UUID, Envelope]] = field(default_factory=list)
    woken: list[UUID] = field(default_factory=list)
    cancelled: list[UUID] = field(default_factory=list)

    def publish(self, envelopes: list[tuple[UUID, Envelope]]) -> None:
        self.envelopes += envelopes

    def wake(self, job_ids: list[UUID]) -> None:
        self.woken += job_ids

    def cancel(self, job_ids: list[UUID]) -> None:
        self.cancelled += job_ids

    def close(self) -> None:
        """Nothing was opened."""

    @property
    def offsets(self) -> list[int]:
        return [envelope.offset for _, envelope in self.envelopes if isinstance(envelope, Durable)]


@dataclass
class World:
    """A database, and short ways to do in it what clients and workers do."""

    backend: Backend
    out: Remembered
    terms: Terms = TERMS

    def new_session(self, **settings: Any) -> UUID:
        with self.backend.unit_of_work() as uow:
            fields = {"llm_provider": "LOCAL", "llm_model": "m", "title": None, "settings": settings}
            return chat_sessions.make(uow, ALICE, **fields)[0].id

    def ask(self, session_id: UUID, content: str, **more: Any) -> LlmJob:
        with self.backend.unit_of_work() as uow:
            job = messages.send(uow, session_id, ALICE, content=content, process=True, **more).job
        assert job is not None
        return job

    def say(self, session_id: UUID, content: str, **more: Any) -> Message:
        with self.backend.unit_of_work() as uow:
            return messages.send(uow, session_id, ALICE, content=content, **more).message

    def claim(self, job_id: UUID) -> Claim | None:
        with self.backend.unit_of_work() as uow:
            return attempts.claim(uow, job_id, self.terms)

    def must_claim(self, job_id: UUID) -> Claim:
        claim = self.claim(job_id)
        assert claim is not None
        return claim

    def answer(self, session_id: UUID, question: str, reply: str) -> LlmJob:
        """Ask and have it answered at once."""
        job = self.ask(session_id, question)
        claim = self.must_claim(job.id)
        with self.backend.unit_of_work() as uow:
            attempts.succeed(uow, claim, measured(reply))
        return job

    def job(self, job_id: UUID) -> LlmJob:
        with self.backend.reading() as session:
            job = session.get(LlmJob, job_id)
            assert job is not None
            _ = job.attempts
            return job

    def reply(self, job: LlmJob) -> Message:
        with self.backend.reading() as session:
            reply = session.get(Message, job.assistant_message_id)
            assert reply is not None
            return reply


def measured(text: str = "", *, completion_tokens: int | None = None, **more: Any) -> Measured:
    return Measured(**{"text": text, "duration_ms": 10, "counts": Usage(completion_tokens=completion_tokens)} | more)


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    settings = Settings.from_environment({"AUTH_MODE": "dev", "DATABASE_URL": database_url})
    backend = connect(settings)
    backend.out.close()
    out = backend.out = Remembered()
    yield World(backend, out)
    backend.close()
