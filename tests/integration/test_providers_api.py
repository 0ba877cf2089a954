"""The catalogue of providers as a web process gives it, without a worker."""

from __future__ import annotations

import pytest
from flask import Flask

from chat_backend.config import Settings
from chat_backend.realtime.breaker_state import SharedCircuits, circuit_of
from chat_backend.realtime.channels import WANTED_MODELS, models_key
from chat_backend.realtime.model_lists import ModelList, ModelLists
from chat_backend.web.app import create_app
from tests.support.pretend_worker import PretendWorker
from tests.support.rest import Rest, fault
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

_LIST = '{"models": [%s], "fetched_at": 1, "error_code": null, "error_message": %s}'
GARBAGE = (
    *("oops", "[1]", '{"models": [1]}', '{"colour": "red"}', '{"models": null}', '{"models": [], "colour": "red"}'),
    *(_LIST % ('"\\ud800"', "null"), _LIST % ("", '"\\udfff"'), _LIST % ('"m",' * 100_000 + '"m"', "null")),
    *("[" * 100_000, '{"models":' * 50_000, b"\xff\xfe", "9" * 5_000, '{"models": [], "fetched_at": NaN}'),
    *(
        '{"models": [], "error_code": "NO_SUCH"}',
        '{"models": [], "fetched_at": true}',
        '{"models": [], "fetched_at": -1}',
    ),
    *('{"models": [], "fetched_at": "now"}', '{"models": [], "fetched_at": 1e300}', '{"models": [], "error_code": 1}'),
)
NOBODY = "No worker could ask the provider for its models just now."


def test_every_provider_is_listed_as_it_is(rest: Rest, worker: PretendWorker, valkey: Valkey) -> None:
    with valkey.client() as client:
        circuits = SharedCircuits(client, failures=2, open_seconds=60)
        for job in ("job-1", "job-2"):
            circuits.failed(circuit_of("LOCAL", "tiny"), "ann", job)

    listed = rest.get("/providers").get_json()["providers"]

    unknown = {"default_model": None, "time_to_first_token_ms": None, "last_answer_at": None}
    assert listed == [
        {"name": "LOCAL", "configured": True, "status": "degraded", "breaker": "open", **unknown},
        {"name": "OPENROUTER", "configured": False, "status": "not_configured", "breaker": "closed", **unknown},
        {"name": "OPENAI", "configured": False, "status": "not_configured", "breaker": "closed", **unknown},
    ]


def test_the_latency_is_the_median_of_the_newest_answers(rest: Rest, worker: PretendWorker) -> None:
    session_id = rest.new_session()
    for milliseconds in (900, 100, 300):
        worker.answer(rest.say(session_id, process=True)["job"]["id"], time_to_first_token_ms=milliseconds)

    local = rest.get("/providers").get_json()["providers"][0]

    assert local["time_to_first_token_ms"] == 300
    assert local["last_answer_at"].endswith("Z")


def test_without_redis_the_providers_are_listed_all_the_same(sqlite_rest: Rest, valkey: Valkey) -> None:
    valkey.kill()

    listed = sqlite_rest.get("/providers").get_json()["providers"]
    models = sqlite_rest.get("/providers/LOCAL/models").get_json()

    assert (listed[0]["status"], listed[0]["breaker"]) == ("unknown", "unknown")
    assert (models["models"], models["stale"], models["error_code"]) == ([], True, "MODELS_UNKNOWN")


def test_without_a_worker_nobody_can_tell_the_models(sqlite_rest: Rest) -> None:
    answer = sqlite_rest.get("/providers/LOCAL/models")

    assert answer.status_code == 200
    assert answer.get_json() == {
        "provider": "LOCAL",
        "models": [],
        "fetched_at": None,
        "stale": True,
        "error_code": "MODELS_UNKNOWN",
        "error_message": NOBODY,
    }


def test_without_a_worker_the_models_known_last_are_told_as_stale(sqlite_rest: Rest, valkey: Valkey) -> None:
    with valkey.client() as client:
        lists = ModelLists(client)
        lists.bring("LOCAL", ModelList(("tiny", "big"), 1_700_000_000.0), fresh_seconds=60)
        fresh = sqlite_rest.get("/providers/LOCAL/models").get_json()
        client.delete(models_key("LOCAL", "fresh"))

    stale = sqlite_rest.get("/providers/LOCAL/models").get_json()

    assert (fresh["models"], fresh["stale"]) == ([{"id": "tiny"}, {"id": "big"}], False)
    assert stale["fetched_at"] == "2023-11-14T22:13:20.000000Z"
    assert (stale["models"], stale["stale"], stale["error_message"]) == (fresh["models"], True, NOBODY)


