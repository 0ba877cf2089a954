"""A dependency that is away costs its wait seldom."""

from __future__ import annotations

from chat_backend.domain.outage import Outage


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_one_failure_changes_nothing() -> None:
    outage = Outage(failures=2, pause_seconds=2, clock=Clock())

    outage.failed()

    assert outage.over()


def test_after_two_failures_nobody_tries_for_a_while() -> None:
    outage = Outage(failures=2, pause_seconds=2, clock=Clock())

    outage.failed()
    outage.failed()

    assert not outage.over()


def test_after_the_pause_one_tries_and_the_others_still_do_not() -> None:
    clock = Clock()
    outage = Outage(failures=2, pause_seconds=2, clock=clock)
    outage.failed()
    outage.failed()

    clock.at += 2

    assert [outage.over(), outage.over()] == [True, False]


def test_a_success_ends_it() -> None:
    outage = Outage(failures=2, pause_seconds=2, clock=Clock())
    outage.failed()
    outage.failed()

    outage.succeeded()

    assert outage.over()
