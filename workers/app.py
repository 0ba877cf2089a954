"""The Celery app of the workers."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from celery import Celery, bootsteps
from celery.signals import setup_logging, worker_init, worker_shutdown, worker_shutting_down

from chat_backend.bootstrap import connect
from chat_backend.logs import set_up_logging
from chat_backend.queue import transport
from chat_backend.startup import settings_or_exit
from workers.runtime import Runtime, start

transport.install()
app = Celery("workers", include=["workers.process_llm"])
app.config_from_object("celeryconfig")


class Process:
    """The runtime of this process, once it works."""

    runtime: Runtime | None = None


class OneTermination(bootsteps.StartStopStep):
    """Let only the first SIGTERM reach Celery: its handler takes a lock, and a second amidst it hung for good."""

    def start(self, parent: Any) -> None:
        terminate = signal.getsignal(signal.SIGTERM)
        assert callable(terminate)

        def terminate_once(signum: int, frame: FrameType | None) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            terminate(signum, frame)

        signal.signal(signal.SIGTERM, terminate_once)


app.steps["worker"].add(OneTermination)


@setup_logging.connect
def _log(**_: Any) -> None:
    set_up_logging(settings_or_exit().log_level)


@worker_init.connect
def _start(**_: Any) -> None:
    settings = settings_or_exit()
    Process.runtime = start(settings, connect(settings))


@worker_shutting_down.connect
def _drain(**_: Any) -> None:
    if Process.runtime is not None:
        Process.runtime.drain()


@worker_shutdown.connect
def _stop(**_: Any) -> None:
    if Process.runtime is not None:
        Process.runtime.stop()
