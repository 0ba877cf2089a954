"""What every worker does now and then beside its jobs: it deletes what is past its time, or was deleted by a user."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from uuid import UUID

from chat_backend.bootstrap import Backend
from chat_backend.config import Settings
from chat_backend.services import housekeeping, model_titles, storage

# Half of the interval at which it is called: as much as is written at a legal rate meanwhile is deleted in less.
BUDGET_SECONDS = 30.0


class Housekeeper:
    """Deletes in portions. Any number of processes may do so at once."""

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        *,
        stopped: threading.Event,
        budget_seconds: float = BUDGET_SECONDS,
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._stopped = stopped
        self._budget_seconds = budget_seconds
        self._events_upto: UUID | None = None

    def forget(self) -> None:
        """Delete everything that is past its time, in portions, until the time budget is used. Raises Unavailable."""
        self._give_up_lost_titles()
        deadline = time.monotonic() + self._budget_seconds
        while self._forget_portions() and time.monotonic() < deadline and not self._stopped.is_set():
            pass

    def delete_sessions(self) -> None:
        """Delete the rows of chat sessions that users have deleted. Raises Unavailable.

        After each portion others get as much time to write as it has taken.
        """
        with self._backend.reading() as session:
            deleted = housekeeping.deleted_sessions(session)
        for session_id in deleted:
            is_gone = False
            while not is_gone and not self._stopped.is_set():
                with self._backend.unit_of_work() as uow:
                    uow.session.connection()
                    begun = time.monotonic()
                    is_gone = housekeeping.delete_portion(uow, session_id)
                self._stopped.wait(time.monotonic() - begun)

    def _forget_portions(self) -> bool:
        """Delete a portion of each kind, so that none waits for another; return whether there may be more."""
        settings = self._settings
        keys_seconds, events_seconds = settings.idempotency_retention_seconds, settings.event_retention_seconds
        gone = self._delete(partial(housekeeping.forget_expired, keys_seconds=keys_seconds))
        gone += self._delete(partial(housekeeping.forget_audit, days=settings.audit_days))
        gone += self._delete(storage.compact)
        with self._backend.reading() as session:
            old, self._events_upto = housekeeping.old_events(
                session, events_seconds=events_seconds, after=self._events_upto
            )
        for some in old:
            gone += self._delete(partial(housekeeping.forget_events, old=some))
        return gone > 0 or self._events_upto is not None

    def _delete(self, delete: Callable[..., int]) -> int:
        """Delete in a transaction of its own, and leave the database to others for as long as that took."""
        began = time.monotonic()
        with self._backend.unit_of_work() as uow:
            gone = delete(uow.session)
        self._stopped.wait(time.monotonic() - began)
        return gone

    def _give_up_lost_titles(self) -> None:
        with self._backend.reading() as session:
            lost = model_titles.lost(session)
        for job_id in lost:
            with self._backend.unit_of_work() as uow:
                model_titles.give_up(uow, job_id, quota=self._settings.quota)
