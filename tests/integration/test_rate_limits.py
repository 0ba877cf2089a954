"""A flood hurts only the one who sends it."""

from __future__ import annotations

import json
import threading
import time
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import event
from werkzeug.test import TestResponse

from chat_backend.domain.enums import ParticipantRole
from chat_backend.domain.user import User
from chat_backend.web.auth import HELD_REFUSALS
from chat_backend.web.rate_limits import network
from chat_backend.web.websocket.connection import Connection
from chat_backend.web.websocket.dispatch import Dispatch
from tests.conftest import Launch
from tests.integration.conftest import MakeApp
from tests.support.chat import Chat
from tests.support.rest import Rest, fault
from tests.support.session_world import PaperOutbox, frames
from tests.support.tokens import KEY, bearer
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

LIMITED = (429, "RATE_LIMITED", None)


@pytest.fixture
def limited(make_app: MakeApp) -> MakeApp:
    """Make a web process with limits."""
    return make_app


def ask(client: Rest, times: int, path: str = "/sessions", **more: Any) -> list[TestResponse]:
    return [client.get(path, **more) for _ in range(times)]


def statuses(responses: list[TestResponse]) -> list[int]:
    return [response.status_code for response in responses]


def counted(valkey: Valkey) -> list[bytes]:
    with valkey.client() as redis:
        return list(redis.scan_iter("chat:rate:*"))


def scripts_run(valkey: Valkey) -> int:
    with valkey.client() as redis:
        stats: Any = redis.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


def test_who_asks_too_often_is_told_when_to_come_back(limited: MakeApp) -> None:
    ann = Rest(limited(RATE_LIMIT_PER_USER="3"))

    responses = ask(ann, 4)

    assert statuses(responses) == [200, 200, 200, 429]
    assert fault(responses[3]) == LIMITED
    assert 1 <= int(responses[3].headers["Retry-After"]) <= 20
    assert responses[3].get_json()["details"]["retry_after_seconds"] == int(responses[3].headers["Retry-After"])


def test_one_users_flood_is_not_anothers(limited: MakeApp) -> None:
    ann = Rest(limited(RATE_LIMIT_PER_USER="3"))
    ask(ann, 10)

    others = ask(ann.of("bob"), 3)

    assert statuses(others) == [200, 200, 200]


def test_what_is_refused_for_its_user_does_not_use_up_what_the_address_may(limited: MakeApp) -> None:
    ann = Rest(limited(RATE_LIMIT_PER_USER="3", RATE_LIMIT_PER_ADDRESS="6"))
    ask(ann, 20)

    others = ask(ann.of("bob"), 3)

    assert statuses(others) == [200, 200, 200]


def test_all_users_of_one_address_share_its_limit(limited: MakeApp) -> None:
    app = limited(RATE_LIMIT_PER_ADDRESS="3")
    for user in ("ann", "bob", "cat"):
        ask(Rest(app, user), 1)

    here = Rest(app, "dan").get("/sessions")
    elsewhere = Rest(app, "dan").get("/sessions", environ_overrides={"REMOTE_ADDR": "192.0.2.7"})

    assert fault(here) == LIMITED
    assert elsewhere.status_code == 200


@pytest.mark.parametrize("address", ["203.0.113.9:{port}", "[2001:db8::9]:{port}"])
def test_a_proxy_may_forward_addresses_with_ports(limited: MakeApp, address: str) -> None:
    app = limited(RATE_LIMIT_PER_ADDRESS="3", TRUSTED_PROXIES="1")

    responses = [
        Rest(app).get("/sessions", headers={"X-Forwarded-For": address.format(port=port)})
        for port in range(40000, 40004)
    ]
    elsewhere = Rest(app).get("/sessions", headers={"X-Forwarded-For": "203.0.113.10:40000"})

    assert statuses(responses) == [200, 200, 200, 429]
    assert elsewhere.status_code == 200


