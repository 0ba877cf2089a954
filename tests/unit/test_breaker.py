"""The circuit breaker, alone and with a Redis that is away."""

import pytest
from redis import ConnectionError as NoConnection
from redis import Redis

from workers.breaker import MOST_CIRCUITS, REDIS_PAUSE_SECONDS, Breaker, LocalCircuits

MODEL = ("LOCAL", "demo")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class RedisThatIsAway(Redis):
    """Refuses every command, and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def execute_command(self, *args, **options):
        self.asked += 1
        raise NoConnection("away")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def redis():
    return RedisThatIsAway()


@pytest.fixture
def breaker(redis, clock):
    return Breaker(redis, failures=3, open_seconds=30, clock=clock)


def fail(breaker, times):
    for _ in range(times):
        breaker.failed(*MODEL)


def test_a_new_model_may_be_asked(breaker):
    allowed = breaker.allow(*MODEL)

    assert (allowed, breaker.state("LOCAL")) == (True, "closed")


def test_failures_in_a_row_open_it(breaker):
    fail(breaker, 3)

    allowed = breaker.allow(*MODEL)

    assert (allowed, breaker.state("LOCAL")) == (False, "open")


def test_a_success_between_failures_begins_the_count_anew(breaker):
    fail(breaker, 2)
    breaker.succeeded(*MODEL)

    fail(breaker, 2)

    assert breaker.allow(*MODEL)


def test_other_models_and_providers_are_not_refused(breaker):
    fail(breaker, 3)

    allowed = breaker.allow("LOCAL", "other"), breaker.allow("OPENROUTER", "demo")

    assert (allowed, breaker.state("OPENROUTER")) == ((True, True), "closed")


def test_after_a_while_exactly_one_probe_goes_through(breaker, clock):
    fail(breaker, 3)
    clock.now += 30

    state, allowed = breaker.state("LOCAL"), [breaker.allow(*MODEL) for _ in range(3)]

    assert (state, allowed) == ("half_open", [True, False, False])


def test_a_probe_that_fails_opens_it_again(breaker, clock):
    fail(breaker, 3)
    clock.now += 30
    breaker.allow(*MODEL)

    fail(breaker, 1)

    assert (breaker.allow(*MODEL), breaker.state("LOCAL")) == (False, "open")


def test_a_probe_that_succeeds_closes_it(breaker, clock):
    fail(breaker, 3)
    clock.now += 30
    breaker.allow(*MODEL)

    breaker.succeeded(*MODEL)

    assert (breaker.allow(*MODEL), breaker.state("LOCAL")) == (True, "closed")


def test_the_first_word_of_a_probe_is_awaited_until_it_was_told_of(breaker, clock):
    awaited = [breaker.allow(*MODEL) and breaker.awaits(*MODEL)]
    fail(breaker, 3)
    clock.now += 30

    awaited.append(breaker.allow(*MODEL) and breaker.awaits(*MODEL))
    breaker.succeeded(*MODEL)
    awaited.append(breaker.awaits(*MODEL))

    assert awaited == [False, True, False]


def test_a_probe_that_never_ends_makes_room_for_another(breaker, clock):
    fail(breaker, 3)
    clock.now += 30
    breaker.allow(*MODEL)
    clock.now += 30

    allowed = breaker.allow(*MODEL)

    assert allowed


def test_a_late_failure_does_not_prolong_the_refusal(breaker, clock):
    fail(breaker, 3)
    clock.now += 29
    fail(breaker, 2)
    clock.now += 1

    allowed = breaker.allow(*MODEL)

    assert allowed


def test_a_redis_that_is_away_is_not_asked_each_time(breaker, redis, clock):
    breaker.allow(*MODEL)
    asked = redis.asked

    fail(breaker, 50)

    assert redis.asked == asked


def test_redis_is_asked_again_after_a_pause(breaker, redis, clock):
    breaker.allow(*MODEL)
    asked = redis.asked
    clock.now += REDIS_PAUSE_SECONDS

    breaker.allow(*MODEL)

    assert redis.asked > asked


def test_no_end_of_model_names_does_not_fill_the_memory(clock):
    circuits = LocalCircuits(failures=1, open_seconds=30, clock=clock)

    for number in range(MOST_CIRCUITS + 10):
        circuits.failed(f"LOCAL:{number}")

    assert (circuits.allow("LOCAL:0"), circuits.allow(f"LOCAL:{MOST_CIRCUITS}")) == (True, False)


def test_while_nothing_is_open_there_is_calm_and_the_first_open_circuit_ends_it_at_once(breaker):
    before = breaker.calm()
    fail(breaker, 3)

    assert (before, breaker.calm()) == (True, False)
