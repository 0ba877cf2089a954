"""When an expired lease proves that its worker is dead."""

from __future__ import annotations

import pytest

from workers.database_watch import DatabaseWatch

HEARTBEAT, LEASE = 3.0, 15.0


class Clocks:
    """The process's clock, and the database's, which shows another time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    @property
    def database(self) -> float:
        return self.now + 5000.0


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def watch(clocks: Clocks) -> DatabaseWatch:
    return DatabaseWatch(heartbeat_seconds=HEARTBEAT, lease_seconds=LEASE, clock=clocks)


def sweep(watch: DatabaseWatch, clocks: Clocks, *, times: int, every: float = HEARTBEAT) -> bool:
    """Sweep so often over a healthy database; tell whether expired leases may be taken over then."""
    for _ in range(times):
        clocks.now += every
        watch.succeeded(clocks.database, began=clocks.now)
    return watch.takeover().allowed


def test_started_worker_waits_two_heartbeats_before_takeover(watch: DatabaseWatch, clocks: Clocks) -> None:
    assert [watch.takeover().allowed, *(sweep(watch, clocks, times=1) for _ in range(3))] == [False, False, False, True]


def test_worker_waits_two_heartbeats_after_outage(watch: DatabaseWatch, clocks: Clocks) -> None:
    before = sweep(watch, clocks, times=5)
    watch.failed()
    clocks.now += 20

    assert [before, watch.takeover().allowed] == [True, False]
    assert [sweep(watch, clocks, times=1) for _ in range(3)] == [False, False, True]


def test_worker_that_stood_still_waits_two_heartbeats(watch: DatabaseWatch, clocks: Clocks) -> None:
    sweep(watch, clocks, times=5)
    clocks.now += LEASE
    stood_still = watch.takeover().allowed

    assert [stood_still, *(sweep(watch, clocks, times=1) for _ in range(3))] == [False, False, False, True]


def test_lease_that_expired_in_outage_does_not_count(watch: DatabaseWatch, clocks: Clocks) -> None:
    sweep(watch, clocks, times=5)
    began = clocks.database
    watch.failed()
    clocks.now += 20
    sweep(watch, clocks, times=1)
    ended = clocks.database

    takeover = watch.takeover()

    counted = [takeover.counts(lease) for lease in (began - 1, began + 1, ended + 2 * HEARTBEAT - 1, ended + 30)]
    assert counted == [True, False, False, True]


def test_pause_is_no_outage(watch: DatabaseWatch, clocks: Clocks) -> None:
    sweep(watch, clocks, times=5)
    expired = clocks.database + 10
    clocks.now += 60
    sweep(watch, clocks, times=5)

    assert watch.takeover().counts(expired)


def test_answer_that_took_long_is_outage(watch: DatabaseWatch, clocks: Clocks) -> None:
    sweep(watch, clocks, times=5)
    began, expired = clocks.now, clocks.database + 2
    clocks.now += HEARTBEAT + 1
    watch.succeeded(clocks.database, began=began)

    assert (watch.takeover().allowed, watch.takeover().counts(expired)) == (False, False)
