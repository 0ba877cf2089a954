"""So many a minute, and as many at once."""

from __future__ import annotations

from chat_backend.domain.rate import LocalRates, Paces, Rate, Refusals

SIX = Rate("requests", "ann", 6)


def take(rates: LocalRates, rate: Rate) -> float:
    """Take one; return the seconds to wait, 0 where none."""
    refused = rates.take([rate])
    return refused[1] if refused else 0.0


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_a_minutes_worth_may_be_taken_at_once_and_no_more() -> None:
    rates = LocalRates(clock=Clock())

    waits = [take(rates, SIX) for _ in range(7)]

    assert waits[:6] == [0.0] * 6
    assert round(waits[6]) == 10


def test_who_waits_as_long_as_told_is_served() -> None:
    clock = Clock()
    rates = LocalRates(clock=clock)
    while not (wait := take(rates, SIX)):
        clock.at += 1

    clock.at += wait

    assert take(rates, SIX) == 0.0


def test_what_is_refused_costs_nothing() -> None:
    clock = Clock()
    rates = LocalRates(clock=clock)
    for _ in range(100):
        take(rates, SIX)

    clock.at += 10

    assert [take(rates, SIX) == 0.0 for _ in range(2)] == [True, False]


def test_who_is_quiet_saves_up_a_minutes_worth_at_most() -> None:
    clock = Clock()
    rates = LocalRates(clock=clock)
    take(rates, SIX)

    clock.at += 3600

    assert [take(rates, SIX) == 0.0 for _ in range(7)] == [True] * 6 + [False]


def test_everyone_is_counted_apart() -> None:
    rates = LocalRates(clock=Clock())
    for _ in range(6):
        take(rates, SIX)

    others = [take(rates, Rate("requests", "bob", 6)), take(rates, Rate("replies", "ann", 6))]

    assert others == [0.0, 0.0]


def test_one_of_each_is_taken_or_none() -> None:
    rates, wide, narrow = LocalRates(clock=Clock()), Rate("requests", "ann", 5), Rate("address", "ann", 3)
    for _ in range(3):
        rates.take([wide, narrow])

    refused = rates.take([wide, narrow])

    assert refused is not None
    assert refused[0] == narrow
    assert [take(rates, wide) == 0.0 for _ in range(3)] == [True, True, False]


def test_nobody_can_be_called_what_someone_else_is_counted_by() -> None:
    address = Rate("requests from one address", "192.0.2.1", 6)

    assert Rate("requests", "from one address 192.0.2.1", 6).name != address.name


def test_of_very_many_names_the_oldest_is_forgotten() -> None:
    rates = LocalRates(kept=2, clock=Clock())
    for who in ("ann", "bob", "cat"):
        take(rates, Rate("requests", who, 1))

    waits = [take(rates, Rate("requests", who, 1)) for who in ("cat", "ann")]

    assert [bool(wait) for wait in waits] == [True, False]


def test_a_refusal_is_remembered_until_its_time() -> None:
    clock = Clock()
    refusals = Refusals(clock=clock)
    refusals.note(SIX, 3)

    left = []
    for seconds in (0, 2, 1):
        clock.at += seconds
        left.append(refusals.left(SIX))

    assert left == [3, 1, 0]


def test_who_hurries_is_slowed_down_to_one_an_interval() -> None:
    paces = Paces(3, 0.5, clock=Clock())

    waits = [paces.wait("ann") for _ in range(6)]

    assert waits == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5]
    assert paces.wait("bob") == 0.0


def test_who_does_not_hurry_never_waits_and_who_rests_may_hurry_again() -> None:
    clock = Clock()
    paces = Paces(2, 0.5, clock=clock)

    waits = []
    for _ in range(10):
        waits.append(paces.wait("ann"))
        clock.at += 0.5
    clock.at += 10
    again = [paces.wait("ann") for _ in range(3)]

    assert waits == [0.0] * 10
    assert again == [0.0, 0.0, 0.5]
