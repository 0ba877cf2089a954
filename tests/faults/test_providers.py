"""Providers that break: what is stored, what viewers see, and how often was asked. The mapping of every single
fault to an error is tested in tests/integration/test_providers.py."""

from __future__ import annotations

from chat_backend.domain.enums import JobStatus, Outcome
from tests.support.deployment import Deployment
from tests.support.provider_stub import expected_text
from tests.support.waiting import wait_until

TRANSIENT = [
    "fail=429,retry_after=1", "fail=500", "fail=503", "drop", "cut=5", "reset=5", "eof=5", "error_event=5", "garbage",
    "fail=502", "hang=headers", "hang=first", "drip=0.1", "hang=stream,after=5", "malformed=5", "gzip",
    "giant=3000000", "whole_error",
]  # fmt: skip
HOPELESS = ["fail=400", "fail=401", "fail=402", "fail=403", "fail=404"]
ODD = [
    "nul",
    "unicode",
    "bad_utf8",
    "bytes=3",
    "eol=crlf",
    "eol=cr",
    "drip=0.0005",
    "close",
    "server=ollama",
    "server=llamacpp",
    "whole",
]


def test_a_broken_answer_is_asked_for_again_and_ends_whole(running: Deployment) -> None:
    chat = running.chat()
    sessions = [
        chat.new_session(f"stub:{fault},times=1,tokens=20,delay=0.01,tag=again{n}") for n, fault in enumerate(TRANSIENT)
    ]
    viewers = [running.follow(chat, session["id"], deltas=1) for session in sessions]

    jobs = [chat.ask(session["id"], "Go on.")["job_id"] for session in sessions]

    for number, (fault, viewer, job_id) in enumerate(zip(TRANSIENT, viewers, jobs, strict=True)):
        final = viewer.until_action("completed")["message"]
        viewer.until_job("succeeded")
        outcomes = [attempt.outcome for attempt in running.job(job_id).attempts]
        assert (fault, final["content"]) == (fault, expected_text(f"again{number}", 20))
        # A kept connection that is dropped before an answer is replaced within the attempt.
        failures = [] if fault == "drop" and len(outcomes) == 1 else [Outcome.FAILED]
        assert (fault, outcomes) == (fault, [*failures, Outcome.SUCCEEDED])
        assert (fault, len(running.calls(f"again{number},")), final["attempt"]) == (fault, 2, len(outcomes))


