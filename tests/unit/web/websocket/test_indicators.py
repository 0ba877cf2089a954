"""Typing indicators: few are passed on, and the last one is always right."""

from __future__ import annotations

from chat_backend.web.websocket.indicators import FORGET_SECONDS, Indicators


class Time:
    at = 0.0

    def __call__(self) -> float:
        return self.at


def test_changes_are_passed_on_at_once_and_repeats_once_a_second() -> None:
    time = Time()
    indicators: Indicators[str] = Indicators(6, clock=time)

    passed = [indicators.take("ann", True), indicators.take("ann", True), indicators.take("ann", False)]
    again = indicators.take("ann", False)
    time.at = 2
    started = indicators.take("ann", True)
    time.at = 3.5

    assert (passed, again, started) == ([True, False, True], False, True)
    assert indicators.take("ann", True)


def test_who_flips_is_bounded_and_the_last_state_is_shown() -> None:
    time = Time()
    indicators: Indicators[str] = Indicators(6, clock=time)
    shown = []

    for step in range(1_000):
        time.at = step / 100
        is_typing = step % 2 == 0
        if indicators.take("ann", is_typing):
            shown.append(is_typing)
        shown += [state for _, state in indicators.due()]
    for _ in range(3):
        time.at += 1
        shown += [state for _, state in indicators.due()]

    assert len(shown) <= 15
    assert shown[-1] is False
    assert not indicators.waiting


def test_users_are_bounded_apart() -> None:
    indicators: Indicators[str] = Indicators(6, clock=Time())

    assert all(indicators.take(f"user {number}", True) for number in range(20))


def test_who_rests_is_forgotten() -> None:
    time = Time()
    indicators: Indicators[str] = Indicators(6, clock=time)
    indicators.take("ann", True)
    indicators.take("ann", False)

    time.at = FORGET_SECONDS + 1
    indicators.due()

    assert not indicators._typists