def test_what_somebody_else_wrote_into_redis_is_no_list(sqlite_rest: Rest, valkey: Valkey) -> None:
    answers = []
    for garbage in GARBAGE:
        with valkey.client() as client:
            client.set(models_key("LOCAL"), garbage)
        listed, models = sqlite_rest.get("/providers"), sqlite_rest.get("/providers/LOCAL/models")
        answers.append((listed.status_code, models.status_code, models.get_json()["models"]))

    assert answers == [(200, 200, [])] * len(GARBAGE)


def test_what_somebody_else_wrote_into_redis_keeps_no_worker_from_bringing_a_list(valkey: Valkey) -> None:
    with valkey.client() as client:
        lists, garbage = ModelLists(client), models_key("LOCAL")
        lists.bring("LOCAL", ModelList(("tiny",), 1.0), fresh_seconds=60)
        may = [lists.may_bring("LOCAL")]
        client.rpush("another", "kind of value")
        client.rename("another", garbage)
        client.set(models_key("LOCAL", "bringing"), "for ever")
        may += [lists.may_bring("LOCAL"), lists.may_bring("LOCAL")]
        lists.bring("LOCAL", ModelList(("tiny",), 1.0), fresh_seconds=60)
        client.persist(models_key("LOCAL", "fresh"))
        read = lists.read("LOCAL")

    assert may == [False, True, False]
    assert read == (ModelList(("tiny",), 1.0), False)


def test_who_is_not_configured_has_no_models_and_who_is_not_known_is_not_found(sqlite_rest: Rest) -> None:
    known, unknown = sqlite_rest.get("/providers/OPENAI/models"), sqlite_rest.get("/providers/openai/models")

    assert (known.status_code, known.get_json()["error_code"]) == (200, "PROVIDER_NOT_CONFIGURED")
    assert fault(unknown) == (404, "NOT_FOUND", None)


def test_a_key_makes_a_provider_configured_and_one_may_have_the_default_model(sqlite_app: Flask) -> None:
    found: Settings = sqlite_app.extensions["backend"].settings
    environ = {"AUTH_MODE": "dev", "DATABASE_URL": found.database_url, "REDIS_URL": found.redis_url}
    more = {"OPENAI_API_KEY": "k", "DEFAULT_LLM_PROVIDER": "OPENAI", "DEFAULT_LLM_MODEL": "tiny"}
    app = create_app(Settings.from_environment(environ | more))

    listed = Rest(app).get("/providers").get_json()["providers"]

    assert [provider["configured"] for provider in listed] == [True, False, True]
    assert [provider["default_model"] for provider in listed] == [None, None, "tiny"]
    app.extensions["backend"].close()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (None, "healthy"),
        ("PROVIDER_UNREACHABLE", "degraded"),
        ("PROVIDER_UNAUTHORIZED", "degraded"),
        ("PROVIDER_REJECTED", "healthy"),  # some have no list of models, and answer prompts
    ],
)
def test_a_provider_that_did_not_let_us_see_its_models_is_not_healthy(
    sqlite_rest: Rest, valkey: Valkey, code: str | None, status: str
) -> None:
    with valkey.client() as client:
        ModelLists(client).bring("LOCAL", ModelList(error_code=code), fresh_seconds=60)

    local = sqlite_rest.get("/providers").get_json()["providers"][0]

    assert (local["status"], local["breaker"]) == (status, "closed")


def test_an_old_no_is_asked_about_anew_and_nobody_waits_for_it(sqlite_rest: Rest, valkey: Valkey) -> None:
    with valkey.client() as client, client.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe(WANTED_MODELS)
        ModelLists(client).bring("LOCAL", ModelList(error_code="PROVIDER_UNREACHABLE"), fresh_seconds=60)
        client.delete(models_key("LOCAL", "fresh"))

        status = sqlite_rest.get("/providers").get_json()["providers"][0]["status"]
        asked = wait_until(heard.get_message, why="the workers are asked")

    assert (status, asked["data"]) == ("degraded", b"LOCAL")
