"""The circuit breaker, alone and with a Redis that is away."""

from uuid import uuid4

import pytest
from redis import ConnectionError as NoConnection
from redis import Redis

from chat_backend.realtime.breaker_state import FORGET_SECONDS
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


def fail(breaker, times, user="ann"):
    """Let so many jobs of a user fail."""
    for _ in range(times):
        breaker.failed(*MODEL, user=user, job=uuid4())


def may_ask(breaker, user="ann", model=MODEL):
    return breaker.allow(*model, user=user)


def test_a_new_model_may_be_asked(breaker):
    allowed = may_ask(breaker)

    assert (allowed, breaker.state("LOCAL")) == (True, "closed")


def test_failures_in_a_row_open_it(breaker):
    fail(breaker, 3)

    allowed = may_ask(breaker)

    assert (allowed, breaker.state("LOCAL")) == (False, "open")


def test_a_success_between_failures_begins_the_count_anew(breaker):
    fail(breaker, 2)
    breaker.succeeded(*MODEL, user="ann")

    fail(breaker, 2)

    assert may_ask(breaker)


def test_other_models_and_providers_are_not_refused(breaker):
    fail(breaker, 3)

    allowed = may_ask(breaker, model=("LOCAL", "other")), may_ask(breaker, model=("OPENROUTER", "demo"))

    assert (allowed, breaker.state("OPENROUTER")) == ((True, True), "closed")


def test_after_a_while_exactly_one_probe_goes_through(breaker, clock):
    fail(breaker, 3)
    clock.now += 30

    state, allowed = breaker.state("LOCAL"), [may_ask(breaker) for _ in range(3)]

    assert (state, allowed) == ("half_open", [True, False, False])


def test_a_probe_that_fails_opens_it_again(breaker, clock):
    fail(breaker, 3)
    clock.now += 30
    may_ask(breaker)

    fail(breaker, 1)

    assert (may_ask(breaker), breaker.state("LOCAL")) == (False, "open")


def test_a_probe_that_succeeds_closes_it(breaker, clock):
    fail(breaker, 3)
    clock.now += 30
    may_ask(breaker)

    breaker.succeeded(*MODEL, user="ann")

    assert (may_ask(breaker), breaker.state("LOCAL")) == (True, "closed")


def test_the_first_word_of_a_probe_is_awaited_until_it_was_told_of(breaker, clock):
    awaited = [may_ask(breaker) and breaker.awaits(*MODEL)]
    fail(breaker, 3)
    clock.now += 30

    awaited.append(may_ask(breaker) and breaker.awaits(*MODEL))
    breaker.succeeded(*MODEL, user="ann")
    awaited.append(breaker.awaits(*MODEL))

    assert awaited == [False, True, False]


def test_a_probe_that_never_ends_makes_room_for_another(breaker, clock):
    fail(breaker, 3)
    clock.now += 30
    may_ask(breaker)
    clock.now += 30

    allowed = may_ask(breaker)

    assert allowed


def test_a_late_failure_does_not_prolong_the_refusal(breaker, clock):
    fail(breaker, 3)
    clock.now += 29
    fail(breaker, 2)
    clock.now += 1

    allowed = may_ask(breaker)

    assert allowed


def test_a_redis_that_is_away_is_not_asked_each_time(breaker, redis, clock):
    may_ask(breaker)
    asked = redis.asked

    fail(breaker, 50)

    assert redis.asked == asked


def test_redis_is_asked_again_after_a_pause(breaker, redis, clock):
    may_ask(breaker)
    asked = redis.asked
    clock.now += REDIS_PAUSE_SECONDS

    may_ask(breaker)

    assert redis.asked > asked


def test_no_end_of_model_names_does_not_fill_the_memory(clock):
    circuits = LocalCircuits(failures=1, open_seconds=30, clock=clock)

    for number in range(MOST_CIRCUITS + 10):
        for job in ("job-1", "job-2"):
            circuits.failed(f"LOCAL:{number}", "ann", job)

    assert (circuits.allow("LOCAL:0", "ann"), circuits.allow(f"LOCAL:{MOST_CIRCUITS}", "ann")) == (True, False)


def test_while_nothing_is_open_there_is_calm_and_the_first_open_circuit_ends_it_at_once(breaker):
    before = breaker.calm()
    fail(breaker, 3)

    assert (before, breaker.calm()) == (True, False)


def test_retries_of_one_job_do_not_open_circuit(breaker):
    job = uuid4()
    for _ in range(50):
        breaker.failed(*MODEL, user="ann", job=job)

    assert may_ask(breaker)


def test_only_user_opens_circuit_for_themselves_alone(breaker):
    fail(breaker, 3)

    assert (may_ask(breaker, "ann"), may_ask(breaker, "bob"), breaker.state("LOCAL")) == (False, True, "open")


def test_second_user_that_fails_opens_circuit_for_everyone(breaker):
    fail(breaker, 3)
    fail(breaker, 1, user="bob")

    assert [may_ask(breaker, user) for user in ("ann", "bob", "eve")] == [False, False, False]


def test_failures_of_two_users_open_circuit_for_everyone(breaker):
    fail(breaker, 2)
    fail(breaker, 1, user="bob")

    assert not may_ask(breaker, "eve")


def test_one_user_among_several_does_not_open_circuit(breaker, clock):
    breaker.succeeded("OPENROUTER", "another", user="bob")
    fail(breaker, 50)
    among_others = may_ask(breaker)

    clock.now += FORGET_SECONDS
    fail(breaker, 1)

    assert (among_others, may_ask(breaker)) == (True, False)


def test_success_of_another_user_closes_circuit(breaker):
    fail(breaker, 3)
    breaker.succeeded(*MODEL, user="bob")

    assert may_ask(breaker, "ann")


def test_users_without_end_do_not_fill_the_memory(clock):
    circuits = LocalCircuits(failures=3, open_seconds=30, clock=clock)

    for number in range(100):
        circuits.succeeded("LOCAL:demo", f"user-{number}")

    assert list(circuits._users) == ["user-98", "user-99"]
