"""Stop means stop, in whatever phase a job is; and what else people do while a reply is being written."""

from __future__ import annotations

import time
from typing import Any

import pytest

from chat_backend.domain.enums import JobStatus, MessageStatus
from tests.support.chat import Chat
from tests.support.deployment import Deployment
from tests.support.provider_stub import expected_text
from tests.support.waiting import wait_until

CLOSED_WITHIN_SECONDS = 0.5
WITHOUT_REDIS_SECONDS = 4.0


def begin(running: Deployment, chat: Chat, script: str, tag: str) -> tuple[str, str]:
    """Ask a provider that does what the script says; return the ids of session and job once it was asked."""
    session = chat.new_session(f"stub:{script},tag={tag}")
    job_id: str = chat.ask(session["id"], "Go on.")["job_id"]
    running.until_called(tag)
    return session["id"], job_id


def until_provider_closed(running: Deployment, tag: str, since: float) -> float:
    """Wait until the provider has lost us; return the seconds since."""

    def closed() -> dict[str, Any] | None:
        call = running.calls(tag)[0]
        return call if call["disconnected"] else None

    call = wait_until(closed, seconds=10, why="the provider's connection is closed")
    seconds: float = call["ended_at"][0] - since
    print(f"provider closed {seconds * 1000:.0f} ms after the cancel")
    return seconds


@pytest.mark.parametrize(
    ("phase", "script"),
    [
        ("waiting for headers", "hang=headers"),
        ("waiting for the first token", "hang=first"),
        ("streaming", "tokens=400,delay=0.02"),
        ("hanging in mid-stream", "hang=stream,after=5,tokens=10"),
    ],
)
def test_a_cancel_closes_the_provider_and_keeps_the_text(running: Deployment, phase: str, script: str) -> None:
    chat = running.chat()
    session_id, job_id = begin(running, chat, script, "stop")
    viewer = running.follow(chat, session_id, deltas=1)
    if "after" in script or "delay" in script:
        viewer.until_text(5 * len("stop.1 "))

    answer = chat.cancel(job_id)
    accepted = time.monotonic()

    assert answer.status_code == 202
    assert until_provider_closed(running, "stop", accepted) < CLOSED_WITHIN_SECONDS
    kept = viewer.until_action("cancelled")["message"]["content"]
    assert expected_text("stop", 400).startswith(kept)
    assert bool(kept) == ("after" in script or "delay" in script)
    assert chat.cancel(job_id).json()["status"] == "cancelled"


def test_a_cancel_while_redis_is_down_closes_the_provider_within_4_seconds(running: Deployment) -> None:
    chat = running.chat()
    _, job_id = begin(running, chat, "tokens=400,delay=0.03", "away")
    running.valkey.kill()

    asked = time.monotonic()
    chat.cancel(job_id)

    assert until_provider_closed(running, "away", asked) < WITHOUT_REDIS_SECONDS
    running.until_job(job_id, JobStatus.CANCELLED)


def test_a_cancel_while_redis_is_frozen_closes_the_provider_within_4_seconds(running: Deployment) -> None:
    chat = running.chat()
    _, job_id = begin(running, chat, "hang=stream,after=5", "froze")
    running.valkey.freeze()

    asked = time.monotonic()
    chat.cancel(job_id)

    assert until_provider_closed(running, "froze", asked) < WITHOUT_REDIS_SECONDS
    running.until_job(job_id, JobStatus.CANCELLED)


def test_a_queued_job_is_cancelled_in_the_request(running: Deployment) -> None:
    chat = running.chat()
    session_id, first = begin(running, chat, "tokens=30,delay=0.03", "queued")
    second = chat.ask(session_id, "And on.")["job_id"]

    answer = chat.cancel(second)

    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    running.until_job(first, JobStatus.SUCCEEDED)
    assert len(running.calls("queued")) == 1


def test_a_job_that_backs_off_is_cancelled_in_the_request_and_asks_no_more(running: Deployment) -> None:
    chat = running.chat()
    _, job_id = begin(running, chat, "fail=503,retry_after=1", "backoff")
    wait_until(lambda: running.job(job_id).retry_at, why="it backs off")

    answer = chat.cancel(job_id)

    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    session = chat.new_session("stub:fail=503,retry_after=1,times=1,tag=other")
    running.until_job(chat.ask(session["id"], "Meanwhile.")["job_id"], JobStatus.SUCCEEDED)
    assert len(running.calls("backoff")) == 1


