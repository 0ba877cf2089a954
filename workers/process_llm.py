"""The one task of consequence. The message names a job; everything else is in its row."""

from __future__ import annotations

from uuid import UUID

from celery.exceptions import Terminated

from chat_backend.domain.enums import JobStatus
from chat_backend.queue import names
from workers.app import Process, app
from workers.wake_up import JobStanding, answer


class JobFailed(Exception):
    """A job has failed, and has said so to whom it concerns: to Celery, and Flower, a failed task."""


@app.task(name=names.PROCESS_LLM, throws=(JobFailed, Terminated))
def process_llm(job_id: str) -> str:
    """Work at a job. Safe to deliver twice.

    Returns how the job stands; raises JobFailed with its error's code, Terminated where it was cancelled, ValueError
    for what is no id.
    """
    assert Process.runtime is not None, "the worker has not started"
    named = UUID(job_id)
    standing = answer(Process.runtime, named)
    told = _in_words(standing, named)
    if standing.status == JobStatus.FAILED:
        raise JobFailed(told)
    if standing.status == JobStatus.CANCELLED:
        raise Terminated(told)
    return told


def _in_words(standing: JobStanding, named: UUID) -> str:
    word = standing.error_code or standing.status or "unknown"
    return str(word) if standing.job_id == named else f"{standing.job_id}: {word}"
