"""Ring for a worker. The Celery message only names the job; the row is the truth."""

from __future__ import annotations

import logging
from uuid import UUID

from celery import Celery
from kombu.exceptions import OperationalError

from chat_backend.config import Settings
from chat_backend.domain.outage import Outage
from chat_backend.queue import names

log = logging.getLogger(__name__)


class Doorbell:
    """Sends wake-ups. Never raises: a job nobody was woken for is found by the sweep."""

    def __init__(self, settings: Settings, app: Celery | None = None) -> None:
        self._app = app or producer(settings)
        self._outage = Outage()

    def ring(self, job_id: UUID) -> bool:
        """Wake a worker for a job; say whether the broker took it."""
        if not self._outage.over():
            return False
        try:
            self._app.send_task(names.PROCESS_LLM, args=[str(job_id)], queue=names.QUEUE, ignore_result=True)
        except (OperationalError, OSError) as error:
            self._outage.failed()
            log.warning("could not wake a worker", extra={"action": "enqueue", "error": type(error).__name__})
            return False
        self._outage.succeeded()
        return True


def producer(settings: Settings) -> Celery:
    """Return a Celery app that only sends."""
    from chat_backend.queue.celery_settings import celery_settings

    app = Celery("chat_backend", set_as_current=False)
    app.conf.update(celery_settings(settings, worker=False))
    return app
