"""What every worker does now and then beside its jobs: it forgets what is past its time."""

from __future__ import annotations

from uuid import UUID

from chat_backend.bootstrap import Backend
from chat_backend.config import Settings
from chat_backend.services import housekeeping, model_titles


class Housekeeper:
    """Forgets keys, audit, events and titles that nobody will finish. Any number of processes may do so at once."""

    def __init__(self, settings: Settings, backend: Backend) -> None:
        self._settings = settings
        self._backend = backend
        self._forgotten_upto: UUID | None = None

    def forget(self) -> None:
        """Forget what is past its time. Raises Unavailable."""
        with self._backend.unit_of_work() as uow:
            housekeeping.forget_expired(uow.session, keys_seconds=self._settings.idempotency_retention_seconds)
            housekeeping.forget_audit(uow.session, days=self._settings.audit_days)
        with self._backend.reading() as session:
            lost = model_titles.lost(session)
        for job_id in lost:
            with self._backend.unit_of_work() as uow:
                model_titles.give_up(uow, job_id, quota=self._settings.quota)
        self._forget_events()

    def _forget_events(self) -> None:
        kept_seconds = self._settings.event_retention_seconds
        with self._backend.reading() as session:
            old, upto = housekeeping.old_events(session, events_seconds=kept_seconds, after=self._forgotten_upto)
        for some in old:
            with self._backend.unit_of_work() as uow:
                housekeeping.forget_events(uow.session, some)
        self._forgotten_upto = upto
