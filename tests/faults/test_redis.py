"""Redis may be killed, emptied, frozen, full, cut off or fed with garbage: it is never where anything is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import pytest

from chat_backend.domain.enums import JobStatus
from chat_backend.realtime.channels import WORKERS, session_channel
from tests.support.chat import Chat
from tests.support.deployment import Deployment
from tests.support.provider_stub import expected_text
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


@pytest.mark.parametrize("fault", ["killed and restarted empty", "flushed"])
def test_an_emptied_redis_in_mid_stream_loses_nothing(running: Deployment, fault: str) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=60,delay=0.03,tag=empty")
    plain, deltas = running.follow(chat, session["id"]), running.follow(chat, session["id"], deltas=1)
    job = chat.ask(session["id"], "Go on.")
    waiting = chat.ask(session["id"], "And on.")
    deltas.until_text(40)

    running.valkey.flush() if fault == "flushed" else running.valkey.restart()

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

    wait_until(lambda: running.worker.log.count("received") > before, seconds=3, why="the wake-up arrives")


@pytest.mark.timeout(180)
def test_a_frozen_redis_delays_no_request_and_no_reply(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=100,delay=0.03,tag=frozen")
    viewers = [running.follow(chat, session["id"]), running.follow(chat, session["id"], deltas=1)]
    chat.ask(session["id"], "Go on.")
    viewers[1].until_text(20)

    running.valkey.freeze()
    began = time.monotonic()
    jobs, slowest = write_until(chat, began + FROZEN_SECONDS)
    answered = [running.until_job(job, JobStatus.SUCCEEDED, seconds=15) for job in jobs[:3]]
    frozen_for = time.monotonic() - began
    running.valkey.thaw()

    print(f"slowest request while Redis was frozen: {slowest * 1000:.0f} ms")
    assert slowest < SLOWEST_SECONDS
    assert len(answered) == 3
    for viewer in viewers:
        viewer.until_job("succeeded", seconds=5)
    assert frozen_for < FROZEN_SECONDS + 15


def write_until(chat: Chat, deadline: float) -> tuple[list[str], float]:
    """Make sessions, send and ask until the time is up; return the jobs and the longest that a request took."""
    jobs, slowest = [], 0.0
    while time.monotonic() < deadline:
        session, took = timed(lambda: chat.new_session("stub:tokens=3,tag=meanwhile"))
        sent, then = timed(lambda session=session: chat.send(session["id"], "Hello", process=True))
        _, cancelled = timed(
            lambda session=session: chat.request("PUT", f"/sessions/{session['id']}", json={"title": "x"})
        )
        jobs.append(sent["job"]["id"])
        slowest = max(slowest, took, then, cancelled)
        time.sleep(0.2)  # a pace, not a wait: about ten writes a second
    return jobs, slowest


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


def test_connections_reset_ten_times_in_mid_stream_lose_nothing(running: Deployment) -> None:
    chat = running.chat()
    sessions = [chat.new_session("stub:tokens=80,delay=0.03,tag=reset") for _ in range(3)]
    viewers = [running.follow(chat, session["id"], deltas=1) for session in sessions]
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


def test_processes_that_start_without_redis_serve_all_the_same(running: Deployment) -> None:
    wrong = {"REDIS_URL": f"redis://:wrong@127.0.0.1:{running.valkey.port + 1}/0"}
    running.worker.kill()
    running.web.kill()
    running.workers, running.webs = [], []
    running.start("web", **wrong)

    starting = Thread(target=start_worker_without_redis, args=(running, wrong), daemon=True)
    starting.start()
    chat = running.chat()
    session = chat.new_session("stub:tokens=10,tag=without")
    viewer = running.follow(chat, session["id"])
    job = chat.ask(session["id"], "Go on.")

    viewer.until_job("succeeded")
    assert running.job(job["job_id"]).status == JobStatus.SUCCEEDED
    for process in (*running.workers, *running.webs):
        process.kill()
    starting.join(10)


def start_worker_without_redis(running: Deployment, wrong: dict[str, str]) -> None:
    """Start a worker that never gets as far as its broker."""
    from tests.support.processes import Process, procfile

    command = ["sh", "-c", f"exec {procfile()['worker']}"]
    running.workers.append(Process("worker", command, running.environment | wrong, running.folder))
