"""One worker process: its event loop, its threads, how jobs come into them, and how all of it ends.

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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from uuid import UUID, uuid4

import uvloop

from chat_backend.bootstrap import Backend
from chat_backend.config import Settings
from chat_backend.domain.enums import JobStatus
from chat_backend.domain.errors import Unavailable
from chat_backend.realtime.channels import WANTED_MODELS, WORKERS
from chat_backend.realtime.connection import RedisAway, client
from chat_backend.realtime.presence import ProcessCensus
from chat_backend.realtime.subscriber import Subscriber
from chat_backend.services import attempts, leases
from chat_backend.services.leases import Waiting
from workers.database_watch import OVERDUE_HEARTBEATS, DatabaseWatch
from workers.holding import Holding
from workers.housekeeper import Housekeeper
from workers.model_lists import Catalogue
from workers.places import Place, Places
from workers.providers.registry import build
from workers.running import Run, Runs, Stop
from workers.steps import LONGEST_PAUSE_SECONDS, Steps

log = logging.getLogger(__name__)

CENSUS_SECONDS = 5.0
HOUSEKEEPING_SECONDS = 60.0
DELETION_SECONDS = 2.0
# From SIGTERM to the end, whatever hangs; platforms kill after 30 s or so.
LIFE_SECONDS = 22.0
LAST_STEPS_SECONDS = 1.5
# Of the pool of found jobs, for short tasks beside them.
SPARE_THREADS = 4
# How long a thread that computes may keep the loop from its next token; Python's default is ten times as long.
SWITCH_SECONDS = 0.0005
# SQLite's clock counts milliseconds: who comes back to the very moment may be early by one.
CLOCK_GRAIN_SECONDS = 0.002


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
        self._redis = client(settings)
        self._census = ProcessCensus(self._redis)
        self._loop = uvloop.new_event_loop()
        self._terminated: SimpleQueue[None] = SimpleQueue()
        self._draining = threading.Event()
        self._drained = threading.Event()
        self._sweeping: set[UUID] = set()
        self._places = Places(settings.worker_concurrency, settings.reserved_places)
        # Set while jobs wait that a wake-up was used up for.
        self._passed_over = threading.Event()
        self._giving = threading.Lock()
        self._stopped = threading.Event()
        self._swept = ThreadPoolExecutor(
            max_workers=settings.worker_threads + SPARE_THREADS, thread_name_prefix="swept"
        )
        providers = build(settings)
        self._watch = DatabaseWatch(heartbeat_seconds=settings.heartbeat_seconds, lease_seconds=settings.lease_seconds)
        self._steps = Steps(
            settings,
            backend,
            worker=self.id,
            redis=self._redis,
            providers=providers,
            loop=self._loop,
            later=self._swept.submit,
            stopped=self._stopped,
            watch=self._watch,
        )
        self._holding = Holding(backend, self.runs, worker=self.id, lease_seconds=settings.lease_seconds)
        self._housekeeper = Housekeeper(settings, backend, stopped=self._stopped)
        self._catalogue = Catalogue(
            self._redis,
            providers,
            self._loop,
            fresh_seconds=settings.provider_models_seconds,
            submit=self._swept.submit,
        )
        # What is missed while Redis is away, the heartbeat brings; after it, at once.
        self._subscriber = Subscriber(
            settings, receive=self._told, lost_touch=self._holding.lost_touch, channels=(WORKERS, WANTED_MODELS)
        )

    # The way of a job

    @contextmanager
    def place_for(self, job_id: UUID) -> Iterator[UUID | None]:
        """Hold a place for a wake-up, and give the job that it is for; None: there is none for this job now."""
        place = self._places.take()
        if place is None:
            self._passed_over.set()
            if self._draining.is_set():
                self.backend.out.wake([job_id])  # this wake-up was for another worker
            yield None
            return
        try:
            yield self._admitted(place, job_id)
        finally:
            self._places.release()
        # Not after an exception: the job that raised it may be the next in turn, without end.
        self._give_places()

    def _admitted(self, place: Place, job_id: UUID) -> UUID | None:
        if place is Place.FREE or self._draining.is_set():
            return job_id
        try:
            with self.backend.reading() as session:
                if place is Place.RESERVED:
                    admitted = job_id if leases.may_use_reserve(session, job_id) else None
                elif attempts.next_asked(session, job_id) is None:
                    return job_id
                else:
                    waiting = (job.job_id for job in leases.waiting(session) if not self._is_in_hand(job.job_id))
                    admitted = next(waiting, job_id)
        except Unavailable:
            return job_id  # the claim waits for the database
        if admitted != job_id:
            self._passed_over.set()
        return admitted

    def _give_places(self) -> None:
        """Give places that came free to jobs that were passed over."""
        # One after the other: who came between another's look and its end would find nothing passed over.
        with self._giving:
            if not self._passed_over.is_set() or self._draining.is_set():
                return
            self._passed_over.clear()
            try:
                with self.backend.reading() as session:
                    waiting = leases.waiting(session)
            except Unavailable:
                return  # the sweep comes back to them
            if self._take_up(waiting):
                self._passed_over.set()

    def _take_up(self, waiting: Sequence[Waiting]) -> bool:
        """Begin as many jobs as there are places for; tell whether some are left."""
        for job in waiting:
            if self._is_in_hand(job.job_id):
                continue
            if self._places.take(newcomer=job.is_newcomers) is None:
                return True
            self._sweeping.add(job.job_id)
            self._swept.submit(self._process_swept, job.job_id)
        return False

    def _is_in_hand(self, job_id: UUID) -> bool:
        return job_id in self._sweeping or self.runs.get(job_id) is not None

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
                next = self._steps.take(run) if mine else None
            if next is None or isinstance(next, JobStatus):
                return next
            # A long wait holds no thread, and a worker that drains gives up short ones too: the row has its
            # time, and any sweep wakes it.
            if next > LONGEST_PAUSE_SECONDS or self._draining.wait(next + CLOCK_GRAIN_SECONDS):
                return None

    # Stopping

    def _told(self, channel: str, data: bytes) -> None:
        if channel == WANTED_MODELS:
            self._catalogue.wanted(data)
        else:
            self._holding.told_to_cancel(data)

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
        works: list[tuple[Callable[[], float | None], float]] = [
            (self._holding.heartbeat, self.settings.heartbeat_seconds),
            (self._holding.checkpoint, self.settings.checkpoint_seconds),
            (self._sweep, self.settings.sweep_seconds),
            (self._report_census, CENSUS_SECONDS),
            # Apart from the census: it may take as long as a worker is believed to live without one.
            (self._housekeep, HOUSEKEEPING_SECONDS),
            (self._housekeeper.delete_sessions, DELETION_SECONDS),
        ]
        threading.Thread(target=self._run_loop, name="loop", daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._steps.open(), self._loop).result(5)
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

    def _repeat(self, work: Callable[[], float | None], seconds: float) -> None:
        """Call `work` at an interval, or after the seconds that it returns."""
        while not self._stopped.is_set():
            pause = seconds
            try:
                pause = work() or seconds
            except Unavailable:
                self._watch.failed()
                log.debug("the database is away", extra={"action": work.__name__})
            except Exception:  # these threads serve every job: one bad moment must not end them
                log.exception("a worker thread stumbled", extra={"action": work.__name__})
            # Jitter: workers that started together must not sweep together.
            self._stopped.wait(pause * random.uniform(0.8, 1.0))  # noqa: S311 - not a secret

    def _sweep(self) -> float | None:
        """Take up what was forgotten. Returns the seconds until the next sweep where the interval is too long."""
        if self._draining.is_set():
            return None
        pause = self._look_at_leases()
        with self._giving:
            with self.backend.reading() as session:
                forgotten = leases.forgotten(
                    session,
                    forgotten_seconds=self.settings.forgotten_seconds,
                    take_over=self._watch.takeover().allowed,
                )
            if self._take_up(forgotten):
                self._passed_over.set()
        return pause

    def _look_at_leases(self) -> float | None:
        """Find out whether the database takes writes, as those need who renew leases; while all are renewed it does."""
        settings, began = self.settings, time.monotonic()
        with self.backend.reading() as session:
            lagging, database_time = leases.overdue(
                session, seconds=settings.lease_seconds - OVERDUE_HEARTBEATS * settings.heartbeat_seconds
            )
        if lagging:
            with self.backend.unit_of_work(urgent=True) as uow:
                # A renewal of no lease waits, and fails, as any other would.
                leases.renew(uow.session, self.id, (), lease_seconds=settings.lease_seconds)
                database_time = leases.database_time(uow.session)
        self._watch.succeeded(database_time, began=began)
        return min(settings.sweep_seconds, settings.heartbeat_seconds) if lagging else None

    def _process_swept(self, job_id: UUID) -> None:
        try:
            self.process(job_id)
        finally:
            self._sweeping.discard(job_id)
            self._places.release()
        self._give_places()

    def _report_census(self) -> None:
        try:
            self._census.report_worker(self.id, len(self.runs))
        except RedisAway as error:
            log.debug("not counted", extra={"action": "census", "error": type(error).__name__})

    def _housekeep(self) -> None:
        # Not at once: workers that started together would all delete the same rows.
        if not self._stopped.wait(random.uniform(0, HOUSEKEEPING_SECONDS / 2)):  # noqa: S311 - not a secret
            self._housekeeper.forget()


def start(settings: Settings, backend: Backend) -> Runtime:
    """Start the one runtime of this process."""
    runtime = Runtime(settings, backend)
    runtime.start()
    return runtime