def test_who_can_not_say_who_they_are_is_counted_by_their_address(limited: MakeApp) -> None:
    nobody = Rest(limited(AUTH_MODE="jwt", JWT_SECRET=KEY, RATE_LIMIT_PER_ADDRESS="3"), None)

    responses = ask(nobody, 4, headers={"Authorization": "Bearer x.y.z"})

    assert statuses(responses) == [401, 401, 401, 429]


@pytest.mark.parametrize("path", ["/openapi.json", "/nothing", "/asyncapi.json"])
def test_what_anyone_may_ask_is_counted_by_address_too(limited: MakeApp, path: str) -> None:
    nobody = Rest(limited(RATE_LIMIT_PER_ADDRESS="3"), None)

    responses = ask(nobody, 4, path)

    assert statuses(responses)[3] == 429
    assert 429 not in statuses(responses)[:3]


def test_what_browsers_ask_before_a_request_is_counted_by_address(limited: MakeApp) -> None:
    nobody = Rest(limited(RATE_LIMIT_PER_ADDRESS="3"), None)

    responses = [
        nobody.ask("OPTIONS", path)
        for path in ("/sessions", "/sessions/x/websocket", "/nothing", "/health", "/sessions")
    ]

    assert [code == 429 for code in statuses(responses)] == [False, False, False, False, True]


def test_health_always_answers(limited: MakeApp) -> None:
    nobody = Rest(limited(RATE_LIMIT_PER_ADDRESS="1"), None)

    responses = ask(nobody, 5, "/health")

    assert statuses(responses) == [200] * 5


def test_web_processes_count_together(limited: MakeApp) -> None:
    first, second = (Rest(limited(RATE_LIMIT_PER_USER="4")) for _ in range(2))

    responses = [*ask(first, 2), *ask(second, 3)]

    assert statuses(responses) == [200, 200, 200, 200, 429]


def test_in_jwt_mode_there_are_limits_without_any_setting_at_one_question_to_redis_a_request(
    limited: MakeApp, valkey: Valkey
) -> None:
    app = limited(AUTH_MODE="jwt", JWT_SECRET=KEY)
    ask(Rest(app, None), 1, headers=bearer("ann"))
    before = scripts_run(valkey)

    ask(Rest(app, None), 5, headers=bearer("ann"))

    assert scripts_run(valkey) - before == 5


def test_in_dev_mode_nothing_is_counted_unless_it_is_set(limited: MakeApp, valkey: Valkey) -> None:
    ann = Rest(limited())
    before = scripts_run(valkey)

    ann.say(ann.new_session(), process=True)

    assert scripts_run(valkey) == before


def test_what_is_counted_is_forgotten_by_itself_and_names_nobody(limited: MakeApp, valkey: Valkey) -> None:
    ask(Rest(limited(RATE_LIMIT_PER_USER="3"), "somebody"), 3)

    with valkey.client() as redis:
        (key,) = counted(valkey)
        left = redis.pttl(key)

    assert 0 < left <= 60_000
    assert b"somebody" not in key


@pytest.mark.parametrize("rubbish", ["inf", "-inf", "nan", "rubbish", "", "1e300", "-1e300", b"\xff", None])
def test_what_somebody_else_wrote_keeps_nobody_out_and_is_written_over(
    limited: MakeApp, valkey: Valkey, rubbish: str | bytes | None
) -> None:
    ann = Rest(limited(RATE_LIMIT_PER_USER="2", RATE_LIMIT_PER_ADDRESS="2"))
    ask(ann, 1)
    with valkey.client() as redis:
        for key in counted(valkey):
            redis.delete(key)
            if rubbish is None:
                redis.rpush(key, "another kind of value")
            else:
                redis.set(key, rubbish)

    responses = ask(ann, 3)

    assert statuses(responses) == [200, 200, 429]
    assert 1 <= int(responses[2].headers["Retry-After"]) <= 30


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_while_redis_is_away_each_process_counts_by_itself(limited: MakeApp, valkey: Valkey, how: str) -> None:
    ann = Rest(limited(RATE_LIMIT_PER_USER="4", RATE_LIMIT_PER_ADDRESS="6"))
    ask(ann, 1)
    valkey.kill() if how == "killed" else valkey.freeze()

    mine, others = ask(ann, 6), ask(ann.of("bob"), 3)

    assert statuses(mine) == [200] * 4 + [429] * 2
    assert statuses(others) == [200, 200, 429]
    assert "Retry-After" in mine[4].headers


