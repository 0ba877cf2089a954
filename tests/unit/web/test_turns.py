"""So many requests of one user at once; the others wait in line."""

from __future__ import annotations

import threading

import pytest

from chat_backend.domain.errors import TooMany
from chat_backend.web import turns
from chat_backend.web.turns import Turns
from tests.support.waiting import wait_until


def test_who_has_waited_comes_in_when_a_place_is_free() -> None:
    line, came_in = Turns(1), threading.Event()
    end = line.take("ann")
    waiting = threading.Thread(target=lambda: (line.take("ann"), came_in.set()))
    waiting.start()

    before = came_in.is_set()
    end()

    wait_until(came_in.is_set, why="the next one came in")
    waiting.join()
    assert not before


def test_other_users_do_not_stand_in_that_line() -> None:
    line = Turns(1)

    ends = [line.take(user) for user in ("ann", "bob", "cat")]

    assert len(ends) == 3


def test_who_waits_for_too_long_is_told_to_come_back() -> None:
    line = Turns(2, patience_seconds=0.05)
    line.take("ann")
    end = line.take("ann")

    with pytest.raises(TooMany) as refused:
        line.take("ann")
    end()

    assert refused.value.retry_after_seconds
    assert line.take("ann")


def test_a_line_that_is_too_long_is_not_joined() -> None:
    line = Turns(1, patience_seconds=20)
    ends = [line.take("ann")]
    waiting = [threading.Thread(target=lambda: ends.append(line.take("ann"))) for _ in range(turns.MOST_WAITING)]
    for thread in waiting:
        thread.start()

    wait_until(lambda: line.people("ann") == turns.MOST_WAITING + 1, why="all of them wait")
    with pytest.raises(TooMany):
        line.take("ann")
    while ends:
        ends.pop()()
        wait_until(lambda: ends or not line.people("ann"), why="the next one came in")
    for thread in waiting:
        thread.join()

    assert line.people("ann") == 0


def test_all_who_wait_are_bounded_too_and_who_need_not_wait_comes_in() -> None:
    line, ends = Turns(1, patience_seconds=20), []
    users = [f"user {number}" for number in range(4)]
    places = [line.take(user) for user in users]
    waiting = [
        threading.Thread(target=lambda user=user: ends.append(line.take(user)))
        for user in users[:3]
        for _ in range(100)
    ]
    for thread in waiting:
        thread.start()

    wait_until(lambda: sum(map(line.people, users)) == 304, why="as many wait as may")
    with pytest.raises(TooMany):
        line.take(users[3])
    line.take("someone else")()
    for end in places:
        end()
    while any(map(line.people, users)):
        wait_until(lambda: ends, why="the next one came in")
        ends.pop()()
    for thread in waiting:
        thread.join()

    assert line.take(users[3])


def test_without_a_limit_nobody_waits() -> None:
    line = Turns(0)

    assert [line.take("ann")() for _ in range(5)] == [None] * 5


def test_who_hurries_comes_in_at_a_slower_pace_in_their_place() -> None:
    pauses: list[float] = []
    line = Turns(2, pause=pauses.append)

    for _ in range(2 * turns.HURRIED):
        line.take("ann")()
    hurried = len(pauses)
    for _ in range(turns.HURRIED // 2):
        line.take("bob")()

    assert hurried > turns.HURRIED // 2
    assert len(pauses) == hurried
    assert line.people("ann") == 0
