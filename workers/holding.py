"""What a worker process holds: it keeps leases, saves the text so far, and stops what the database wants stopped."""

from __future__ import annotations

import logging
from uuid import UUID

from chat_backend.bootstrap import Backend
from chat_backend.domain.enums import Purpose
from chat_backend.domain.errors import Unavailable
from chat_backend.services import leases
from workers.running import Run, Runs, Stop

log = logging.getLogger(__name__)


class Holding:
    """The hold of one process on its jobs. Every method is safe from any thread."""

    def __init__(self, backend: Backend, runs: Runs, *, worker: str, lease_seconds: float) -> None:
        self._backend = backend
        self._runs = runs
        self._worker = worker
        self._lease_seconds = lease_seconds

    def heartbeat(self) -> None:
        """Renew every lease, and stop what is cancelled or another's by now. Raises Unavailable."""
        runs = self._runs.all()
        begun = _begun(runs)
        if runs:
            # Urgent: behind the writes of hundreds of jobs it would come when the leases are over.
            with self._backend.unit_of_work(urgent=True) as uow:
                ids = [run.job_id for run in runs]
                leases.renew(uow.session, self._worker, ids, lease_seconds=self._lease_seconds)
                held = leases.held(uow.session, self._worker, ids)
            _stop_unwanted(runs, begun, held)

    def checkpoint(self) -> None:
        """Save what text has come since the last time. Raises Unavailable; then the next time saves it."""
        lives = [run.live for run in self._runs.all() if run.live is not None and run.live.unsaved]
        progress = []
        for live in lives:
            live.unsaved = False
            progress.append(leases.Progress(live.message_id, live.attempt, live.text()))
        if progress:
            try:
                with self._backend.unit_of_work() as uow:
                    leases.checkpoint(uow.session, progress)
            except Unavailable:
                for live in lives:
                    live.unsaved = True
                raise

    def told_to_cancel(self, data: bytes) -> None:
        """Look at the job that somebody names; what names none of ours is passed over."""
        try:
            run = self._runs.get(UUID(data.decode()))
        except ValueError:
            return  # whoever reaches Redis can publish anything
        # For the same reason it is only a hint: the row decides.
        self._look_at([run] if run else [])

    def lost_touch(self) -> None:
        """Look at every job: what was told meanwhile was not heard."""
        self._look_at(self._runs.all())

    def _look_at(self, runs: list[Run]) -> None:
        """Stop what the database wants stopped, if it is there to ask."""
        if not runs:
            return
        begun = _begun(runs)
        try:
            with self._backend.reading() as session:
                held = leases.held(session, self._worker, [run.job_id for run in runs])
        except Unavailable:
            log.debug("the database is away", extra={"action": "look"})  # the next heartbeat is as good
        else:
            _stop_unwanted(runs, begun, held)


def _begun(runs: list[Run]) -> set[UUID]:
    """Note, before the database is asked, what is claimed: a claim made meanwhile is not taken for a lost one."""
    return {run.job_id for run in runs if run.live is not None}


def _stop_unwanted(runs: list[Run], begun: set[UUID], held: dict[UUID, leases.Held]) -> None:
    for run in runs:
        lease, claim = held.get(run.job_id), run.claim
        if claim is not None and claim.purpose == Purpose.TITLE:
            continue  # its job has ended: nobody holds it, and nobody can cancel it
        if lease is not None and lease.cancel_requested:
            run.request(Stop.CANCELLED)
        elif run.job_id in begun and claim and (lease is None or lease.attempt > claim.number):
            run.request(Stop.LOST)
