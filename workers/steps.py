"""The steps of a job's way through a worker process: claim it, ask its provider, store what came."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from uuid import UUID

from chat_backend.bootstrap import Backend
from chat_backend.config import Settings
from chat_backend.domain.enums import JobStatus, Purpose, Titles
from chat_backend.domain.errors import EmptyReply, InternalFault, LeaseLost, ProviderError, Unavailable
from chat_backend.domain.retry import RetryPolicy
from chat_backend.domain.trace import traced
from chat_backend.realtime.connection import RedisClient
from chat_backend.services import attempts, model_titles
from chat_backend.services.attempts import Claim, Terms
from chat_backend.unit_of_work import UnitOfWork
from workers.ask import Ending, ask
from workers.breaker import Breaker
from workers.database_watch import DatabaseWatch
from workers.faults import log_fault
from workers.live_publisher import LivePublisher
from workers.providers.base import Provider
from workers.providers.refusals import OF_THE_REQUEST
from workers.running import Run, Stop

log = logging.getLogger(__name__)

STORE_SECONDS = 120.0
STORE_PAUSE_SECONDS = 0.5
CLAIM_TRIES = 5
LONGEST_PAUSE_SECONDS = 5.0

# What comes of a step: how its job has ended, or the seconds until the next step; None: there is none here.
Next = JobStatus | float | None


class Steps:
    """What a job goes through here, step by step. Each step is safe beside the same one in another process."""

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        *,
        worker: str,
        redis: RedisClient,
        providers: Mapping[str, Provider],
        loop: asyncio.AbstractEventLoop,
        later: Callable[..., object],
        stopped: threading.Event,
        watch: DatabaseWatch,
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._worker = worker
        self._providers = providers
        self._loop = loop
        self._later = later
        self._stopped = stopped
        self._watch = watch
        self._publisher: LivePublisher | None = None
        self._policy = RetryPolicy(
            settings.llm_max_attempts,
            settings.llm_backoff_base_seconds,
            settings.llm_backoff_cap_seconds,
            starting_seconds=settings.llm_first_token_timeout_seconds,
        )
        self._terms = Terms(
            worker=worker,
            lease_seconds=settings.lease_seconds,
            max_abandonments=settings.max_abandoned_attempts,
            expiry_seconds=settings.job_expiry_seconds,
            context_tokens=settings.context_tokens,
            windows=settings.context.windows,
            sums_up=settings.sums_up,
        )
        self._breaker = Breaker(redis, failures=settings.breaker_failures, open_seconds=settings.breaker_open_seconds)

    async def open(self) -> None:
        """Begin to publish; on the loop, before the first step."""
        self._publisher = LivePublisher(self._settings)
        self._publishing = asyncio.ensure_future(self._publisher.run())

    def take(self, run: Run) -> Next:
        """Make an attempt, or pass a model over that is left alone. An exception of ours fails the job at once."""
        try:
            return self._take(run)
        except Exception as error:
            log_fault("internal error in a job", error, job_id=run.job_id)
            with suppress(Unavailable), self._backend.unit_of_work() as uow:
                attempts.fail_internally(uow, run.job_id, worker=self._worker)
            return None

    def _take(self, run: Run) -> Next:
        if not self._may_ask(run.job_id):
            return self._passed_over(run.job_id)
        claim = self._claim(run.job_id)
        return self._attempt(run, claim) if claim else None

    def _may_ask(self, job_id: UUID) -> bool:
        if self._breaker.calm():
            return True  # which model it is matters to nobody
        try:
            with self._backend.reading() as session:
                asked = attempts.next_asked(session, job_id)
        except Unavailable:
            return True  # the claim waits for the database
        return asked is None or self._breaker.allow(asked.provider, asked.model, user=asked.user_id)

    def _passed_over(self, job_id: UUID) -> float | None:
        open_seconds = self._settings.breaker_open_seconds
        wait, patience = min(LONGEST_PAUSE_SECONDS, open_seconds / 2), 2 * open_seconds
        try:
            with self._backend.unit_of_work() as uow:
                return attempts.pass_over(
                    uow,
                    job_id,
                    self._terms,
                    wait_seconds=wait,
                    patience_seconds=patience,
                    takeover=self._watch.takeover(),
                )
        except Unavailable:
            self._watch.failed()
            return None  # the sweep comes back to it

    def _claim(self, job_id: UUID) -> Claim | None:
        for _ in range(CLAIM_TRIES):
            try:
                with self._backend.unit_of_work() as uow:
                    # Not before: the transaction may have waited for the end of an outage.
                    return attempts.claim(uow, job_id, self._terms, self._watch.takeover())
            except Unavailable:
                self._watch.failed()
                if self._stopped.wait(STORE_PAUSE_SECONDS):
                    break
        return None  # the sweep comes back to it

    def _attempt(self, run: Run, claim: Claim) -> Next:
        """Make one attempt, store its end and go on with what follows at once."""
        with traced(claim.trace_id):
            ending = asyncio.run_coroutine_threadsafe(self._ask(run, claim), self._loop).result()
            log.info("an attempt ended", extra=_facts(claim, ending))
            if self._settings.is_dev and ending.error is not None:
                ending.error.quote()
            stored = self._told_and_stored(claim, ending)
            return self._attempt(run, stored) if isinstance(stored, Claim) else stored

    def _told_and_stored(self, claim: Claim, ending: Ending) -> Claim | Next:
        is_summary = claim.purpose == Purpose.SUMMARY and ending.stop is None
        if is_summary or ending.error is not None:
            # Before: it may forbid the reply after a summary, or the next attempt, which another worker may make.
            self._tell_breaker(claim, ending)
            may_ask = not is_summary or self._breaker.allow(claim.provider, claim.request.model, user=claim.user_id)
            return self._stored(claim, ending, may_ask=may_ask)
        try:
            return self._stored(claim, ending)
        finally:
            self._tell_breaker(claim, ending)  # afterwards: it may have to wait for Redis

    def _stored(self, claim: Claim, ending: Ending, *, may_ask: bool = True) -> Claim | Next:
        deadline = time.monotonic() + STORE_SECONDS
        while time.monotonic() < deadline:
            try:
                with self._backend.unit_of_work() as uow:
                    return self._store(uow, claim, ending, may_ask=may_ask)
            except LeaseLost:
                log.info("a result came too late", extra={"action": "store", "job_id": str(claim.job_id)})
                return None
            except Unavailable:
                # Ours until the lease ends: if the database comes back before, nothing is asked twice.
                time.sleep(STORE_PAUSE_SECONDS)
        return None

    async def _ask(self, run: Run, claim: Claim) -> Ending:
        assert self._publisher is not None
        first = partial(self._heard, claim)
        return await ask(run, claim, providers=self._providers, publisher=self._publisher, on_first=first)

    def _heard(self, claim: Claim) -> None:
        """Tell of a probe that answers as soon as it does: its reply may take minutes, and everyone else waits."""
        model = (claim.provider, claim.request.model)
        if self._breaker.awaits(*model):
            with suppress(RuntimeError):  # this process is on its way out
                self._later(partial(self._breaker.succeeded, *model, user=claim.user_id))

    def _store(self, uow: UnitOfWork, claim: Claim, ending: Ending, *, may_ask: bool) -> Claim | Next:
        if ending.stop is Stop.LOST:
            raise LeaseLost
        if claim.purpose == Purpose.TITLE:
            self._store_title(uow, claim, ending)
        elif ending.stop is not None:
            attempts.stopped(uow, claim, ending.measured)
        elif claim.purpose == Purpose.SUMMARY:
            return attempts.go_on(uow, claim, ending.measured, self._terms, error=ending.error, may_ask=may_ask)
        elif ending.error is not None:
            return attempts.failed(uow, claim, ending.measured, error=ending.error, policy=self._policy)
        else:
            status = attempts.succeed(uow, claim, ending.measured, titled=self._settings.session_titles)
            if self._settings.session_titles == Titles.MODEL:
                return model_titles.begin(uow, claim, worker=self._worker, context=self._settings.context) or status
            return status
        return None

    def _store_title(self, uow: UnitOfWork, claim: Claim, ending: Ending) -> None:
        quota = self._settings.quota
        model_titles.finish(
            uow, claim, ending.measured, error=ending.error, stopped=ending.stop is not None, quota=quota
        )

    def _tell_breaker(self, claim: Claim, ending: Ending) -> None:
        if ending.stop is not None or isinstance(ending.error, InternalFault):
            return  # nothing is known of the provider
        model = (claim.provider, claim.request.model)
        if ending.error is None or _answers(ending.error):
            self._breaker.succeeded(*model, user=claim.user_id)
        elif self._counts(claim, ending.error):
            self._breaker.failed(*model, user=claim.user_id, job=claim.job_id)

    def _counts(self, claim: Claim, error: ProviderError) -> bool:
        """Tell whether an error speaks of the provider's health, not of the request or of a server that is starting."""
        starts = self._policy.waits_for(error, is_last=claim.is_last)
        return error.retryable and not _is_of_the_request(error) and not starts


def _facts(claim: Claim, ending: Ending) -> dict[str, object]:
    how = ending.stop.value if ending.stop else ending.error.code.value if ending.error else "whole"
    said = ending.error.provider_message if ending.error else None
    return {
        "action": "attempt",
        "job_id": str(claim.job_id),
        "attempt": claim.number,
        "provider": claim.provider,
        "model": claim.request.model,
        "ended": how,
        "duration_ms": ending.measured.duration_ms,
        **({"provider_message": said} if said else {}),
    }


def _answers(error: ProviderError) -> bool:
    """Whether a provider is well, and only would not do what was asked."""
    return (not error.retryable or _is_of_the_request(error)) and error.http_status is not None


def _is_of_the_request(error: ProviderError) -> bool:
    return isinstance(error, EmptyReply) or error.error_type in OF_THE_REQUEST
