"""One worker process: its event loop, its threads, and the way of a job through them.

A job's thread only waits; one event loop reads all providers and publishes. Heartbeat, checkpoints and
sweep each have a thread, so that none of them waits for another.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from uuid import UUID, uuid4

import uvloop

from chat_backend.bootstrap import Backend
from chat_backend.config import Settings
from chat_backend.domain.enums import JobStatus, Purpose, Titles
from chat_backend.domain.errors import LeaseLost, ProviderError, Unavailable
from chat_backend.domain.retry import RetryPolicy
from chat_backend.domain.trace import traced
from chat_backend.realtime.channels import WANTED_MODELS, WORKERS
from chat_backend.realtime.connection import RedisAway, client
from chat_backend.realtime.presence import ProcessCensus
from chat_backend.realtime.subscriber import Subscriber
from chat_backend.services import attempts, housekeeping, leases, model_titles
from chat_backend.services.attempts import Claim, Terms
from chat_backend.unit_of_work import UnitOfWork
from workers.ask import Ending, ask
from workers.breaker import Breaker
from workers.live_publisher import LivePublisher
from workers.model_lists import Catalogue
from workers.providers.registry import build
from workers.running import Run, Runs, Stop

log = logging.getLogger(__name__)

STORE_SECONDS = 120.0
STORE_PAUSE_SECONDS = 0.5
CLAIM_TRIES = 5
CENSUS_SECONDS = 5.0
HOUSEKEEPING_SECONDS = 60.0
# From SIGTERM to the end, whatever hangs; platforms kill after 30 s or so.
LIFE_SECONDS = 22.0
LAST_STEPS_SECONDS = 1.5
LONGEST_PAUSE_SECONDS = 5.0
SWEEP_PORTION = 100
# How long a thread that computes may keep the loop from its next token; Python's default is ten times as long.
SWITCH_SECONDS = 0.0005
# SQLite's clock counts milliseconds: who comes back to the very moment may be early by one.
CLOCK_GRAIN_SECONDS = 0.002

# What comes of a step: how its job has ended, or the seconds until the next step; None: there is none here.
Next = JobStatus | float | None


class Runtime:
    """Everything a worker process holds."""

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        *,
        life_seconds: float = LIFE_SECONDS,
        exit: Callable[[int], object] = os._exit,
    ) -> None:
        self.settings = settings
        self._life_seconds = life_seconds
        self._exit = exit
        self.backend = backend
        self.id = f"{socket.gethostname()[:40]}:{os.getpid()}:{uuid4().hex[:8]}"
        self.runs = Runs()
        self._policy = RetryPolicy(
            settings.llm_max_attempts, settings.llm_backoff_base_seconds, settings.llm_backoff_cap_seconds
        )
        self._terms = Terms(
            worker=self.id,
            lease_seconds=settings.lease_seconds,
            max_abandonments=settings.max_abandoned_attempts,
            expiry_seconds=settings.job_expiry_seconds,
            context_tokens=settings.context_tokens,
            windows=settings.context.windows,
            sums_up=settings.sums_up,
        )
        self._redis = client(settings)
        self._census = ProcessCensus(self._redis)
        self._breaker = Breaker(
            self._redis, failures=settings.breaker_failures, open_seconds=settings.breaker_open_seconds
        )
        self._providers = build(settings)
        self._loop = uvloop.new_event_loop()
        self._publisher: LivePublisher | None = None
        self._forgotten_upto: UUID | None = None
        self._terminated: SimpleQueue[None] = SimpleQueue()
        self._draining = threading.Event()
        self._drained = threading.Event()
        self._sweeping: set[UUID] = set()
        self._places = 0
        self._places_lock = threading.Lock()
        self._stopped = threading.Event()
        self._swept = ThreadPoolExecutor(max_workers=settings.worker_concurrency, thread_name_prefix="swept")
        # What is missed while Redis is away, the heartbeat brings; after it, at once.
        self._subscriber = Subscriber(
            settings, receive=self._told, lost_touch=self._lost_touch, channels=(WORKERS, WANTED_MODELS)
        )
        self._catalogue = Catalogue(
            self._redis,
            self._providers,
            self._loop,
            fresh_seconds=settings.provider_models_seconds,
            submit=self._swept.submit,
        )

    # The way of a job

    @contextmanager
    def place(self) -> Iterator[bool]:
        """Hold a place for a wake-up; tell whether it was the last free one."""
        with self._places_lock:
            self._places += 1
            is_last = self._places + len(self._sweeping) >= self.settings.worker_concurrency
        try:
            yield is_last
        finally:
            with self._places_lock:
                self._places -= 1

    @property
    def is_draining(self) -> bool:
        return self._draining.is_set()

    def process(self, job_id: UUID) -> JobStatus | None:
        """Work at a job until it has ended or is not ours to work at. Safe to call twice for one job.

        Returns how it has ended, where that is known without asking.
        """
        while True:
            run = Run(job_id, self._loop)
            with self.runs.add(run) as mine:
                # Not before it is among the runs: who drains hands over what it finds there, and nothing comes after.
                if self._draining.is_set():
                    self.backend.out.wake([job_id])  # this wake-up was for another worker
                    return None
                next = self._step(run) if mine else None
            if next is None or isinstance(next, JobStatus):
                return next
            # A long wait holds no thread, and a worker that drains gives up short ones too: the row has its
            # time, and any sweep wakes it.
            if next > LONGEST_PAUSE_SECONDS or self._draining.wait(next + CLOCK_GRAIN_SECONDS):
                return None

    def _step(self, run: Run) -> Next:
        """Make an attempt, or pass a model over that is left alone."""
        if not self._may_ask(run.job_id):
            return self._passed_over(run.job_id)
        claim = self._claim(run.job_id)
        return self._attempt(run, claim) if claim else None

    def _may_ask(self, job_id: UUID) -> bool:
        if self._breaker.calm():
            return True  # which model it is matters to nobody
        try:
            with self.backend.reading() as session:
                asked = attempts.next_asked(session, job_id)
        except Unavailable:
            return True  # the claim waits for the database
        return asked is None or self._breaker.allow(*asked)

    def _passed_over(self, job_id: UUID) -> float | None:
        open_seconds = self.settings.breaker_open_seconds
        wait, patience = min(LONGEST_PAUSE_SECONDS, open_seconds / 2), 2 * open_seconds
        try:
            with self.backend.unit_of_work() as uow:
                return attempts.pass_over(uow, job_id, self._terms, wait_seconds=wait, patience_seconds=patience)
        except Unavailable:
            return None  # the sweep comes back to it

    def _claim(self, job_id: UUID) -> Claim | None:
        for _ in range(CLAIM_TRIES):
            try:
                with self.backend.unit_of_work() as uow:
                    return attempts.claim(uow, job_id, self._terms)
            except Unavailable:
                if self._stopped.wait(STORE_PAUSE_SECONDS):
                    break
        return None  # the sweep comes back to it

    def _attempt(self, run: Run, claim: Claim) -> Next:
        """Make one attempt, store its end and go on with what follows at once."""
        with traced(claim.trace_id):
            ending = asyncio.run_coroutine_threadsafe(self._ask(run, claim), self._loop).result()
            log.info("an attempt ended", extra=_facts(claim, ending))
            stored = self._told_and_stored(claim, ending)
            return self._attempt(run, stored) if isinstance(stored, Claim) else stored

    def _told_and_stored(self, claim: Claim, ending: Ending) -> Claim | Next:
        is_summary = claim.purpose == Purpose.SUMMARY and ending.stop is None
        if is_summary or ending.error is not None:
            # Before: it may forbid the reply after a summary, or the next attempt, which another worker may make.
            self._tell_breaker(claim, ending)
            may_ask = not is_summary or self._breaker.allow(claim.provider, claim.request.model)
            return self._stored(claim, ending, may_ask=may_ask)
        try:
            return self._stored(claim, ending)
        finally:
            self._tell_breaker(claim, ending)  # afterwards: it may have to wait for Redis

    def _stored(self, claim: Claim, ending: Ending, *, may_ask: bool = True) -> Claim | Next:
        deadline = time.monotonic() + STORE_SECONDS
        while time.monotonic() < deadline:
            try:
                with self.backend.unit_of_work() as uow:
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
                self._swept.submit(self._breaker.succeeded, *model)

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
            status = attempts.succeed(uow, claim, ending.measured, titled=self.settings.session_titles)
            if self.settings.session_titles == Titles.MODEL:
                return model_titles.begin(uow, claim, worker=self.id, context=self.settings.context) or status
            return status
        return None

    def _store_title(self, uow: UnitOfWork, claim: Claim, ending: Ending) -> None:
        quota = self.settings.quota
        model_titles.finish(
            uow, claim, ending.measured, error=ending.error, stopped=ending.stop is not None, quota=quota
        )

    def _tell_breaker(self, claim: Claim, ending: Ending) -> None:
        if ending.stop is not None:
            return
        if ending.error is None or _answers(ending.error):
            self._breaker.succeeded(claim.provider, claim.request.model)
        elif _counts(ending.error):
            self._breaker.failed(claim.provider, claim.request.model)

    # Stopping

    def _told(self, channel: str, data: bytes) -> None:
        if channel == WANTED_MODELS:
            self._catalogue.wanted(data)
        else:
            self._told_to_cancel(data)

    def _told_to_cancel(self, data: bytes) -> None:
        try:
            run = self.runs.get(UUID(data.decode()))
        except ValueError:
            return  # whoever reaches Redis can publish anything
        # For the same reason it is only a hint: the row decides.
        self._look_if_possible([run] if run else [])

    def _lost_touch(self) -> None:
        self._look_if_possible(self.runs.all())

    def _look_if_possible(self, runs: list[Run]) -> None:
        try:
            if runs:
                self._look_at(runs)
        except Unavailable:
            log.debug("the database is away", extra={"action": "look"})  # the next heartbeat is as good

    def drain(self) -> None:
        """Claim nothing new, let replies run for a while, hand the rest over; bounded, safe to repeat.

        Called by a signal handler: whatever takes a lock, an event or a new thread too, could hang in one for good.
        """
        self._terminated.put(None)

    def _drain_when_told(self) -> None:
        self._terminated.get()
        deadline = time.monotonic() + self._life_seconds
        try:
            self._drain_until(deadline)
        except Exception:
            log.exception("draining failed", extra={"action": "drain"})
        finally:
            self._drained.set()  # whoever stops this worker waits for it
        # What still holds the process then is stuck; its leases end, and others take over.
        time.sleep(max(0.0, deadline - time.monotonic()) + LAST_STEPS_SECONDS)
        self._exit(0)

    def _drain_until(self, deadline: float) -> None:
        self._draining.set()
        log.info("draining", extra={"action": "drain", "running": len(self.runs)})
        if not self.runs.wait_until_none(self.settings.drain_seconds):
            for run in self.runs.all():
                run.request(Stop.HANDED_OVER)
        self.runs.wait_until_none(deadline - time.monotonic())

    # The threads

    def start(self) -> None:
        """Start the loop and the threads."""
        sys.setswitchinterval(SWITCH_SECONDS)
        works: list[tuple[Callable[[], None], float]] = [
            (self._heartbeat, self.settings.heartbeat_seconds),
            (self._checkpoint, self.settings.checkpoint_seconds),
            (self._sweep, self.settings.sweep_seconds),
            (self._census_and_housekeeping, CENSUS_SECONDS),
        ]
        threading.Thread(target=self._run_loop, name="loop", daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._open_publisher(), self._loop).result(5)
        self._subscriber.start()
        threading.Thread(target=self._drain_when_told, name="drain", daemon=True).start()
        for work, seconds in works:
            threading.Thread(target=self._repeat, args=(work, seconds), name=work.__name__, daemon=True).start()

    def stop(self) -> None:
        """Stop the threads, once everything is drained; bounded."""
        self.drain()
        # Until then replies of the sweep may run, which Celery knows nothing of: they need their heartbeat.
        self._drained.wait()
        self._stopped.set()
        self._subscriber.stop()
        self._swept.shutdown(wait=False, cancel_futures=True)
        try:
            self._census.leave(self.id)
        except RedisAway as error:
            log.debug("not counted out", extra={"action": "census", "error": type(error).__name__})
        self.backend.close()

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _open_publisher(self) -> None:
        self._publisher = LivePublisher(self.settings)
        self._publishing = asyncio.ensure_future(self._publisher.run())

    def _repeat(self, work: Callable[[], None], seconds: float) -> None:
        while not self._stopped.is_set():
            try:
                work()
            except Unavailable:
                log.debug("the database is away", extra={"action": work.__name__})
            except Exception:  # these threads serve every job: one bad moment must not end them
                log.exception("a worker thread stumbled", extra={"action": work.__name__})
            # Jitter: workers that started together must not sweep together.
            self._stopped.wait(seconds * random.uniform(0.8, 1.0))  # noqa: S311 - not a secret

    def _heartbeat(self) -> None:
        runs = self.runs.all()
        begun = _begun(runs)
        if runs:
            # Urgent: behind the writes of hundreds of jobs it would come when the leases are over.
            with self.backend.unit_of_work(urgent=True) as uow:
                ids = [run.job_id for run in runs]
                leases.renew(uow.session, self.id, ids, lease_seconds=self.settings.lease_seconds)
                held = leases.held(uow.session, self.id, ids)
            self._stop_unwanted(runs, begun, held)

    def _look_at(self, runs: list[Run]) -> None:
        """Stop what the database wants stopped."""
        begun = _begun(runs)
        with self.backend.reading() as session:
            held = leases.held(session, self.id, [run.job_id for run in runs])
        self._stop_unwanted(runs, begun, held)

    def _stop_unwanted(self, runs: list[Run], begun: set[UUID], held: dict[UUID, leases.Held]) -> None:
        for run in runs:
            lease, claim = held.get(run.job_id), run.claim
            if claim is not None and claim.purpose == Purpose.TITLE:
                continue  # its job has ended: nobody holds it, and nobody can cancel it
            if lease is not None and lease.cancel_requested:
                run.request(Stop.CANCELLED)
            elif run.job_id in begun and claim and (lease is None or lease.attempt > claim.number):
                run.request(Stop.LOST)

    def _checkpoint(self) -> None:
        lives = [run.live for run in self.runs.all() if run.live is not None and run.live.unsaved]
        progress = []
        for live in lives:
            live.unsaved = False
            progress.append(leases.Progress(live.message_id, live.attempt, live.text()))
        if progress:
            try:
                with self.backend.unit_of_work() as uow:
                    leases.checkpoint(uow.session, progress)
            except Unavailable:
                for live in lives:
                    live.unsaved = True
                raise

    def _sweep(self) -> None:
        room = self.settings.worker_concurrency - len(self.runs)
        if self._draining.is_set() or room <= 0:
            return
        with self.backend.reading() as session:
            forgotten = leases.forgotten(
                session, forgotten_seconds=self.settings.forgotten_seconds, limit=min(room, SWEEP_PORTION)
            )
        for job_id in forgotten:
            if self.runs.get(job_id) is None and job_id not in self._sweeping:
                self._sweeping.add(job_id)
                self._swept.submit(self._process_swept, job_id)

    def _process_swept(self, job_id: UUID) -> None:
        try:
            self.process(job_id)
        finally:
            self._sweeping.discard(job_id)

    def _census_and_housekeeping(self) -> None:
        try:
            self._census.report_worker(self.id, len(self.runs))
        except RedisAway as error:
            log.debug("not counted", extra={"action": "census", "error": type(error).__name__})
        if random.random() < CENSUS_SECONDS / HOUSEKEEPING_SECONDS:  # noqa: S311 - not a secret
            self._forget()

    def _forget(self) -> None:
        with self.backend.unit_of_work() as uow:
            housekeeping.forget_expired(uow.session, keys_seconds=self.settings.idempotency_retention_seconds)
            housekeeping.forget_audit(uow.session, days=self.settings.audit_days)
        with self.backend.reading() as session:
            lost = model_titles.lost(session)
        for job_id in lost:
            with self.backend.unit_of_work() as uow:
                model_titles.give_up(uow, job_id, quota=self.settings.quota)
        self._forget_events()

    def _forget_events(self) -> None:
        kept_seconds = self.settings.event_retention_seconds
        with self.backend.reading() as session:
            old, upto = housekeeping.old_events(session, events_seconds=kept_seconds, after=self._forgotten_upto)
        for some in old:
            with self.backend.unit_of_work() as uow:
                housekeeping.forget_events(uow.session, some)
        self._forgotten_upto = upto


def _begun(runs: list[Run]) -> set[UUID]:
    """Note, before the database is asked, what is claimed: a claim made meanwhile is not taken for a lost one."""
    return {run.job_id for run in runs if run.live is not None}


def _facts(claim: Claim, ending: Ending) -> dict[str, object]:
    how = ending.stop.value if ending.stop else ending.error.code.value if ending.error else "whole"
    return {
        "action": "attempt",
        "job_id": str(claim.job_id),
        "attempt": claim.number,
        "provider": claim.provider,
        "model": claim.request.model,
        "ended": how,
        "duration_ms": ending.measured.duration_ms,
    }


def _counts(error: ProviderError) -> bool:
    """Whether an error speaks of the provider's health, and not of our question."""
    return error.retryable


def _answers(error: ProviderError) -> bool:
    """Whether a provider is well, and only would not do what was asked."""
    return not error.retryable and error.http_status is not None


def start(settings: Settings, backend: Backend) -> Runtime:
    """Start the one runtime of this process."""
    runtime = Runtime(settings, backend)
    runtime.start()
    return runtime
