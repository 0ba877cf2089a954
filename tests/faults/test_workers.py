"""Workers that die, stop, hang and race: a reply is finished by someone, once."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from chat_backend.domain.enums import JobStatus, Outcome
from chat_backend.domain.user import User
from chat_backend.queue import names
from chat_backend.queue.enqueue import Doorbell, producer
from chat_backend.services import messages
from tests.support.deployment import Deployment
from tests.support.processes import Process
from tests.support.provider_stub import expected_text
from tests.support.waiting import wait_until


def outcomes(running: Deployment, job_id: str) -> list[Outcome | None]:
    return [attempt.outcome for attempt in running.job(job_id).attempts]


def test_a_reply_whose_worker_is_killed_in_mid_stream_is_finished_by_another(running: Deployment) -> None:
    running.ensure(workers=2)
    chat = running.chat()
    session = chat.new_session("stub:tokens=60,delay=0.03,tag=kill")
    plain, deltas = running.follow(chat, session["id"]), running.follow(chat, session["id"], deltas=1)
    job = chat.ask(session["id"], "Go on.")
    deltas.until_text(20)

    who_works_at(running, job["job_id"]).kill()

    restarted = deltas.until_action("restarted")
    final = plain.until_action("completed")["message"]
    deltas.until_job("succeeded")
    assert (restarted["message"]["content"], restarted["message"]["attempt"]) == ("", 2)
    assert (final["id"], final["content"]) == (job["assistant_message_id"], expected_text("kill", 60))
    assert outcomes(running, job["job_id"]) == [Outcome.ABANDONED, Outcome.SUCCEEDED]


def who_works_at(running: Deployment, job_id: str) -> Process:
    """Return the worker that holds the job's lease."""
    holder = int((running.job(job_id).lease_owner or "").split(":")[1])
    return next(worker for worker in running.workers if holder in worker.family)


def test_a_terminated_worker_finishes_what_has_a_short_rest(running: Deployment) -> None:
    running.ensure(workers=1)
    chat = running.chat()
    session = chat.new_session("stub:tokens=20,delay=0.03,tag=short")
    job = chat.ask(session["id"], "Go on.")
    running.until_called("short")

    status = running.worker.stop()

    assert status == 0
    assert running.job(job["job_id"]).status == JobStatus.SUCCEEDED
    assert outcomes(running, job["job_id"]) == [Outcome.SUCCEEDED]


def test_a_terminated_worker_hands_over_what_has_a_long_rest_and_another_goes_on_at_once(running: Deployment) -> None:
    running.ensure(workers=2)
    chat = running.chat()
    session = chat.new_session("stub:tokens=120,delay=0.03,tag=long")
    viewer = running.follow(chat, session["id"], deltas=1)
    job = chat.ask(session["id"], "Go on.")
    viewer.until_text(20)

    terminated = who_works_at(running, job["job_id"])
    terminated.send(signal.SIGTERM)
    began = time.monotonic()
    running.until_called("long", times=2)
    went_on_after = time.monotonic() - began
    status = terminated.wait()

    print(f"went on elsewhere {went_on_after:.1f} s after SIGTERM, gone after {time.monotonic() - began:.1f} s")
    assert status == 0
    assert time.monotonic() - began < 10
    assert went_on_after < float(running.environment["DRAIN_SECONDS"]) + 2
    viewer.until_job("succeeded")
    assert outcomes(running, job["job_id"]) == [Outcome.HANDED_OVER, Outcome.SUCCEEDED]