def test_a_frozen_redis_is_asked_by_one_request_at_a_time_at_most(limited: MakeApp, valkey: Valkey) -> None:
    app = limited(RATE_LIMIT_PER_USER="1000")
    ask(Rest(app), 1)
    valkey.freeze()

    responses = ask(Rest(app), 300)

    # A fifth of a second each, had they all asked: more than this test has.
    assert statuses(responses) == [200] * 300


def test_while_redis_is_away_each_process_counts_what_models_are_asked(limited: MakeApp, valkey: Valkey) -> None:
    ann = Rest(limited(RATE_LIMIT_ASKS_PER_USER="2"))
    session_id = ann.new_session()
    valkey.kill()

    responses = [ann.post(f"/sessions/{session_id}/messages", {"content": "x", "process": True}) for _ in range(3)]

    assert statuses(responses) == [201, 201, 429]
    assert ann.say(session_id)["content"] == "Hello"


def test_replies_are_counted_however_they_are_asked_for(limited: MakeApp, valkey: Valkey) -> None:
    ann = Rest(limited(RATE_LIMIT_ASKS_PER_USER="3"))
    session_id = ann.new_session()
    message = ann.say(session_id, process=True)
    reply_id = message["job"]["assistant_message_id"]

    responses = [
        ann.post(f"/sessions/{session_id}/process-llm", {"prompt": "x", "stream": True}),
        ann.post(f"/messages/{reply_id}/regenerate", {"stream": True}),
        ann.post(f"/sessions/{session_id}/process-llm", {"prompt": "y", "stream": True}),
        ann.post(f"/sessions/{session_id}/messages", {"content": "z", "process": True}),
        ann.post(f"/sessions/{session_id}/messages", {"content": "no reply asked for"}),
    ]

    assert statuses(responses) == [202, 409, 429, 429, 201]
    assert [one["content"] for one in ann.get(f"/sessions/{session_id}/messages").get_json()["messages"]] == [
        *("Hello", "", "x", "", "no reply asked for")
    ]


def test_a_socket_shares_the_limit_of_what_is_asked(launch: Launch, environment: dict[str, str]) -> None:
    web = launch("web", RATE_LIMIT_ASKS_PER_USER="2", RATE_LIMIT_PER_USER="100")
    with Chat(web.url) as chat:
        session = chat.new_session()
        chat.send(session["id"], "one", process=True)
        with chat.watch(session["id"]) as viewer:
            viewer.greeting()
            for name in ("two", "three"):
                viewer.say("send_message", content=name, request_id=name)
            refused = viewer.until_type("error")
            viewer.say("send_message", content="four", process=False)
            stored = viewer.until(lambda frame: frame.get("message", {}).get("content") == "four")

    assert (refused["error_code"], refused["request_id"]) == ("RATE_LIMITED", "three")
    assert refused["details"]["retry_after_seconds"] > 0
    assert stored["action"] == "new_message"


@pytest.mark.parametrize(
    "frame",
    [{"type": "send_message", "content": "x", "process": False}, {"type": "cancel", "job_id": str(UUID(int=0))}],
    ids=["send_message", "cancel"],
)
def test_what_is_written_over_a_socket_counts_as_a_request(limited: MakeApp, frame: dict[str, Any]) -> None:
    app = limited(RATE_LIMIT_PER_USER="3")
    session_id = Rest(app).new_session()
    outbox = PaperOutbox()
    connection = Connection(UUID(session_id), User("ann"), outbox, role=ParticipantRole.OWNER)
    dispatch = Dispatch(app.extensions["chat_hub"], connection, app.extensions["rate_limits"])

    for number in range(3):
        dispatch(json.dumps(frame | {"request_id": str(number)}))
    refused = frames(outbox)[-1]

    assert (refused["error_code"], refused["request_id"]) == ("RATE_LIMITED", "2")
    assert [said["error_code"] for said in frames(outbox)].count("RATE_LIMITED") == 1
    assert ask(Rest(app), 1)[0].status_code == 429


