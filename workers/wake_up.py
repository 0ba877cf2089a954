"""What comes of a wake-up: work at a job, and how that job stands then."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from uuid import UUID

from chat_backend.domain.enums import JobStatus
from chat_backend.domain.errors import Unavailable
from chat_backend.services import attempts, leases
from workers.runtime import Runtime

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobStanding:
    """How a job stands; without a status: it is gone, or the database is away."""

    job_id: UUID
    status: JobStatus | None = None
    error_code: str | None = None


def answer(runtime: Runtime, job_id: UUID) -> JobStanding:
    """Work at the job that a wake-up names; at another one whose turn it is, where this is the last free place.

    Then the named job has a wake-up of its own again.
    """
    with runtime.place() as is_last:
        first = _first_in_turn(runtime, job_id) if is_last and not runtime.is_draining else job_id
        if first != job_id:
            runtime.backend.out.wake([job_id])
            try:
                return _work_at(runtime, first)
            except Exception:  # whatever is wrong with it must keep no other from this place
                log.exception("a job stumbled", extra={"action": "process", "job_id": str(first)})
        return _work_at(runtime, job_id)


def _first_in_turn(runtime: Runtime, job_id: UUID) -> UUID:
    try:
        with runtime.backend.reading() as session:
            is_due = attempts.next_asked(session, job_id) is not None
            first = leases.first_in_turn(session) if is_due else None
    except Unavailable:
        return job_id  # the claim waits for the database
    return first or job_id


def _work_at(runtime: Runtime, job_id: UUID) -> JobStanding:
    status = runtime.process(job_id)
    if status is not None:
        return JobStanding(job_id, status)
    try:
        with runtime.backend.reading() as session:
            return JobStanding(job_id, *attempts.standing(session, job_id))
    except Unavailable:
        return JobStanding(job_id)