def test_three_sigterms_are_as_good_as_one(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=120,delay=0.03,tag=thrice")
    job = chat.ask(session["id"], "Go on.")
    running.until_called("thrice")

    # In the midst of what the first sets off, too.
    for _ in range(3):
        running.worker.send(signal.SIGTERM)
    wait_until(lambda: running.worker.send(signal.SIGTERM) or "draining" in running.worker.log, why="it drains")
    status = running.worker.wait()

    assert status == 0
    assert outcomes(running, job["job_id"]) == [Outcome.HANDED_OVER]
    assert running.job(job["job_id"]).status == JobStatus.QUEUED


HOW_TO_END: dict[str, Callable[[Deployment], object]] = {
    "interrupted": lambda running: [running.worker.send(signal.SIGINT) for _ in range(3)],
    "shut down by remote control": lambda running: producer(running.settings).control.shutdown(),
}


@pytest.mark.parametrize("how", HOW_TO_END)
def test_a_worker_drains_however_it_is_ended(running: Deployment, how: str) -> None:
    running.ensure(workers=0)
    running.start("worker", CELERY_REMOTE_CONTROL="on")
    chat = running.chat()
    session = chat.new_session("stub:tokens=150,delay=0.03,tag=ended")
    job = chat.ask(session["id"], "Go on.")
    running.until_called("ended")

    HOW_TO_END[how](running)
    running.worker.wait()

    assert outcomes(running, job["job_id"]) == [Outcome.HANDED_OVER]
    assert running.job(job["job_id"]).status == JobStatus.QUEUED


def test_remote_control_is_off(running: Deployment) -> None:
    control = producer(running.settings).control
    chat = running.chat()
    job = chat.ask(chat.new_session("stub:tokens=60,delay=0.03,tag=controlled")["id"], "Go on.")
    running.until_called("controlled")

    with running.valkey.client() as client:
        listeners = dict(client.pubsub_numsub("chat:celery:/0.celery.pidbox"))
    control.cancel_consumer(names.QUEUE)
    control.pool_shrink(1000)
    control.rate_limit(names.PROCESS_LLM, "1/h")
    control.time_limit(names.PROCESS_LLM, hard=1)
    control.revoke(job["job_id"], terminate=True)
    control.shutdown()
    following = [chat.ask(chat.new_session("stub:tokens=3")["id"], "Hello.") for _ in range(3)]

    for asked in (job, *following):
        running.until_job(asked["job_id"], JobStatus.SUCCEEDED)
    assert running.worker.exit_status is None
    assert list(listeners.values()) == [0]


def test_a_worker_that_can_not_start_ends(running: Deployment) -> None:
    with pytest.raises(AssertionError, match="ended with status 1"):
        running.start("worker", DATABASE_URL="sqlite:////dev/null/chat.db")


def test_a_worker_killed_while_it_drains_is_taken_over_from(running: Deployment) -> None:
    running.ensure(workers=2)
    chat = running.chat()
    session = chat.new_session("stub:tokens=60,delay=0.03,tag=both")
    job = chat.ask(session["id"], "Go on.")
    running.until_called("both")
    worker = who_works_at(running, job["job_id"])

    worker.send(signal.SIGTERM)
    wait_until(lambda: "Warm shutdown" in worker.log, why="it drains")
    worker.kill()

    running.until_job(job["job_id"], JobStatus.SUCCEEDED)
    assert outcomes(running, job["job_id"]) == [Outcome.ABANDONED, Outcome.SUCCEEDED]


def test_work_waits_for_workers_that_are_all_gone(running: Deployment) -> None:
    running.worker.kill()
    chat = running.chat()
    sessions = [chat.new_session("stub:tokens=5,tag=alone") for _ in range(5)]
    jobs = [chat.ask(session["id"], "Go on.") for session in sessions]
    running.valkey.flush()

    running.ensure(workers=1)

    for job in jobs:
        running.until_job(job["job_id"], JobStatus.SUCCEEDED, seconds=10)


def test_a_job_that_kills_its_workers_fails_at_the_third(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=3000,delay=0.03,tag=poison")
    viewer = running.follow(chat, session["id"])
    job = chat.ask(session["id"], "Go on.")

    for number in (1, 2, 3):
        running.ensure(workers=1)
        running.until_called("poison", times=number)
        running.worker.kill()
    running.ensure(workers=1)

    ended = running.until_job(job["job_id"], JobStatus.FAILED)
    viewer.until_job("failed")
    assert ended.error_code == "WORKER_LOST"
    assert outcomes(running, job["job_id"]) == [Outcome.ABANDONED] * 3
    assert len(running.calls("poison")) == 3


def test_a_worker_that_slept_past_its_lease_writes_nothing_more(running: Deployment) -> None:
    running.ensure(workers=2)
    chat = running.chat()
    session = chat.new_session("stub:tokens=40,delay=0.03,tag=sleep")
    viewer = running.follow(chat, session["id"], deltas=1)
    job = chat.ask(session["id"], "Go on.")
    viewer.until_text(20)
    sleeper = int((running.job(job["job_id"]).lease_owner or "").split(":")[1])

    wait_until(lambda: freeze_between_writes(running, sleeper), why="it sleeps")
    running.until_job(job["job_id"], JobStatus.SUCCEEDED)
    os.kill(sleeper, signal.SIGCONT)

    viewer.until_job("succeeded")
    worker = next(worker for worker in running.workers if sleeper in worker.family)
    wait_until(lambda: "came too late" in worker.log, why="the sleeper's result is refused")
    assert outcomes(running, job["job_id"]) == [Outcome.ABANDONED, Outcome.SUCCEEDED]


def freeze_between_writes(running: Deployment, pid: int) -> bool:
    """Freeze a process; not while it holds SQLite's one write lock, which would stop everybody."""
    os.kill(pid, signal.SIGSTOP)
    url = running.settings.database_url
    if url.startswith("sqlite"):
        try:
            with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=0.5, isolation_level=None)) as probe:
                probe.execute("BEGIN IMMEDIATE").close()
        except sqlite3.OperationalError:
            os.kill(pid, signal.SIGCONT)
            return False
    return True