def test_who_opens_streams_too_often_is_refused_and_may_come_back(limited: MakeApp) -> None:
    ann = Rest(limited(RATE_LIMIT_PER_USER="3"))
    session_id = ann.new_session()

    responses = [ann.ask("HEAD", f"/sessions/{session_id}/events") for _ in range(3)]

    assert statuses(responses) == [200, 200, 429]
    assert "Retry-After" in responses[2].headers


UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket"}


@pytest.mark.parametrize(
    ("path", "headers", "refused"),
    [
        ("/sessions/nonsense/events", {}, 404),
        ("/sessions/019a0000-0000-7000-8000-000000000000/websocket", UPGRADE, 400),
        ("/sessions/nonsense/websocket", UPGRADE | {"Origin": "https://evil.example"}, 403),
    ],
    ids=["no id", "no handshake", "foreign page"],
)
def test_streams_that_are_refused_before_anybody_asks_who_is_there_are_counted_by_address(
    limited: MakeApp, path: str, headers: dict[str, str], refused: int
) -> None:
    nobody = Rest(limited(RATE_LIMIT_PER_ADDRESS="3"), None)

    responses = ask(nobody, 4, path, headers=headers)

    assert statuses(responses) == [refused] * 3 + [429]


def test_over_the_rate_of_its_address_a_ticket_is_not_even_looked_up(limited: MakeApp) -> None:
    nobody = Rest(limited(RATE_LIMIT_PER_ADDRESS="3"), None)
    path = "/sessions/019a0000-0000-7000-8000-000000000000/events?ticket=wrong"
    first = ask(nobody, 3, path)
    statements: list[str] = []
    engine = nobody.app.extensions["backend"].engine
    event.listen(engine, "before_cursor_execute", lambda *about: statements.append(about[2]))

    refused = ask(nobody, 3, path)

    assert statuses(first) == [401] * 3
    assert statuses(refused) == [429] * 3
    assert statements == []


def test_who_comes_by_ticket_is_counted_too(limited: MakeApp) -> None:
    ann = Rest(limited(RATE_LIMIT_PER_USER="5"))
    session_id = ann.new_session()
    tickets = [ann.made(f"/sessions/{session_id}/ws-ticket")["ticket"] for _ in range(3)]

    responses = [ann.of(None).ask("HEAD", f"/sessions/{session_id}/events?ticket={ticket}") for ticket in tickets]

    assert statuses(responses) == [200, 429, 429]


def test_a_forwarded_address_counts_only_behind_proxies_that_are_trusted(limited: MakeApp) -> None:
    def from_ten(app: Flask) -> list[int]:
        asked = [Rest(app).get("/sessions", headers={"X-Forwarded-For": f"192.0.2.{n}"}) for n in range(5)]
        return statuses(asked)

    believed = from_ten(limited(RATE_LIMIT_PER_ADDRESS="2", TRUSTED_PROXIES="1"))
    ignored = from_ten(limited(RATE_LIMIT_PER_ADDRESS="2"))

    assert believed == [200] * 5
    assert ignored == [200, 200, 429, 429, 429]


def test_an_operator_is_told_of_a_proxy_that_is_not_counted(limited: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app = limited(RATE_LIMIT_PER_ADDRESS="10")

    ask(Rest(app), 3, headers={"X-Forwarded-For": "192.0.2.1"})

    assert [record.levelname for record in caplog.records if "TRUSTED_PROXIES" in record.message] == ["WARNING"]


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("192.0.2.7:4711", "192.0.2.7"),
        ("[2001:db8:1:2::1]:4711", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::1]", "2001:db8:1:2::/64"),
        ("[::ffff:192.0.2.7]:1", "192.0.2.7"),
        ("192.0.2.7:", None),
        ("", None),
        (None, None),
        ("unix", None),
    ],
)
def test_of_ipv6_the_network_is_counted(address: str | None, counted_as: str | None) -> None:
    assert network(address) == counted_as


