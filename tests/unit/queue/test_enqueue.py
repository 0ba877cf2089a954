"""Wake-ups: sent beside the request, never in its way."""

from __future__ import annotations

import threading
import time
from typing import Any
from uuid import uuid4

from kombu.exceptions import OperationalError

from chat_backend.config import Settings
from chat_backend.queue import enqueue
from chat_backend.queue.enqueue import MOST_WAITING, Doorbell
from tests.support.waiting import wait_until

SETTINGS = Settings.from_environment({"AUTH_MODE": "dev"})


class Broker:
    """A broker that takes, refuses, or hangs until it is let go."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.asked = 0
        self.error: Exception | None = None
        self.open = threading.Event()
        self.open.set()

    def send_task(self, name: str, *, args: list[str], **more: Any) -> None:
        self.asked += 1
        self.open.wait(10)
        if self.error:
            raise self.error
        self.taken += args


def test_a_wake_up_arrives_and_close_waits_for_it() -> None:
    broker = Broker()
    doorbell = Doorbell(SETTINGS, broker)  # type: ignore[arg-type]
    ids = [uuid4() for _ in range(20)]

    for job_id in ids:
        doorbell.ring(job_id)
    doorbell.close()

    assert broker.taken == [str(job_id) for job_id in ids]


def test_a_broker_that_hangs_holds_up_nobody_and_what_waits_is_bounded() -> None:
    broker = Broker()
    broker.open.clear()
    doorbell = Doorbell(SETTINGS, broker)  # type: ignore[arg-type]

    began = time.monotonic()
    for _ in range(2 * MOST_WAITING):
        doorbell.ring(uuid4())
    rung_in = time.monotonic() - began
    doorbell.close(0.05)

    assert rung_in < 1
    assert broker.asked == 1
    broker.open.set()
    wait_until(lambda: MOST_WAITING <= len(broker.taken) <= MOST_WAITING + 1, why="what waited goes out")


def test_a_broker_that_refuses_is_left_alone_for_a_while() -> None:
    broker = Broker()
    broker.error = OperationalError("away")
    doorbell = Doorbell(SETTINGS, broker)  # type: ignore[arg-type]

    for _ in range(50):
        doorbell.ring(uuid4())
    doorbell.close()

    assert broker.asked == 1


def test_whatever_a_broker_raises_the_next_wake_up_is_tried() -> None:
    broker = Broker()
    broker.error = RuntimeError("a client's bug")
    doorbell = Doorbell(SETTINGS, broker)  # type: ignore[arg-type]
    doorbell._outage = enqueue.Outage(failures=100)
    doorbell.ring(uuid4())
    doorbell.close()

    broker.error = None
    doorbell.ring(uuid4())
    doorbell.close()

    assert len(broker.taken) == 1