def test_a_broken_answer_that_stays_broken_is_stored_as_failed_with_the_text_it_had(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:cut=5,tokens=20,tag=broken")
    viewer = running.follow(chat, session["id"], deltas=1)

    job = chat.ask(session["id"], "Go on.")

    failed = viewer.until_action("failed")["message"]
    viewer.until_job("failed")
    assert failed["content"] == expected_text("broken", 5)
    assert failed["error_message"]
    assert [attempt.outcome for attempt in running.job(job["job_id"]).attempts] == [Outcome.FAILED] * 3
    assert len(running.calls("broken")) == 3


def test_a_reply_without_end_is_cut_marked_and_not_asked_again(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:tokens=400000,burst=200,tag=endless")
    viewer = running.follow(chat, session["id"], deltas=1)

    job = chat.ask(session["id"], "Go on.")

    failed = viewer.until_action("failed", seconds=30)["message"]
    viewer.until_job("failed")
    assert running.job(job["job_id"]).error_code == "REPLY_TOO_LONG"
    assert len(failed["content"]) == 200_000
    assert len(running.calls("endless")) == 1


def test_what_is_hopeless_is_asked_once_and_the_next_of_the_chain_answers(running: Deployment) -> None:
    chat = running.chat()
    sessions = [
        chat.new_session(f"stub:{fault},tag=no{n}", settings={"fallbacks": [f"LOCAL:stub:tokens=5,tag=yes{n}"]})
        for n, fault in enumerate(HOPELESS)
    ]

    jobs = [chat.ask(session["id"], "Go on.")["job_id"] for session in sessions]

    for number, job_id in enumerate(jobs):
        running.until_job(job_id, JobStatus.SUCCEEDED)
        assert [len(running.calls(f"{word}{number}")) for word in ("no", "yes")] == [1, 1]


def test_an_hour_of_retry_after_counts_as_used_up(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:fail=429,retry_after=3600,tag=hour")

    job = chat.ask(session["id"], "Go on.")

    ended = running.until_job(job["job_id"], JobStatus.FAILED)
    assert (ended.error_code, len(running.calls("hour"))) == ("PROVIDER_RATE_LIMITED", 1)


def test_retry_after_is_waited_for_as_seconds_and_as_a_date(running: Deployment) -> None:
    chat = running.chat()
    waits = {"1.5": 1.5, "date:3": 2.0}  # a date knows whole seconds only
    sessions = [
        chat.new_session(f"stub:fail=429,retry_after={wait},times=1,tokens=2,tag=wait{n}")
        for n, wait in enumerate(waits)
    ]

    jobs = [chat.ask(session["id"], "Go on.")["job_id"] for session in sessions]

    for number, (job_id, seconds) in enumerate(zip(jobs, waits.values(), strict=True)):
        running.until_job(job_id, JobStatus.SUCCEEDED)
        first, second = (call["received_at"][0] for call in running.calls(f"wait{number}"))
        assert seconds <= second - first < seconds + 5


def test_a_fallback_of_the_session_is_asked_at_once_and_everybody_sees_it(running: Deployment) -> None:
    chat = running.chat()
    other = "stub:tokens=5,tag=other"
    session = chat.new_session("stub:fail=429,retry_after=61,tag=busy", settings={"fallbacks": [f"LOCAL:{other}"]})
    viewer = running.follow(chat, session["id"])

    chat.ask(session["id"], "Go on.")

    final = viewer.until_action("completed")["message"]
    job = viewer.until_job("succeeded")["job"]
    assert (final["llm_provider"], final["llm_model"]) == ("LOCAL", other)
    assert [attempt["model"] for attempt in job["attempts"]] == ["stub:fail=429,retry_after=61,tag=busy", other]
    assert [attempt["http_status"] for attempt in job["attempts"]] == [429, 200]
    shown = [frame["job"] for frame in viewer.viewer.frames if frame["type"] == "job_update"]
    assert [(job["status"], job["attempt"]) for job in shown] == [
        ("queued", 0),
        ("running", 1),
        ("queued", 1),
        ("running", 2),
        ("succeeded", 2),
    ]


def test_a_fallback_of_the_deployment_stands_in_where_a_session_names_none(running: Deployment) -> None:
    running.start("web", LLM_FALLBACKS="LOCAL:stub:tokens=3,LOCAL:stub:tokens=4")
    chat = running.chat(web=1)
    plain = chat.new_session("stub:fail=400,tag=first")
    own = chat.new_session("stub:fail=400,tag=second", settings={"fallbacks": []})

    jobs = [chat.ask(session["id"], "Go on.")["job_id"] for session in (plain, own)]

    ended = [running.until_job(job_id, JobStatus.SUCCEEDED, JobStatus.FAILED) for job_id in jobs]
    assert [job.status for job in ended] == [JobStatus.SUCCEEDED, JobStatus.FAILED]
    assert chat.messages(plain["id"])[-1]["llm_model"] == "stub:tokens=3"


def test_a_break_in_mid_stream_empties_the_text_and_says_so(running: Deployment) -> None:
    chat = running.chat()
    session = chat.new_session("stub:cut=5,times=1,tokens=20,delay=0.05,tag=anew")
    viewer = running.follow(chat, session["id"], deltas=1)

    chat.ask(session["id"], "Go on.")

    restarted = viewer.until_action("restarted")["message"]
    final = viewer.until_action("completed")["message"]
    viewer.until_job("succeeded")
    assert (restarted["content"], restarted["attempt"], restarted["status"]) == ("", 2, "streaming")
    assert final["content"] == expected_text("anew", 20)


def test_of_all_workers_one_sends_the_probe_after_a_circuit_has_opened(running: Deployment) -> None:
    running.ensure(workers=0)
    for _ in range(2):
        running.start("worker", BREAKER_OPEN_SECONDS="3")
    chat = running.chat()
    failures = running.settings.breaker_failures
    model = f"stub:fail=500,times={failures},first=0.7,tokens=3,tag=probe"
    running.until_job(chat.ask(chat.new_session(model)["id"], "Go on.")["job_id"], JobStatus.FAILED)
    chat.ask(chat.new_session(model)["id"], "Go on.")

    wait_until(lambda: breaker(running) == "open", why="the circuit has opened")

    waiting = [chat.ask(chat.new_session(model)["id"], "Go on.")["job_id"] for _ in range(5)]

    for job_id in waiting:
        running.until_job(job_id, JobStatus.SUCCEEDED)
    running.ensure(workers=0)
    calls = running.calls("probe")
    probe, later = calls[failures], calls[failures + 1 :]
    assert [call["status"] for call in calls] == [500] * failures + [None] * len(calls[failures:])
    assert all(call["received_at"][0] >= probe["ended_at"][0] for call in later)
    assert probe["received_at"][0] - calls[failures - 1]["ended_at"][0] > 2.9


def test_odd_but_whole_answers_are_stored_as_they_were_sent(running: Deployment) -> None:
    chat = running.chat()
    sessions = [chat.new_session(f"stub:{odd},tokens=20,tag=odd{n}") for n, odd in enumerate(ODD)]

    replies = [chat.ask(session["id"], "Go on.") for session in sessions]

    for number, (odd, asked) in enumerate(zip(ODD, replies, strict=True)):
        running.until_job(asked["job_id"], JobStatus.SUCCEEDED)
        text = chat.messages(sessions[number]["id"])[-1]["content"]
        assert (odd, text.endswith(expected_text(f"odd{number}", 20))) == (odd, True)
        assert "\0" not in text


def open_circuit(running: Deployment, model: str) -> None:
    """Have a model fail until it is left alone; other circuits are forgotten."""
    running.valkey.flush()
    chat = running.chat()
    # One after the other: an answer to what was asked before the circuit opened would close it again.
    running.until_job(chat.ask(chat.new_session(model)["id"], "Go on.")["job_id"], JobStatus.FAILED)
    job_id = chat.ask(chat.new_session(model)["id"], "Go on.")["job_id"]
    wait_until(lambda: breaker(running) == "open", why="the circuit has opened")
    chat.cancel(job_id)


def breaker(running: Deployment) -> str:
    health = running.chat().request("GET", "/health")
    state: str = health["checks"]["providers"]["LOCAL"]["breaker"]
    return state


def test_a_model_that_is_left_alone_is_passed_over_for_the_fallback_and_everybody_sees_it(running: Deployment) -> None:
    running.ensure(workers=0)
    running.start("worker", BREAKER_OPEN_SECONDS="60")
    open_circuit(running, "stub:fail=500,tag=alone")
    asked, chat, other = len(running.calls("alone")), running.chat(), "stub:tokens=5,tag=instead"
    session = chat.new_session("stub:fail=500,tag=alone", settings={"fallbacks": [f"LOCAL:{other}"]})
    viewer = running.follow(chat, session["id"])

    chat.ask(session["id"], "Go on.")

    final = viewer.until_action("completed")["message"]
    job = viewer.until_job("succeeded")["job"]
    shown = [frame["job"] for frame in viewer.viewer.frames if frame["type"] == "job_update"]
    running.ensure(workers=0)
    assert (final["llm_model"], [attempt["model"] for attempt in job["attempts"]]) == (other, [other])
    assert [(each["status"], each["attempt"]) for each in shown] == [
        ("queued", 0),
        ("queued", 0),
        ("running", 1),
        ("succeeded", 1),
    ]
    assert len(running.calls("alone")) == asked


def test_a_probe_that_answers_lets_the_others_ask_before_it_has_ended(running: Deployment) -> None:
    running.ensure(workers=0)
    running.start("worker", BREAKER_OPEN_SECONDS="3")
    failures, chat = running.settings.breaker_failures, running.chat()
    model = f"stub:fail=500,times={failures},tokens=300,delay=0.05,tag=long"
    open_circuit(running, model)

    jobs = [chat.ask(chat.new_session(model)["id"], "Go on.")["job_id"] for _ in range(3)]
    wait_until(lambda: len(running.calls("long")) >= failures + 3, why="all of them are being answered")

    answered = running.calls("long")[failures:]
    for job_id in jobs:
        chat.cancel(job_id)
    assert [call["finished"] for call in answered] == [False] * 3
    assert breaker(running) == "closed"


def test_a_probe_that_is_turned_down_says_that_the_provider_is_well(running: Deployment) -> None:
    running.ensure(workers=0)
    running.start("worker", BREAKER_OPEN_SECONDS="3")
    failures, chat = running.settings.breaker_failures, running.chat()
    model = f"stub:fail=500,times={failures},tokens=3,tag=well"
    open_circuit(running, model)

    job_id = chat.ask(chat.new_session(model)["id"], "Go on. stub:fail=400")["job_id"]

    running.until_job(job_id, JobStatus.FAILED)
    wait_until(lambda: breaker(running) == "closed", why="the circuit is closed")
