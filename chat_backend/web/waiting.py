"""Requests that wait for a reply, without using up the process."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from uuid import UUID

from flask import Flask
from sqlalchemy import select

from chat_backend.bootstrap import Backend
from chat_backend.domain.enums import has_ended
from chat_backend.domain.errors import Unavailable
from chat_backend.models import LlmJob
from chat_backend.web.turns import end_turn
from chat_backend.web.websocket.hub import Hub

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
# One user's part of the places, where users are told apart.
SHARE = 4


class Waiting:
    """Bounds how many requests of a process wait at once."""

    def __init__(self, hub: Hub, backend: Backend) -> None:
        self._hub = hub
        self._backend = backend
        self._places = self._places_each = backend.settings.max_waiting_requests
        if not backend.settings.is_dev:
            self._places_each = math.ceil(self._places / SHARE)
        self._lock = threading.Lock()
        self._waiting: Counter[str] = Counter()

    def until_ended(self, job_id: UUID, session_id: UUID, *, user_id: str, seconds: float) -> None:
        """Return when the job has ended, or the time is up; at once where too many wait already, or of this user."""
        if seconds <= 0 or not self._take_place(user_id):
            return
        try:
            self._wait(job_id, session_id, time.monotonic() + seconds)
        finally:
            self._give_back(user_id)

    def _take_place(self, user_id: str) -> bool:
        with self._lock:
            if self._waiting.total() >= self._places or self._waiting[user_id] >= self._places_each:
                return False
            self._waiting[user_id] += 1
            return True

    def _give_back(self, user_id: str) -> None:
        with self._lock:
            self._waiting[user_id] -= 1
            self._waiting += Counter()  # who waits no more is forgotten

    def _wait(self, job_id: UUID, session_id: UUID, deadline: float) -> None:
        ended = threading.Event()
        self._hub.start()
        with self._hub.feed(session_id) as feed:
            feed.when_ended(str(job_id), ended.set)
            try:
                # What the feed has missed, the database tells within a second.
                while not self._hub.stopping and not self._ended(job_id) and (left := deadline - time.monotonic()) > 0:
                    if ended.wait(min(left, LOOK_SECONDS)):
                        return
            finally:
                feed.no_longer(str(job_id), ended.set)

    def _ended(self, job_id: UUID) -> bool:
        with self._backend.reading() as session:
            status = session.scalar(select(LlmJob.status).where(LlmJob.id == job_id))
        return status is None or has_ended(status)


def wait_for_job(app: Flask, job_id: UUID, session_id: UUID, *, user_id: str, seconds: float) -> None:
    """Wait until a job has ended, within bounds. Raises NotFound where its chat session is gone."""
    waiting: Waiting = app.extensions["chat_waiting"]
    end_turn()
    try:
        waiting.until_ended(job_id, session_id, user_id=user_id, seconds=seconds)
    except Unavailable:
        # The job is accepted: that its end can't be awaited is no reason to let the client ask again.
        log.info("a wait was cut short", extra={"action": "wait", "job_id": str(job_id)})
