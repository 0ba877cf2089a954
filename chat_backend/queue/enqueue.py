"""Ring for a worker. The Celery message only names the job; the row is the truth."""

from __future__ import annotations

import atexit
import logging
import queue
import threading
from uuid import UUID

from celery import Celery

from chat_backend.config import Settings
from chat_backend.domain.outage import Outage
from chat_backend.queue import names
from chat_backend.queue.app import App

log = logging.getLogger(__name__)

MOST_WAITING = 1000
CLOSING_SECONDS = 1.0


class Doorbell:
    """Sends wake-ups, from a thread of its own: a broker that hangs holds up nobody.

    What does not go out (the broker is away, too much waits) is found by the workers' sweep.
    """

    def __init__(self, settings: Settings, app: Celery | None = None) -> None:
        self._app = app or producer(settings)
        self._outage = Outage(failures=1)
        self._waiting: queue.Queue[UUID] = queue.Queue(MOST_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ring(self, job_id: UUID) -> None:
        """Wake a worker for a job, soon. Never raises, never waits."""
        self._start()
        try:
            self._waiting.put_nowait(job_id)
        except queue.Full:
            log.warning("too many wake-ups wait", extra={"action": "enqueue", "job_id": str(job_id)})

    def close(self, seconds: float = CLOSING_SECONDS) -> None:
        """Let go out what waits; bounded, safe to repeat."""
        with self._waiting.all_tasks_done:
            self._waiting.all_tasks_done.wait_for(lambda: not self._waiting.unfinished_tasks, timeout=seconds)

    def _start(self) -> None:
        # Not before the first ring: the process may still fork, and a thread does not survive that.
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
                self._thread.start()
                atexit.register(self.close)

    def _run(self) -> None:
        while True:
            job_id = self._waiting.get()
            if self._outage.over():
                self._send(job_id)
            self._waiting.task_done()

    def _send(self, job_id: UUID) -> None:
        try:
            self._app.send_task(names.PROCESS_LLM, args=[str(job_id)], queue=names.QUEUE, ignore_result=True)
        except Exception as error:  # whatever a broker's client raises: this thread rings for every job to come
            self._outage.failed()
            log.warning("could not wake a worker", extra={"action": "enqueue", "error": type(error).__name__})
        else:
            self._outage.succeeded()


def producer(settings: Settings) -> Celery:
    """Return a Celery app that only sends."""
    from chat_backend.queue.celery_settings import celery_settings

    app = App("chat_backend", set_as_current=False)
    app.conf.update(celery_settings(settings, worker=False))
    return app
