"""Redis may be killed, emptied, frozen, full, cut off or fed with garbage: it is never where anything is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import pytest
from redis import Redis

from chat_backend.domain.enums import JobStatus
from chat_backend.realtime.channels import WORKERS, session_channel
from tests.support.chat import Chat
from tests.support.databases import POSTGRESQL, SQLITE
from tests.support.deployment import Deployment
from tests.support.processes import Process, procfile
from tests.support.provider_stub import expected_text
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

# "Well under a second": what a request that writes may take in the worst moment.
SLOWEST_SECONDS = 0.9
FROZEN_SECONDS = 10.0


@contextmanager
def again_and_again(what: Callable[[], Any], *, seconds: float) -> Iterator[None]:
    """Do something every so many seconds, beside the test."""
    over = Event()

    def work() -> None:
        while not over.wait(seconds):
            what()

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


def cut_clients(running: Deployment, kind: str) -> None:
    """Reset the connections of one kind: `normal` or `pubsub`."""
    with running.valkey.client() as client:
        client.client_kill_filter(_type=kind, skipme=True)


EMPTIED: dict[str, Callable[[Valkey], None]] = {
    "killed, back with what it had": Valkey.restart,
    "killed, back with nothing": lambda valkey: valkey.restart(empty=True),
    "flushed": Valkey.flush,
}


@pytest.mark.parametrize("fault", EMPTIED)
def test_a_redis_killed_or_emptied_in_mid_stream_loses_nothing(running: Deployment, fault: str) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=60,delay=0.03,tag=empty")
    plain, deltas = running.follow(chat, session["id"]), running.follow(chat, session["id"], deltas=1)
    job = chat.ask(session["id"], "Go on.")
    waiting = chat.ask(session["id"], "And on.")
    deltas.until_text(40)

    EMPTIED[fault](running.valkey)

    late = running.follow(chat, session["id"], deltas=1)
    for viewer in (plain, deltas, late):
        assert viewer.until_action("completed")["message"]["content"] == expected_text("empty", 60)
    assert len(running.job(job["job_id"]).attempts) == 1
    running.until_job(waiting["job_id"], JobStatus.SUCCEEDED)


def test_wake_ups_arrive_again_after_a_flush(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=3,tag=bell")
    running.until_job(chat.ask(session["id"], "One.")["job_id"], JobStatus.SUCCEEDED)

    running.valkey.flush()
    before = running.worker.log.count("received")
    running.until_job(chat.ask(session["id"], "Two.")["job_id"], JobStatus.SUCCEEDED)

    wait_until(lambda: running.worker.log.count("received") > before, seconds=15, why="the wake-up arrives")


@pytest.mark.timeout(180)
def test_a_frozen_redis_delays_no_request_and_no_reply(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=100,delay=0.03,tag=frozen")
    viewers = [running.follow(chat, session["id"]), running.follow(chat, session["id"], deltas=1)]
    chat.ask(session["id"], "Go on.")
    viewers[1].until_text(20)

    running.valkey.freeze()
    began = time.monotonic()
    jobs, took = write_until(chat, began + FROZEN_SECONDS)
    answered = [running.until_job(job, JobStatus.SUCCEEDED, seconds=15) for job in jobs[:3]]
    frozen_for = time.monotonic() - began
    running.valkey.thaw()

    took.sort()
    most = took[: -len(took) // 10]
    print(f"slowest requests while Redis was frozen: {most[-1] * 1000:.0f}, {took[-1] * 1000:.0f} ms")
    # The machine may be slow once in a while; Redis' time would show in every one.
    assert most[-1] < SLOWEST_SECONDS
    assert took[-1] < SLOWEST_SECONDS + 2
    assert len(answered) == 3
    for viewer in viewers:
        viewer.until_job("succeeded", seconds=5)
    assert frozen_for < FROZEN_SECONDS + 15


def write_until(chat: Chat, deadline: float) -> tuple[list[str], list[float]]:
    """Make sessions, send and ask until the time is up; return the jobs and how long each request took."""
    jobs: list[str] = []
    seconds: list[float] = []
    while time.monotonic() < deadline:
        session, took = timed(lambda: chat.new_session("stub:tokens=3,tag=meanwhile"))
        sent, then = timed(lambda session=session: chat.send(session["id"], "Hello", process=True))
        _, cancelled = timed(
            lambda session=session: chat.request("PUT", f"/sessions/{session['id']}", json={"title": "x"})
        )
        jobs.append(sent["job"]["id"])
        seconds += (took, then, cancelled)
        time.sleep(0.2)  # a pace, not a wait: about ten writes a second
    return jobs, seconds


def timed(what: Callable[[], Any]) -> tuple[Any, float]:
    began = time.monotonic()
    return what(), time.monotonic() - began


def test_while_redis_is_down_sockets_open_text_grows_and_jobs_are_answered(running: Deployment) -> None:
    running.valkey.kill()
    chat = running.chat()
    session = chat.new_session("stub:tokens=60,delay=0.05,tag=down")
    viewer = running.follow(chat, session["id"])

    began = time.monotonic()
    job, asked = timed(lambda: chat.ask(session["id"], "Go on."))
    viewer.until_text(20)
    text_after = time.monotonic() - began
    late = running.follow(chat, session["id"], deltas=1)
    final = viewer.until_action("completed")
    late.until_job("succeeded")

    assert asked < SLOWEST_SECONDS
    assert text_after < 8
    assert final["message"]["content"] == expected_text("down", 60)
    assert [f for f in viewer.viewer.frames if f.get("action") == "streaming"]
    assert len(running.job(job["job_id"]).attempts) == 1


def test_a_long_outage_leaves_nothing_undone_and_ends_for_everyone(running: Deployment) -> None:
    chat = running.chat()
    sessions = [chat.new_session("stub:tokens=20,delay=0.02,tag=long") for _ in range(4)]
    viewers = [running.follow(chat, session["id"], deltas=1) for session in sessions]
    jobs = [chat.ask(session["id"], f"{n}.") for n in (1, 2, 3) for session in sessions]

    running.valkey.kill()
    jobs += [chat.ask(session["id"], "4.") for session in sessions]
    for job in jobs:
        running.until_job(job["job_id"], JobStatus.SUCCEEDED)
    before = running.worker.log.count("received")
    running.valkey.start()

    wait_until(lambda: wakes(running, chat) > before, seconds=10, why="wake-ups arrive again")
    for viewer, job in zip(viewers, jobs[-4:], strict=True):
        assert viewer.until_text_of(job["assistant_message_id"], seconds=5) == expected_text("long", 20)
    assert len(running.calls("long")) == len(jobs)


def wakes(running: Deployment, chat: Chat) -> int:
    """Ask for one reply more; return how many wake-ups the worker has got."""
    session = chat.new_session("stub:tokens=1,tag=again")
    running.until_job(chat.ask(session["id"], "And?")["job_id"], JobStatus.SUCCEEDED)
    return running.worker.log.count("received")


def overflows(client: Redis) -> int:
    """Return how many clients the server has cut because they were too slow for what they were sent."""
    return int(client.info("stats")["client_output_buffer_limit_disconnections"])


def send_until_cut(client: Redis, chat: Chat, session_id: str) -> dict[str, Any]:
    """Send messages that are too large for the subscriber until one has cut it; return that one.

    A message is published once, before it is answered: where Redis was away for the web process at that moment, or the
    subscriber for Redis, it cuts nobody.
    """

    def send() -> dict[str, Any] | None:
        wait_until(lambda: client.pubsub_numsub(session_channel(session_id))[0][1], why="it listens")
        before = overflows(client)
        message = chat.send(session_id, "large " * 5_000)
        return message if overflows(client) > before else None

    return wait_until(send, why="one has cut it")


def test_a_subscriber_that_is_cut_for_every_large_message_loses_none(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=100,delay=0.03,tag=overflow")
    plain, deltas = running.follow(chat, session["id"]), running.follow(chat, session["id"], deltas=1)
    with running.valkey.client() as client:
        # Whatever does not fit into a reply's first 16 KB is too much.
        client.config_set("client-output-buffer-limit", "pubsub 1024 0 0")
        try:
            job = chat.ask(session["id"], "Go on.")
            for _ in range(5):
                last = send_until_cut(client, chat, session["id"])
            for viewer in (plain, deltas):
                assert viewer.until_text_of(last["id"], seconds=5) == last["content"]
        finally:
            client.config_set("client-output-buffer-limit", "pubsub 32mb 8mb 60")
        running.until_job(job["job_id"], JobStatus.SUCCEEDED)
        for viewer in (plain, deltas):
            assert viewer.until_text_of(job["assistant_message_id"]) == expected_text("overflow", 100)

    assert list(deltas.viewer.messages) == list(plain.viewer.messages)


def test_connections_reset_ten_times_in_mid_stream_lose_nothing(running: Deployment) -> None:
    running.ensure(webs=2, workers=2)
    chat, other = running.chat(), running.chat(web=1)
    sessions = [chat.new_session("stub:tokens=80,delay=0.03,tag=reset") for _ in range(3)]
    viewers = [running.follow(each, session["id"], deltas=1) for session in sessions for each in (chat, other)]
    jobs = [chat.ask(session["id"], "Go on.") for session in sessions]

    with again_and_again(lambda: cut_clients(running, "normal"), seconds=0.25):
        for viewer in viewers:
            viewer.until_job("succeeded")

    for job in jobs:
        assert len(running.job(job["job_id"]).attempts) == 1
    assert len(running.calls("reset")) == 3


def test_a_subscription_that_is_cut_every_second_loses_nothing(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=100,delay=0.03,tag=pubsub")
    plain, deltas = running.follow(chat, session["id"]), running.follow(chat, session["id"], deltas=1)
    chat.ask(session["id"], "Go on.")

    with again_and_again(lambda: cut_clients(running, "pubsub"), seconds=1.0):
        deltas.until_job("succeeded")
        plain.until_job("succeeded")

    assert list(deltas.viewer.texts.values())[-1] == expected_text("pubsub", 100)


def test_a_full_redis_costs_no_reply(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=60,delay=0.03,tag=full")
    viewer = running.follow(chat, session["id"], deltas=1)
    with running.valkey.client() as client:
        client.config_set("maxmemory", 1)
        try:
            job = chat.ask(session["id"], "Go on.")
            viewer.until_job("succeeded")
            running.until_job(chat.ask(session["id"], "And on.")["job_id"], JobStatus.SUCCEEDED)
        finally:
            client.config_set("maxmemory", 0)

    assert len(running.job(job["job_id"]).attempts) == 1
    assert running.worker.exit_status is None


def test_garbage_on_the_channels_changes_nothing(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=40,delay=0.03,tag=noise")
    plain, deltas = running.follow(chat, session["id"]), running.follow(chat, session["id"], deltas=1)
    job = chat.ask(session["id"], "Go on.")
    reply = job["assistant_message_id"].encode()
    noise = [
        b"", b"x", b"\xff\xfe", b"{}", b"null", b"D", b"d" * 100_000, b'{"type": "message_update"}', b"D1 5 {}", reply,
        b'D{"offset": 5}', b"E[1]", b"E{}", b'E{"type": "typing_indicator"}', b"T" + reply + b":1:0:surprise",
    ]  # fmt: skip

    def make_noise() -> None:
        with running.valkey.client() as client:
            for text in noise:
                client.publish(session_channel(session["id"]), text)
                client.publish(WORKERS, text)
            client.publish(WORKERS, job["job_id"])  # a cancel that nobody asked for

    with again_and_again(make_noise, seconds=0.3):
        plain.until_job("succeeded")
        deltas.until_job("succeeded")

    assert running.job(job["job_id"]).status == JobStatus.SUCCEEDED


@pytest.mark.parametrize(
    ("deployment", "wrong"), [(SQLITE, "address"), (POSTGRESQL, "password")], indirect=["deployment"]
)
def test_processes_that_start_without_redis_serve_all_the_same(running: Deployment, wrong: str) -> None:
    port = running.valkey.port + 1 if wrong == "address" else running.valkey.port
    changed = {"REDIS_URL": f"redis://:wrong@127.0.0.1:{port}/0"}
    running.worker.kill()
    running.web.kill()
    running.workers, running.webs = [], []
    web, worker = running.start("web", **changed), start_worker_without_redis(running, changed)

    chat = running.chat()
    session = chat.new_session("stub:tokens=10,tag=without")
    viewer = running.follow(chat, session["id"])
    job = chat.ask(session["id"], "Go on.")
    viewer.until_job("succeeded")
    health = chat.request("GET", "/health")

    assert running.job(job["job_id"]).status == JobStatus.SUCCEEDED
    assert (health["status"], health["checks"]["redis"]["status"]) == ("degraded", "unhealthy")
    reason = "AuthenticationError" if wrong == "password" else "ConnectionError"
    assert all(reason in process.log and process.exit_status is None for process in (web, worker))
    for process in (web, worker):
        process.kill()


def start_worker_without_redis(running: Deployment, changed: dict[str, str]) -> Process:
    """Start a worker that never gets as far as its broker, and so never says that it is ready."""
    command = ["sh", "-c", f"exec {procfile()['worker']}"]
    worker = Process("worker", command, running.environment | changed, running.folder)
    running.workers.append(worker)
    return worker
