"""When a provider is asked again, and when not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_backend.domain.errors import (
    ConnectionRefused,
    ErrorCode,
    ProviderRefused,
    ProviderTimeout,
    ProviderUnreachable,
    StreamBroken,
)
from chat_backend.domain.retry import RetryPolicy

POLICY = RetryPolicy(max_attempts=3, base_seconds=1.0, cap_seconds=20.0)


def longest(low: float, high: float) -> float:
    return high


def shortest(low: float, high: float) -> float:
    return low


def test_the_backoff_doubles_from_its_base():
    policy = RetryPolicy(max_attempts=9, base_seconds=1.0, cap_seconds=20.0)

    delays = [policy.delay(StreamBroken("x"), failures, uniform=longest) for failures in range(1, 7)]

    assert delays == [1, 2, 4, 8, 16, 20]


def test_the_jitter_is_full():
    error = StreamBroken("x")

    delay = POLICY.delay(error, 2, uniform=shortest)

    assert delay == 0


def test_a_hopeless_error_is_not_tried_again():
    error = ProviderRefused("x")

    delay = POLICY.delay(error, 1)

    assert delay is None


@pytest.mark.parametrize(("failures", "again"), [(1, True), (2, True), (3, False), (4, False)])
def test_the_attempts_are_counted(failures, again):
    error = StreamBroken("x")

    delay = POLICY.delay(error, failures)

    assert (delay is not None) is again


def test_retry_after_is_waited_for_even_where_the_backoff_is_shorter():
    error = StreamBroken("x", retry_after_seconds=45)

    delay = POLICY.delay(error, 1)

    assert delay == 45


@pytest.mark.parametrize(("seconds", "delay"), [(60, 60), (60.1, None), (3600, None), (float("inf"), None)])
def test_retry_after_over_a_minute_counts_as_used_up(seconds, delay):
    error = StreamBroken("x", retry_after_seconds=seconds)

    answer = POLICY.delay(error, 1)

    assert answer == delay


@given(st.integers(1, 20), st.floats(0.001, 60), st.floats(0.001, 600))
def test_the_wait_never_passes_the_cap(failures, base, cap):
    policy = RetryPolicy(max_attempts=21, base_seconds=base, cap_seconds=cap)

    delay = policy.delay(StreamBroken("x"), failures)

    assert delay is not None
    assert 0 <= delay <= cap


def test_a_timeout_is_tried_again_once():
    delays = [POLICY.delay(ProviderTimeout("x"), 1, timeouts=1), POLICY.delay(ProviderTimeout("x"), 2, timeouts=2)]

    assert [delay is None for delay in delays] == [False, True]


def test_other_failures_do_not_use_up_the_second_try_of_a_timeout():
    assert POLICY.delay(ProviderTimeout("x"), 2, timeouts=1) is not None
    assert POLICY.delay(StreamBroken("x"), 2, timeouts=2) is not None


STARTING = RetryPolicy(max_attempts=3, base_seconds=1.0, cap_seconds=20.0, starting_seconds=300.0)
LOADING = ProviderRefused("x", code=ErrorCode.MODEL_LOADING, retryable=True)


def test_a_starting_server_is_waited_for_and_not_a_failed_one():
    refused = ConnectionRefused("x")

    assert STARTING.waits_for(LOADING, is_last=False)
    assert STARTING.waits_for(refused, is_last=True)
    # It may be dead, and another model can be asked.
    assert not STARTING.waits_for(refused, is_last=False)
    assert not STARTING.waits_for(ProviderUnreachable("x"), is_last=True)
    assert not STARTING.waits_for(StreamBroken("x"), is_last=True)
    assert not RetryPolicy(1, 1.0, 20.0, starting_seconds=300.0).waits_for(LOADING, is_last=True)


def test_the_pauses_for_a_starting_server_grow_and_end_at_the_limit():
    delays, waited = [], 0.0
    while (delay := STARTING.starting_delay(LOADING, len(delays) + 1, waited, uniform=longest)) is not None:
        delays.append(delay)
        waited += delay

    assert delays[:7] == [1, 2, 4, 8, 16, 20, 20]
    assert waited == 300
    assert len(delays) < 30


def test_an_estimate_lengthens_the_pause_up_to_the_limit():
    estimates = ProviderRefused("x", code=ErrorCode.MODEL_LOADING, retryable=True, retry_after_seconds=25)

    assert STARTING.starting_delay(estimates, 1, 0, uniform=longest) == 25
    assert STARTING.starting_delay(estimates, 1, 290, uniform=longest) == 10
    assert STARTING.starting_delay(estimates, 1, 300, uniform=longest) is None
    estimates.retry_after_seconds = float("inf")
    assert STARTING.starting_delay(estimates, 1, 0, uniform=longest) == 60


def test_jitter_never_makes_the_pause_for_a_starting_server_short():
    assert STARTING.starting_delay(LOADING, 4, 0, uniform=shortest) == 4
