"""The Celery app of the workers."""

from __future__ import annotations

import logging
import signal
from types import FrameType
from typing import Any

from celery import bootsteps
from celery.signals import setup_logging, worker_init, worker_shutdown, worker_shutting_down

from chat_backend.bootstrap import connect
from chat_backend.logs import set_up_logging
from chat_backend.queue import transport
from chat_backend.queue.app import App
from chat_backend.startup import settings_or_exit
from workers.runtime import Runtime, start
from workers.task_events import GatheredEvents

log = logging.getLogger(__name__)

transport.install()
app = App("workers", include=["workers.process_llm"])
app.config_from_object("celeryconfig")


class Process:
    """The runtime of this process, once it works."""

    runtime: Runtime | None = None


class Termination(bootsteps.StartStopStep):
    """However this worker is ended, it drains."""

    def start(self, parent: Any) -> None:
        """Let one SIGTERM or SIGINT reach Celery: its handler takes a lock, and a second in it hung for good."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            _once(signum)

    def close(self, parent: Any) -> None:
        """Drain before the pool waits for whole replies: a shutdown by remote control, where it is on, is no signal."""
        _drain()


def _once(signum: signal.Signals) -> None:
    terminate = signal.getsignal(signum)
    assert callable(terminate)

    def terminate_once(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        terminate(signum, frame)

    signal.signal(signum, terminate_once)


app.steps["worker"].add(Termination)
app.steps["consumer"].add(GatheredEvents)


@setup_logging.connect
def _log(**_: Any) -> None:
    set_up_logging(settings_or_exit().log_level)


@worker_init.connect
def _start(**_: Any) -> None:
    settings = settings_or_exit()
    try:
        Process.runtime = start(settings, connect(settings))
    except Exception:
        # Celery would log it and go on: a worker that is ready, and takes every wake-up to do nothing.
        log.exception("the worker could not start", extra={"action": "start"})
        raise SystemExit(1) from None


@worker_shutting_down.connect
def _drain(**_: Any) -> None:
    if Process.runtime is not None:
        Process.runtime.drain()


@worker_shutdown.connect
def _stop(**_: Any) -> None:
    if Process.runtime is not None:
        Process.runtime.stop()
