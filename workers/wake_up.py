"""What comes of a wake-up: work at a job, and how that job stands then."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from chat_backend.domain.enums import JobStatus
from chat_backend.domain.errors import Unavailable
from chat_backend.services import attempts
from workers.runtime import Runtime


@dataclass(frozen=True)
class JobStanding:
    """How a job stands; without a status: it is gone, or the database is away."""

    job_id: UUID
    status: JobStatus | None = None
    error_code: str | None = None


def answer(runtime: Runtime, job_id: UUID) -> JobStanding:
    """Work at the job that a wake-up names, or at the one whose turn it is; where there is no place for it, at none.

    A job that is passed over so begins when a place comes free.
    """
    with runtime.place_for(job_id) as admitted:
        return JobStanding(job_id, JobStatus.QUEUED) if admitted is None else _work_at(runtime, admitted)


def _work_at(runtime: Runtime, job_id: UUID) -> JobStanding:
    status = runtime.process(job_id)
    if status is not None:
        return JobStanding(job_id, status)
    try:
        with runtime.backend.reading() as session:
            return JobStanding(job_id, *attempts.standing(session, job_id))
    except Unavailable:
        return JobStanding(job_id)