def test_a_task_delivered_five_times_is_worked_at_once(running: Deployment) -> None:
    running.ensure(workers=2)
    chat = running.chat()
    session = chat.new_session("stub:tokens=20,delay=0.03,tag=five")
    doorbell = Doorbell(running.settings)
    job = chat.ask(session["id"], "Go on.")

    for _ in range(5):
        doorbell.ring(running.job(job["job_id"]).id)
    doorbell.close()

    running.until_job(job["job_id"], JobStatus.SUCCEEDED)
    doorbell.ring(running.job(job["job_id"]).id)
    doorbell.close()
    assert outcomes(running, job["job_id"]) == [Outcome.SUCCEEDED]
    assert len(running.calls("five")) == 1


def test_a_crash_after_the_provider_has_finished_and_before_the_commit_asks_again(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=60,delay=0.05,tag=before")
    viewer = running.follow(chat, session["id"], deltas=1)
    job = chat.ask(session["id"], "Go on.")
    running.until_called("before")

    with running.backend.engine.execution_options(writes=True).begin() as holding:
        holding.execute(text("UPDATE chat_sessions SET title = 'held'"))
        wait_until(lambda: running.calls("before")[0]["finished"], why="the provider has finished")
        running.worker.kill()
    running.ensure(workers=1)

    viewer.until_job("succeeded")
    assert outcomes(running, job["job_id"]) == [Outcome.ABANDONED, Outcome.SUCCEEDED]


def test_a_crash_after_the_commit_and_before_the_publish_is_seen_all_the_same(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=10,delay=0.05,tag=after")
    viewer = running.follow(chat, session["id"], deltas=1)
    job = chat.ask(session["id"], "Go on.")
    viewer.until_text(10)

    running.valkey.freeze()
    running.until_job(job["job_id"], JobStatus.SUCCEEDED)
    running.worker.kill()
    running.valkey.thaw()

    viewer.until_job("succeeded", seconds=5)


def test_a_process_that_dies_between_commit_and_wake_up_leaves_a_job_that_the_sweep_finds(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=5,tag=forgot")
    viewer = running.follow(chat, session["id"])

    with running.backend.unit_of_work() as uow:  # its ways out lead nowhere
        sent = messages.send(uow, UUID(session["id"]), User("alice"), content="Go on.", process=True)

    assert sent.job is not None
    running.until_job(str(sent.job.id), JobStatus.SUCCEEDED, seconds=8)
    viewer.until_job("succeeded", seconds=5)


def test_tasks_that_nobody_knows_stop_no_worker(running: Deployment) -> None:
    ring = producer(running.settings)
    for name, args in (
        ("chat.no_such_task", []),
        (names.PROCESS_LLM, []),
        (names.PROCESS_LLM, ["no id"]),
        (names.PROCESS_LLM, [{"job": [1, 2]}, "and", "more"]),
        (names.PROCESS_LLM, [str(uuid4())]),
        (names.PROCESS_LLM, ["x" * 2_000_000]),
    ):
        ring.send_task(name, args=args, queue=names.QUEUE)
    ring.close()
    chat = running.chat()
    session = chat.new_session("stub:tokens=5,tag=known")

    job = chat.ask(session["id"], "Go on.")

    running.until_job(job["job_id"], JobStatus.SUCCEEDED)
    assert running.worker.exit_status is None
    assert outcomes(running, job["job_id"]) == [Outcome.SUCCEEDED]


def as_ours(body: str, /, **changes: object) -> bytes:
    """Return a wake-up as it lies in the queue: well formed but for what is changed."""
    headers = {"lang": "py", "task": names.PROCESS_LLM, "id": str(uuid4()), "clock": 1}
    properties = {"body_encoding": "base64", "delivery_tag": str(uuid4()), "delivery_info": {}}
    message = {"body": b64encode(body.encode()).decode(), "content-type": "application/json",
               "content-encoding": "utf-8", "headers": headers, "properties": properties}  # fmt: skip
    for name, value in changes.items():
        message[name] = message[name] | value if isinstance(value, dict) else value  # type: ignore[operator]
    return json.dumps(message).encode()


NO_ARGUMENTS = "[[], {}, {}]"
GARBAGE = [
    b"not json", b"{}", b"5", b"null", b'"x"', b"[]", b'{"body": "x", "properties": {}}', b'{"properties": 5}', b"\xff",
    b"x" * 5_000_000, b"[" * 100_000, b'{"body":' * 50_000, b"9" * 5_000, b'{"__type__": "decimal", "__value__": "x"}',
    as_ours('{"method": "ping"}', headers={"clock": int("9" * 4_300)}), as_ours('{"method": 5, "arguments": "x"}'),
    as_ours("[" * 100_000), as_ours("not json"), as_ours("5"), as_ours("[1, 2, 3]"), as_ours("[[], {}]"),
    as_ours(NO_ARGUMENTS, properties={"body_encoding": "rot13"}), as_ours(NO_ARGUMENTS, properties=None),
    as_ours(NO_ARGUMENTS, properties={"body_encoding": 5}), as_ours(NO_ARGUMENTS, properties={"delivery_tag": []}),
    as_ours(NO_ARGUMENTS, properties={"delivery_info": 5}), as_ours(NO_ARGUMENTS, body=5),
    as_ours(NO_ARGUMENTS, **{"content-type": "application/x-python-serialize"}),
    as_ours(NO_ARGUMENTS, **{"content-type": 5}), as_ours(NO_ARGUMENTS, **{"content-encoding": "no such"}),
    as_ours(NO_ARGUMENTS, headers=None), as_ours(NO_ARGUMENTS, headers=[1]), as_ours(NO_ARGUMENTS, headers="x"),
    *(as_ours(NO_ARGUMENTS, headers={name: value}) for name, value in (
        ("task", []), ("task", None), ("id", {}), ("compression", "bzip2"), ("eta", "x"), ("eta", 5), ("expires", "x"),
        ("eta", "0001-01-01T00:00:00"), ("expires", "9999-12-31T23:59:59+00:00"), ("expires", {}), ("timelimit", 5),
        ("timelimit", "abc"), ("retries", "x"), ("clock", "x"), ("argsrepr", json.loads("[" * 900 + "]" * 900)),
        ("shadow", 5), ("errbacks", 5), ("root_id", {}), ("stamped_headers", 5), ("group", []),
    )),
]  # fmt: skip


def test_garbage_in_the_queue_and_on_its_channel_stops_no_worker(running: Deployment) -> None:
    running.worker.kill()
    running.workers = []
    # A message that is dropped and still holds its place is not seen before there are as many as the worker has.
    running.start("worker", WORKER_CONCURRENCY="3")
    with running.valkey.client() as client:
        for garbage in GARBAGE:
            client.lpush("chat:celery:llm", garbage)
            client.publish("chat:celery:/0.celery.pidbox", garbage)
        wait_until(lambda: not client.exists("chat:celery:llm"), seconds=20, why="all of it is read")
        for key in ("_kombu.binding.llm", "_kombu.binding_permanent.llm", "_kombu.binding.celery.pidbox", "llm"):
            client.set(f"chat:celery:{key}", "another kind of value")
        wait_until(lambda: not client.exists("chat:celery:llm"), seconds=20, why="it is removed")
    chat = running.chat()
    session = chat.new_session("stub:tokens=5,tag=junk")
    before = running.worker.log.count("received")

    job = chat.ask(session["id"], "Go on.")

    wait_until(lambda: running.worker.log.count("received") > before, why="the wake-up arrives")
    running.until_job(job["job_id"], JobStatus.SUCCEEDED)
    assert running.worker.exit_status is None
    running.worker.kill()  # the next test finds one with all its places
