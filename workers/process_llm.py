"""The one task of consequence. The message names a job; everything else is in its row."""

from __future__ import annotations

from uuid import UUID

from chat_backend.queue import names
from workers.app import Process, app


@app.task(name=names.PROCESS_LLM)
def process_llm(job_id: str) -> None:
    """Work at a job. Safe to deliver twice. Raises ValueError for what is no id."""
    assert Process.runtime is not None, "the worker has not started"
    Process.runtime.woken(UUID(job_id))