def test_fifty_at_once_get_exactly_the_limit(limited: MakeApp) -> None:
    app = limited(RATE_LIMIT_PER_USER="20")
    Rest(app).of("warm").get("/sessions")
    found: list[int] = []

    def one() -> None:
        found.append(Rest(app).get("/sessions").status_code)

    threads = [threading.Thread(target=one) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(found) == [200] * 20 + [429] * 30


@pytest.mark.parametrize("path", ["/sessions", "/sessions/1", "/sessions?page=0", "/jobs/1"])
def test_a_turn_ends_with_its_request_however_that_ends(limited: MakeApp, path: str) -> None:
    app = limited(MAX_REQUESTS_AT_ONCE="1")

    ask(Rest(app), 3, path)

    assert app.extensions["turns"].people("ann") == 0


def test_one_user_who_waits_leaves_places_for_others(limited: MakeApp) -> None:
    app = limited(AUTH_MODE="jwt", JWT_SECRET=KEY, MAX_WAITING_REQUESTS="8")
    waiting = app.extensions["chat_waiting"]

    taken = [waiting._take_place("ann") for _ in range(3)]
    others = [waiting._take_place(user) for user in ("bob", "bob", "cat", "cat", "dan", "dan", "eve")]
    waiting._give_back("ann")

    assert taken == [True, True, False]
    assert others == [True] * 6 + [False]
    assert waiting._take_place("eve")


def test_refusals_are_slow_while_few_are_held_and_beyond_that_at_once(limited: MakeApp) -> None:
    app = limited(RATE_LIMIT_PER_USER="1", REFUSED_SECONDS="5")
    ask(Rest(app), 1)
    held = app.extensions["held_refusals"]
    found: list[int] = []
    slow = threading.Thread(target=lambda: found.extend(statuses(ask(Rest(app), 1))))
    slow.start()
    wait_until(lambda: held._value == HELD_REFUSALS - 1, why="one refusal is held")
    places = [held.acquire(blocking=False) for _ in range(HELD_REFUSALS - 1)]

    began = time.monotonic()
    at_once = ask(Rest(app), 3)
    seconds = time.monotonic() - began
    slow.join()

    assert all(places)
    assert statuses(at_once) + found == [429] * 4
    assert seconds < 2


def test_a_stream_is_opened_in_turn_and_holds_none_once_it_is_open(limited: MakeApp) -> None:
    app = limited(MAX_REQUESTS_AT_ONCE="1")
    session_id, turns, found = Rest(app).new_session(), app.extensions["turns"], []
    end_other = turns.take("ann")
    opening = threading.Thread(
        target=lambda: found.append(Rest(app).get(f"/sessions/{session_id}/events", buffered=False))
    )
    opening.start()
    wait_until(lambda: turns.people("ann") == 2, why="the stream waits for its turn")

    end_other()
    opening.join(5)

    (stream,) = found
    assert stream.status_code == 200
    assert turns.people("ann") == 0
    stream.close()


def test_who_waits_for_a_reply_lets_their_other_requests_pass(limited: MakeApp) -> None:
    ann = Rest(limited(MAX_REQUESTS_AT_ONCE="1"))
    session_id = ann.new_session()
    asked = threading.Thread(
        target=lambda: ann.of("ann").post(f"/sessions/{session_id}/process-llm", {"prompt": "x"}, prefer="wait=20")
    )
    asked.start()

    def job() -> str | None:
        messages = ann.get(f"/sessions/{session_id}/messages").get_json()["messages"]
        return messages[1]["job_id"] if len(messages) == 2 else None

    job_id = wait_until(job, why="the request waits for its reply")
    ann.post(f"/jobs/{job_id}/cancel")
    asked.join(15)

    assert not asked.is_alive()


def test_requests_of_one_user_beside_each_other_are_all_answered(limited: MakeApp) -> None:
    app, found = limited(MAX_REQUESTS_AT_ONCE="2"), []
    threads = [threading.Thread(target=lambda: found.append(Rest(app).get("/sessions"))) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses(found) == [200] * 50