def test_a_cancel_that_races_the_end_never_flips(running: Deployment) -> None:
    chat = running.chat()
    jobs = []
    for number in range(12):
        session = chat.new_session("stub:tokens=5,delay=0.03,tag=race")
        job_id = chat.ask(session["id"], "Go on.")["job_id"]
        running.until_called("race", times=number + 1)
        deadline = time.monotonic() + 0.10 + number * 0.006
        while time.monotonic() < deadline:
            chat.job(job_id)
        jobs.append((job_id, chat.cancel(job_id)))

    for job_id, answer in jobs:
        ended = running.until_job(job_id, JobStatus.SUCCEEDED, JobStatus.CANCELLED)
        accepted = answer.status_code == 202
        assert ended.status == (JobStatus.CANCELLED if accepted else answer.json()["status"])


def test_a_deleted_session_stops_its_reply_and_closes_its_viewers(running: Deployment) -> None:
    chat = running.chat()
    session_id, _ = begin(running, chat, "tokens=400,delay=0.03", "gone")
    viewer = chat.watch(session_id)

    chat.request("DELETE", f"/sessions/{session_id}")
    deleted = time.monotonic()

    assert until_provider_closed(running, "gone", deleted) < CLOSED_WITHIN_SECONDS
    assert viewer.until_closed(seconds=5) == 4404
    chat.request("GET", f"/sessions/{session_id}", status=404)


def test_a_session_deleted_while_redis_is_down_stops_its_reply_too(running: Deployment) -> None:
    chat = running.chat()
    session_id, _ = begin(running, chat, "hang=stream,after=3", "gone")
    viewer = chat.watch(session_id)
    running.valkey.kill()

    asked = time.monotonic()
    chat.request("DELETE", f"/sessions/{session_id}")

    assert until_provider_closed(running, "gone", asked) < WITHOUT_REDIS_SECONDS
    assert viewer.until_closed(seconds=5) == 4404


def test_a_removed_participant_is_cut_within_a_second_and_the_reply_goes_on(running: Deployment) -> None:
    alice, bob = running.chat(), running.chat("bob")
    session_id, job_id = begin(running, alice, "tokens=60,delay=0.03", "removed")
    alice.request("POST", f"/sessions/{session_id}/participants", json={"user_id": "bob", "role": "member"}, status=201)
    with bob.watch(session_id, deltas=1) as cut:
        cut.greeting()

        alice.request("DELETE", f"/sessions/{session_id}/participants/bob", status=204)
        removed = time.monotonic()

        assert cut.until_closed(seconds=5) == 4403
        assert time.monotonic() - removed < 1
    bob.request("GET", f"/sessions/{session_id}", status=404)
    running.until_job(job_id, JobStatus.SUCCEEDED)


def test_a_participant_removed_while_redis_is_down_is_cut_all_the_same(running: Deployment) -> None:
    alice, bob = running.chat(), running.chat("bob")
    session_id = alice.new_session("stub:tokens=3,tag=quiet")["id"]
    alice.request("POST", f"/sessions/{session_id}/participants", json={"user_id": "bob", "role": "member"}, status=201)
    with bob.watch(session_id) as cut:
        cut.greeting()
        running.valkey.kill()

        alice.request("DELETE", f"/sessions/{session_id}/participants/bob", status=204)
        removed = time.monotonic()

        assert cut.until_closed(seconds=10) == 4403
        assert time.monotonic() - removed < WITHOUT_REDIS_SECONDS


def test_a_message_edited_while_another_is_written_is_seen_by_all(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=60,delay=0.03,tag=edit")
    viewer = running.follow(chat, session["id"], deltas=1)
    note = chat.send(session["id"], "A note.")
    job = chat.ask(session["id"], "Go on.")
    viewer.until_text(10)

    chat.request("PUT", f"/messages/{note['id']}", json={"content": "Another note."})
    busy = chat.http.put(f"/messages/{job['assistant_message_id']}", json={"content": "Mine."})

    assert busy.status_code == 409
    viewer.until_job("succeeded")
    assert viewer.texts[note["id"]] == "Another note."


def test_an_interrupting_prompt_ends_the_running_reply_and_runs(running: Deployment) -> None:
    chat = running.chat()
    session_id, first = begin(running, chat, "tokens=60,delay=0.03", "interrupt")
    waiting = chat.ask(session_id, "And on.")["job_id"]

    last = chat.ask(session_id, "Rather this.", on_busy="interrupt")["job_id"]

    running.until_job(last, JobStatus.SUCCEEDED)
    assert [running.job(job).status for job in (first, waiting)] == [JobStatus.CANCELLED] * 2
    statuses = [m["status"] for m in chat.messages(session_id) if m["role"] == "assistant"]
    assert statuses == [MessageStatus.CANCELLED, MessageStatus.CANCELLED, MessageStatus.COMPLETE]
