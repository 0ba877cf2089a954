"""The provider client against a real HTTP server that does what each test's script says, on the workers' loop."""

import asyncio
import contextlib
import logging
import socket
import time
from dataclasses import dataclass, field

import pytest
import uvloop

from chat_backend.config import Settings
from chat_backend.domain import enums
from chat_backend.domain.errors import (
    ProviderError,
    ProviderRefused,
    ProviderTimeout,
    ProviderUnreachable,
    ReplyTooLong,
    StreamBroken,
)
from chat_backend.domain.limits import REPLY_CHARACTERS
from chat_backend.domain.prompt import PromptRequest, Turn
from tests.support.provider_stub import expected_text, provider_stub
from workers.providers.base import Completion
from workers.providers.registry import build

ADDRESSES = ("local_llm_base_url", "openrouter_base_url", "openai_base_url")
# A machine that stalls for half a second must not turn one limit into another.
FIRST, BETWEEN, TOTAL = 1.5, 1.4, 3.0


@pytest.fixture(scope="module")
def stub():
    with provider_stub() as running:
        yield running


@dataclass
class Answer:
    """What came of one call: the text in pieces, how it ended, and how long it took."""

    pieces: list[str] = field(default_factory=list)
    completion: Completion | None = None
    error: ProviderError | None = None
    seconds: float = 0.0

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def settings_for(base_url: str, **more) -> Settings:
    limits = {
        "llm_connect_timeout_seconds": 1.0,
        "llm_first_token_timeout_seconds": FIRST,
        "llm_token_timeout_seconds": BETWEEN,
        "llm_total_timeout_seconds": TOTAL,
    }
    return Settings(**{**dict.fromkeys(ADDRESSES, base_url), **limits, **more})


async def call(provider, script: str, **more) -> Answer:
    answer, started = Answer(), time.monotonic()
    request = PromptRequest(f"stub:tag=t,{script}", (Turn("user", "hello"),), **more)
    try:
        answer.completion = await provider.stream(request, answer.pieces.append)
    except ProviderError as error:
        answer.error = error
    answer.seconds = time.monotonic() - started
    return answer


def ask(stub, script: str, *, name: str = "LOCAL", **settings) -> Answer:
    async def once() -> Answer:
        provider = build(settings_for(stub.base_url, **settings))[name]
        try:
            return await call(provider, script)
        finally:
            await provider.aclose()

    return uvloop.run(once())


def last_request(stub):
    return stub.ledger()[-1]


async def until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not (result := await asyncio.to_thread(condition)):
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)
    return result


# The course


def test_a_reply_arrives_to_the_letter(stub):
    answer = ask(stub, "tokens=300")

    assert answer.text == expected_text("t", 300)
    assert answer.completion.finish_reason == "stop"


def test_what_the_provider_counted_and_calls_it_is_kept(stub):
    completion = ask(stub, "tokens=4").completion

    assert (completion.counts.prompt_tokens, completion.counts.completion_tokens) == (7, 4)
    assert (completion.counts.cached_tokens, completion.counts.reasoning_tokens) == (3, 0)
    assert (completion.counts.cost, completion.counts.estimated) == (0.001, False)
    assert (completion.generation_id, completion.model) == ("gen-t", "stub:tag=t,tokens=4")


def test_the_request_says_what_was_asked_and_no_more(stub):
    async def once():
        provider = build(settings_for(stub.base_url))["LOCAL"]
        turns = (Turn("system", "be brief"), Turn("user", "привет \u2028"), Turn("assistant", "hi"), Turn("user", "😀"))
        await provider.stream(PromptRequest("m", turns, {"temperature": 0.0, "max_tokens": 5}), lambda text: None)
        await provider.aclose()
        return turns

    turns = uvloop.run(once())

    request = last_request(stub)
    assert request["turns"] == [{"role": turn.role, "content": turn.content} for turn in turns]
    assert request["parameters"] == {"temperature": 0.0, "max_tokens": 5, "stream_options": {"include_usage": True}}
    assert request["stream"] is True


def test_a_long_prompt_arrives_whole(stub):
    async def once():
        provider = build(settings_for(stub.base_url, llm_first_token_timeout_seconds=20))["LOCAL"]
        await provider.stream(PromptRequest("m", (Turn("user", "wörds " * 500_000),)), lambda text: None)
        await provider.aclose()

    uvloop.run(once())

    assert last_request(stub)["last_user_message"] == "wörds " * 500_000
    stub.clear()


def test_what_was_left_open_is_not_sent(stub):
    ask(stub, "tokens=1")

    assert last_request(stub)["parameters"] == {"stream_options": {"include_usage": True}}


def test_the_body_is_asked_for_plain_and_without_a_key_no_key_is_sent(stub):
    ask(stub, "tokens=1")

    headers = last_request(stub)["headers"]
    assert headers["accept-encoding"] == "identity"
    assert "authorization" not in headers


def test_a_key_for_local_is_sent(stub):
    ask(stub, "tokens=1", local_llm_api_key="key-1")

    assert last_request(stub)["headers"]["authorization"] == "Bearer key-1"


def test_user_and_password_in_the_address_are_sent(stub):
    ask(stub, "tokens=1", local_llm_base_url=stub.base_url.replace("//", "//me:p%40ss@"))

    assert last_request(stub)["headers"]["authorization"] == "Basic bWU6cEBzcw=="


def test_openrouter_is_told_who_asks(stub):
    settings = {"openrouter_api_key": "key-2", "app_url": "https://app.example", "app_title": "Chat\r\nX: y"}

    answer = ask(stub, "tokens=1", name="OPENROUTER", **settings)

    headers = last_request(stub)["headers"]
    assert headers["authorization"] == "Bearer key-2"
    assert (headers["http-referer"], headers["x-title"]) == ("https://app.example", "Chat X: y")
    assert headers["x-openrouter-title"] == "Chat X: y"
    assert answer.completion.generation_id == "gen-t"


def test_without_a_key_openrouter_is_not_configured_and_nobody_is_asked(stub):
    stub.clear()

    answer = ask(stub, "tokens=1", name="OPENROUTER")

    assert (answer.error.code, answer.error.retryable) == ("PROVIDER_NOT_CONFIGURED", False)
    assert not build(Settings())["OPENROUTER"].configured
    assert stub.ledger() == []


def test_every_provider_of_the_contract_is_built_under_its_name():
    providers = build(Settings())

    assert tuple(providers) == enums.PROVIDERS
    assert [provider.name for provider in providers.values()] == list(enums.PROVIDERS)


OPTIONS = {
    "temperature": 0.5,
    "top_p": 0.9,
    "max_tokens": 100,
    "stop": ["END"],
    "seed": 7,
    "response_format": {"type": "json_object"},
    "reasoning_effort": "low",
}


@pytest.mark.parametrize(
    ("name", "spelled"),
    [("LOCAL", {}), ("OPENAI", {}), ("OPENROUTER", {"reasoning": {"effort": "low"}})],
)
def test_each_provider_is_told_the_options_in_its_own_words(stub, name, spelled):
    async def once():
        keys = {"openrouter_api_key": "k", "openai_api_key": "k"}
        provider = build(settings_for(stub.base_url, **keys))[name]
        await provider.stream(PromptRequest("m", (Turn("user", "x"),), OPTIONS), lambda text: None)
        await provider.aclose()

    uvloop.run(once())

    plain = {word: value for word, value in OPTIONS.items() if not spelled or word != "reasoning_effort"}
    assert last_request(stub)["parameters"] == plain | spelled | {"stream_options": {"include_usage": True}}


def test_openai_itself_knows_the_limit_by_another_name():
    told = [build(Settings(**more))["OPENAI"].spelled(OPTIONS) for more in ({}, {"openai_base_url": "http://other"})]

    assert told == [
        {name: value for name, value in OPTIONS.items() if name != "max_tokens"} | {"max_completion_tokens": 100},
        OPTIONS,
    ]


def test_the_key_of_openai_is_sent_to_its_address(stub):
    answer = ask(stub, "tokens=1", name="OPENAI", openai_api_key="key-3")

    assert answer.error is None
    assert last_request(stub)["headers"]["authorization"] == "Bearer key-3"


@pytest.mark.parametrize("name", enums.PROVIDERS)
@pytest.mark.parametrize("keys", [{}, {"openrouter_api_key": "k", "openai_api_key": "k"}])
def test_web_and_workers_agree_on_what_is_configured(name, keys):
    settings = Settings(**keys)

    assert build(settings)[name].configured == settings.is_configured(name)


@pytest.mark.parametrize("script", ["tokens=9,error_event=4", "tokens=9,cut=4", "tokens=9,hang=stream,after=4"])
def test_what_was_said_before_an_error_is_known(stub, script):
    async def once():
        known = Completion()
        provider = build(settings_for(stub.base_url))["LOCAL"]
        request = PromptRequest(f"stub:tag=t,{script}", (Turn("user", "x"),))
        with pytest.raises(ProviderError):
            await provider.stream(request, lambda text: None, known)
        await provider.aclose()
        return known

    known = uvloop.run(once())

    assert (known.http_status, known.generation_id) == (200, "gen-t")


def test_models_are_listed(stub):
    async def once():
        provider = build(settings_for(stub.base_url))["LOCAL"]
        try:
            return await provider.models()
        finally:
            await provider.aclose()

    models = uvloop.run(once())

    assert models == ["stub", "stub:tokens=200,delay=0.02"]


def test_models_of_nobody_are_unreachable():
    async def once():
        provider = build(settings_for(f"http://127.0.0.1:{closed_port()}/v1"))["LOCAL"]
        try:
            await provider.models()
        finally:
            await provider.aclose()

    with pytest.raises(ProviderUnreachable):
        uvloop.run(once())


def test_tokens_that_come_together_are_handed_on_together(stub):
    answer = ask(stub, "tokens=100,burst=50")

    assert len(answer.pieces) <= 4
    assert answer.text == expected_text("t", 100)


def test_tokens_that_come_apart_are_not_held_back(stub):
    answer = ask(stub, "tokens=5,delay=0.05")

    assert answer.pieces == [f"t.{number} " for number in range(1, 6)]


# Quirks of real servers


@pytest.mark.parametrize("server", ["llamacpp", "litellm", "transformers", "mockllm", "openrouter", "ollama"])
def test_real_servers_quirks_are_understood(stub, server):
    answer = ask(stub, f"tokens=20,server={server}")

    counts = None if server in ("llamacpp", "mockllm") else 20
    assert (answer.error, answer.text) == (None, expected_text("t", 20))
    assert answer.completion.counts.completion_tokens == counts


@pytest.mark.parametrize(
    "script",
    [
        *(
            "eol=cr",
            "eol=crlf",
            "eol=crlf,bytes=1",
            "eol=cr,bytes=1",
            "bytes=7",
            "close",
            "close,bytes=5",
            "comments=9",
        ),
        *("no_done", "no_finish", "no_usage", "no_last_line", "no_finish,no_last_line", "empty_deltas", "new_id"),
        *("content_null", "usage=finish", "usage=empty_delta", "whole", "whole,no_usage", "reasoning=5"),
    ],
)
def test_other_shapes_of_the_same_reply_give_the_same_text(stub, script):
    answer = ask(stub, f"tokens=6,{script}")

    assert (answer.error, answer.text) == (None, expected_text("t", 6))


@pytest.mark.parametrize("cut", ["", ",bytes=1", ",bytes=2,eol=crlf", ",bytes=3,eol=cr"])
@pytest.mark.parametrize(
    ("script", "before"),
    [
        ("unicode", "привет 世界 😀 \u2028 \x85 \x0b "),
        ("nul", ""),
        ("surrogate", "\ufffd"),
        ("split_pair", "😀"),
        ("bad_utf8", "\ufffd"),
    ],
)
def test_odd_characters_are_kept_or_replaced_however_the_bytes_are_cut(stub, script, before, cut):
    answer = ask(stub, f"tokens=3,{script}{cut}", llm_total_timeout_seconds=20)

    assert (answer.error, answer.text) == (None, before + expected_text("t", 3))


def test_the_longest_reply_may_come_in_one_delta_with_every_character_escaped(stub):
    answer = ask(stub, f"tokens=1,escaped={REPLY_CHARACTERS}", llm_total_timeout_seconds=20)

    assert (answer.error, answer.text == "😀" * REPLY_CHARACTERS + expected_text("t", 1)) == (None, True)


def test_a_reply_that_ends_for_a_reason_may_be_empty(stub):
    answer = ask(stub, "tokens=0")

    assert (answer.error, answer.text, answer.completion.finish_reason) == (None, "", "stop")


@pytest.mark.parametrize("reason", ["length", "content_filter", "tool_calls"])
def test_any_other_finish_reason_is_a_success_that_says_so(stub, reason):
    answer = ask(stub, f"finish={reason}")

    assert answer.completion.finish_reason == reason


# Refusals


@pytest.mark.parametrize(
    ("script", "code", "retryable", "status", "wait"),
    [
        ("fail=400", "PROVIDER_REJECTED", False, 400, None),
        ("fail=400,retry_after=5", "PROVIDER_REJECTED", False, 400, None),
        ("fail=401", "PROVIDER_UNAUTHORIZED", False, 401, None),
        ("fail=402", "PROVIDER_PAYMENT_REQUIRED", False, 402, None),
        ("fail=402,retry_after=5", "PROVIDER_PAYMENT_REQUIRED", True, 402, 5),
        ("fail=403", "PROVIDER_UNAUTHORIZED", False, 403, None),
        ("fail=403,flagged=violence", "PROVIDER_MODERATED", False, 403, None),
        ("error_event=2,error_code=403,flagged=violence", "PROVIDER_MODERATED", False, 403, None),
        ("fail=400,error_code=content_filter", "PROVIDER_MODERATED", False, 400, None),
        ("fail=400,error_code=context_length_exceeded", "PROVIDER_REJECTED", False, 400, None),
        ("fail=429,error_code=content_filter", "PROVIDER_RATE_LIMITED", True, 429, None),
        ("fail=404", "PROVIDER_REJECTED", False, 404, None),
        ("fail=408", "PROVIDER_TIMEOUT", True, 408, None),
        ("fail=413", "PROVIDER_REJECTED", False, 413, None),
        ("fail=422", "PROVIDER_REJECTED", False, 422, None),
        ("fail=429", "PROVIDER_RATE_LIMITED", True, 429, None),
        ("fail=429,retry_after=7", "PROVIDER_RATE_LIMITED", True, 429, 7),
        ("fail=429,retry_after=3600", "PROVIDER_RATE_LIMITED", True, 429, 3600),
        ("fail=429,retry_after=soon", "PROVIDER_RATE_LIMITED", True, 429, None),
        ("fail=500", "PROVIDER_FAILED", True, 500, None),
        ("fail=502", "PROVIDER_FAILED", True, 502, None),
        ("fail=503,retry_after=2", "PROVIDER_FAILED", True, 503, 2),
        ("fail=504", "PROVIDER_FAILED", True, 504, None),
        ("fail=529", "PROVIDER_FAILED", True, 529, None),
        ("redirect=http://127.0.0.1:1/", "PROVIDER_REJECTED", False, 302, None),
        ("fail=307,redirect=http://127.0.0.1:1/", "PROVIDER_REJECTED", False, 307, None),
        ("fail=400,error_code=string", "PROVIDER_REJECTED", False, 400, None),
        ("fail=500,long_error=100000", "PROVIDER_FAILED", True, 500, None),
        ("fail=429,server=litellm", "PROVIDER_RATE_LIMITED", True, 429, None),
        ("fail=408,server=litellm", "PROVIDER_TIMEOUT", True, 408, None),
        ("error_event=3,server=litellm", "PROVIDER_FAILED", True, 500, None),
        ("error_event=0", "PROVIDER_FAILED", True, 200, None),
        ("error_event=0,error_code=string", "PROVIDER_FAILED", True, 200, None),
        ("error_event=0,error_code=400", "PROVIDER_REJECTED", False, 400, None),
        ("error_event=0,error_code=401", "PROVIDER_UNAUTHORIZED", False, 401, None),
        ("error_event=0,error_code=429", "PROVIDER_RATE_LIMITED", True, 429, None),
        ("error_event=0,error_code=502", "PROVIDER_FAILED", True, 502, None),
        ("finish=error", "PROVIDER_FAILED", True, 200, None),
        ("whole_error", "PROVIDER_FAILED", True, 200, None),
        ("whole_error,error_code=404", "PROVIDER_REJECTED", False, 404, None),
        ("error_event=0,error_code=context_length_exceeded", "PROVIDER_REJECTED", False, 200, None),
        ("error_event=2,error_code=content_filter", "PROVIDER_MODERATED", False, 200, None),
        ("whole_error,error_code=model_not_found", "PROVIDER_REJECTED", False, 200, None),
        ("fail=400,vllm_error,error_code=context_length_exceeded", "PROVIDER_REJECTED", False, 400, None),
        ("error_event=1,vllm_error,error_code=404", "PROVIDER_REJECTED", False, 404, None),
    ],
)
def test_each_refusal_has_its_code(stub, script, code, retryable, status, wait):
    error = ask(stub, script).error

    assert (error.code, error.retryable, error.http_status) == (code, retryable, status)
    assert error.retry_after_seconds == wait


def test_retry_after_may_be_a_date(stub):
    error = ask(stub, "fail=429,retry_after=date:30").error

    assert 27 < error.retry_after_seconds <= 30


def test_a_moderation_s_reasons_are_told_and_not_what_it_flagged(stub):
    error = ask(stub, "fail=403,flagged=violence+hate/threatening+<b>").error

    assert error.message == "The provider's moderation turned the request down: violence, hate/threatening (HTTP 403)."


def test_the_provider_s_word_for_an_error_is_kept(stub):
    errors = [ask(stub, f"fail=400,error_code={code}").error for code in ("context_length_exceeded", "none", "text")]

    assert [error.error_type for error in errors] == ["context_length_exceeded", "stub_error", "throttling_error"]
    assert errors[0].message == "The conversation is longer than the model can read (HTTP 400)."


@pytest.mark.parametrize("script", ["fail=400", "fail=403,flagged=a+b", "error_event=1", "whole_error,error_code=500"])
def test_the_provider_s_own_words_are_neither_shown_nor_logged(stub, script, caplog):
    caplog.set_level(logging.DEBUG)

    error = ask(stub, script).error

    assert "CANARY" not in repr(error) + error.message
    assert "CANARY" not in "".join(f"{record.__dict__}" for record in caplog.records)


def test_an_error_body_that_hangs_does_not_turn_into_a_timeout(stub):
    answer = ask(stub, "fail=401,slow_error")

    assert answer.error.code == "PROVIDER_UNAUTHORIZED"
    assert answer.seconds < 2


def test_a_redirect_is_not_followed(stub):
    stub.clear()

    ask(stub, f"redirect={stub.base_url}/chat/completions")

    assert len(stub.ledger()) == 1


def test_text_before_an_error_is_handed_on(stub):
    answer = ask(stub, "tokens=9,error_event=4,error_code=502")

    assert (answer.text, answer.error.http_status) == (expected_text("t", 4), 502)


@pytest.mark.parametrize("script", ["fail=404", "error_event=0,error_code=404"])
def test_older_error_objects_without_a_wrapping_are_read_too(stub, script):
    error = ask(stub, f"{script},vllm_error").error

    assert (error.http_status, error.error_type) == (404, "stub_error")


def test_a_server_that_takes_only_uuids_for_request_ids_is_not_put_off_by_our_names(stub):
    async def named() -> Answer:
        provider = build(settings_for(stub.base_url))["LOCAL"]
        try:
            return await call(provider, "tokens=2,server=llamacpp", name="ann.1")
        finally:
            await provider.aclose()

    answer = uvloop.run(named())

    assert (answer.error, answer.text) == (None, expected_text("t", 2))
    assert stub.ledger()[-1]["headers"]["x-client-request-id"] == "ann.1"


def test_what_is_refused_without_a_word_is_not_asked_again(stub):
    answer = ask(stub, "tokens=2,server=llamacpp,fail=400")

    assert not answer.error.retryable


# Refusals of what we add


def ask_each(stub, *scripts: str, **more) -> list[Answer]:
    async def each() -> list[Answer]:
        provider = build(settings_for(stub.base_url))["LOCAL"]
        try:
            return [await call(provider, script, **more) for script in scripts]
        finally:
            await provider.aclose()

    stub.clear()
    return uvloop.run(each())


@pytest.mark.parametrize("refused", ["stream_options", "x-client-request-id", "stream_options+x-client-request-id"])
def test_what_we_add_is_left_out_where_it_is_refused_and_stays_out(stub, refused):
    fields = refused.split("+")

    answers = ask_each(stub, f"tokens=2,strict={refused}", f"tokens=2,strict={refused}", name="ann.1")

    assert [(answer.error, answer.text) for answer in answers] == [(None, expected_text("t", 2))] * 2
    sent = [[field in entry["parameters"] or field in entry["headers"] for field in fields] for entry in stub.ledger()]
    assert sent[-2:] == [[False] * len(fields)] * 2
    assert len(sent) == len(fields) + 2


def test_a_system_message_is_told_by_the_user_where_a_model_has_no_place_for_one(stub):
    async def twice():
        provider = build(settings_for(stub.base_url))["LOCAL"]
        turns = (Turn("system", "Be brief."), Turn("user", "hello"))
        for model in ("stub:strict=system", "stub:strict=system", "stub:tokens=1"):
            await provider.stream(PromptRequest(model, turns), lambda text: None)
        await provider.aclose()

    stub.clear()
    uvloop.run(twice())

    assert [[turn["role"] for turn in entry["turns"]] for entry in stub.ledger()] == [
        ["system", "user"],
        ["user"],
        ["user"],
        ["system", "user"],
    ]
    assert stub.ledger()[1]["turns"][0]["content"] == "Be brief.\n\nhello"


def test_a_refusal_that_remains_is_told_and_nothing_is_remembered(stub):
    first, _ = ask_each(stub, "fail=400,quotes=stream_options", "tokens=1")

    assert (first.error.code, first.error.retryable) == ("PROVIDER_REJECTED", False)
    assert ["stream_options" in entry["parameters"] for entry in stub.ledger()] == [True, False, True]


# Breaks


def test_a_kept_connection_that_was_closed_is_replaced_at_once(stub):
    answers = ask_each(stub, "tokens=2", "tokens=3,stale")

    assert [(answer.error, answer.text) for answer in answers] == [(None, expected_text("t", n)) for n in (2, 3)]
    first, stale, fresh = [entry["peer_port"] for entry in stub.ledger()]
    assert first == stale != fresh


def test_a_fresh_connection_that_is_closed_without_an_answer_is_a_failed_attempt(stub):
    first, second = ask_each(stub, "tokens=2", "drop")

    assert first.error is None
    assert isinstance(second.error, StreamBroken)
    assert len(stub.ledger()) == 3


@pytest.mark.parametrize("head", ["head=7000", "head=12000", "head=60000", "heads=300", "encoding=utf-8"])
def test_odd_response_heads_are_read(stub, head):
    assert ask(stub, f"tokens=2,{head}").text == expected_text("t", 2)


@pytest.mark.parametrize("then", ["malformed", "error", "long"])
def test_what_breaks_after_the_whole_text_does_not_take_the_reply_away(stub, then):
    answer = ask(stub, f"tokens=4,usage=finish,then={then}")

    assert (answer.error, answer.text) == (None, expected_text("t", 4))
    assert (answer.completion.finish_reason, answer.completion.counts.completion_tokens) == ("stop", 4)


@pytest.mark.parametrize("shape", ["usage=finish", "usage=later", "usage=empty_delta", "whole"])
@pytest.mark.parametrize("cost", ["NaN", "Infinity"])
def test_a_cost_that_is_no_number_is_as_if_it_had_not_been_told(stub, cost, shape):
    answer = ask(stub, f"tokens=4,cost={cost},{shape}")

    counts = answer.completion.counts
    assert (answer.error, answer.text) == (None, expected_text("t", 4))
    assert (counts.completion_tokens, counts.cost) == (4, None)


def test_a_model_that_declines_has_answered(stub):
    answer = ask(stub, "tokens=4,declines")

    assert (answer.error, answer.text) == (None, expected_text("t", 4))


@pytest.mark.parametrize(
    "script",
    [
        "cut=3",
        "cut=3,close",
        "eof=3",
        "eof=3,close",
        "reset=3",
        "malformed=3",
        "not_object=3",
        "tokens=3,no_done,no_finish",
    ],
)
def test_a_stream_that_ends_or_breaks_before_the_reply_keeps_its_text_and_is_broken(stub, script):
    answer = ask(stub, script)

    assert isinstance(answer.error, StreamBroken)
    assert (answer.text, answer.error.retryable, answer.error.http_status) == (expected_text("t", 3), True, 200)


@pytest.mark.parametrize(
    "script",
    [
        "drop",
        "garbage",
        "html",
        "gzip",
        "giant=3000000",
        "malformed=0",
        "eof=0",
        "cut=0",
        "tokens=0,no_finish,no_usage",
    ],
)
def test_what_is_no_reply_at_all_is_a_broken_stream(stub, script):
    answer = ask(stub, script)

    assert isinstance(answer.error, StreamBroken)
    assert answer.text == ""


def test_more_than_a_reply_may_hold_breaks_the_stream(stub):
    answer = ask(stub, "tokens=1000000,burst=200", llm_total_timeout_seconds=60)

    assert isinstance(answer.error, StreamBroken)
    assert not answer.error.retryable  # it would do so again
    assert len(answer.text) > 1_000_000


def test_nobody_at_the_address_is_unreachable():
    error = ask(Nowhere(f"http://127.0.0.1:{closed_port()}/v1"), "tokens=1").error

    assert isinstance(error, ProviderUnreachable)
    assert (error.retryable, error.http_status) == (True, None)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70 + ".invalid"])
def test_a_name_that_leads_nowhere_is_unreachable(host):
    error = ask(Nowhere(f"http://{host}/v1"), "tokens=1").error

    assert isinstance(error, ProviderUnreachable)


def test_a_server_without_tls_at_an_https_address_is_unreachable(stub):
    error = ask(Nowhere(stub.base_url.replace("http:", "https:")), "tokens=1").error

    assert isinstance(error, ProviderUnreachable)


def test_a_connection_that_does_not_come_about_is_given_up_in_time():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        crowd = fill(full.getsockname())
        base_url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"

        answer = ask(Nowhere(base_url), "tokens=1", llm_connect_timeout_seconds=0.3)

        for one in crowd:
            one.close()
    assert answer.seconds < 10
    assert isinstance(answer.error, ProviderUnreachable)


# Silence


@pytest.mark.parametrize(
    ("script", "limit"),
    [
        ("hang=headers", FIRST),
        ("hang=first", FIRST),
        ("comments=forever", TOTAL),
        ("first=9", FIRST),
        ("hang=stream,after=1", BETWEEN),
        ("hang=stream,after=5", BETWEEN),
        ("tokens=1000,delay=0.1", TOTAL),
        ("tokens=1000,delay=0.01", TOTAL),
        ("tokens=3,drip=0.02", FIRST),
    ],
)
def test_each_kind_of_silence_has_its_limit(stub, script, limit):
    answer = ask(stub, script)

    assert isinstance(answer.error, ProviderTimeout)
    assert answer.error.code == "PROVIDER_TIMEOUT"
    assert limit - 0.05 <= answer.seconds < limit + 5


def test_a_slow_stream_within_its_limits_is_let_be(stub):
    answer = ask(stub, "tokens=8,first=0.4,delay=0.2")

    assert (answer.error, answer.text) == (None, expected_text("t", 8))


def test_keep_alives_are_no_silence(stub):
    answer = ask(stub, "tokens=2,ping=0.2,first=2", llm_first_token_timeout_seconds=1.0)

    assert (answer.error, answer.text) == (None, expected_text("t", 2))


def test_a_second_try_waits_twice_as_long_for_the_first_token(stub):
    async def once():
        provider = build(settings_for(stub.base_url))["LOCAL"]
        try:
            return await call(provider, f"tokens=2,first={FIRST * 1.3}", patient=True)
        finally:
            await provider.aclose()

    answer = uvloop.run(once())

    assert (answer.error, answer.text) == (None, expected_text("t", 2))


def test_silence_ends_a_reply_that_may_be_whole(stub):
    answer = ask(stub, "tokens=3,hang=end,no_usage", llm_token_timeout_seconds=0.3)

    assert (answer.error, answer.text) == (None, expected_text("t", 3))


def test_keep_alives_after_the_end_do_not_keep_a_reply_open(stub):
    answer = ask(stub, "tokens=3,hang=end,no_usage,ping=0.05", llm_token_timeout_seconds=0.3)

    assert (answer.error, answer.text) == (None, expected_text("t", 3))
    assert answer.seconds < TOTAL


def test_thinking_is_not_text_but_is_no_silence_either(stub):
    answer = ask(stub, "tokens=2,reasoning=8,think=0.2")

    assert answer.seconds > max(FIRST, BETWEEN)
    assert (answer.error, answer.text) == (None, expected_text("t", 2))
    assert answer.completion.thought_bytes == 8 * len("thinking 1 ")


@pytest.mark.parametrize("script", ["hang=done", "hang=done,usage=finish"])
def test_a_server_that_never_closes_after_done_holds_nothing_up(stub, script):
    answer = ask(stub, f"tokens=3,{script}", llm_token_timeout_seconds=30, llm_total_timeout_seconds=30)

    assert (answer.error, answer.completion.counts.completion_tokens) == (None, 3)
    assert answer.seconds < 15


def test_a_server_that_says_nothing_more_after_the_finish_succeeds_in_the_end(stub):
    answer = ask(stub, "tokens=3,hang=done,no_done")

    assert (answer.error, answer.text) == (None, expected_text("t", 3))
    assert answer.completion.counts.completion_tokens == 3


def test_a_server_that_does_not_even_read_the_prompt_is_given_up_and_hung_up_on():
    async def ask_with_a_long_prompt(port):
        provider = build(settings_for(f"http://127.0.0.1:{port}/v1"))["LOCAL"]
        started = time.monotonic()
        with pytest.raises(ProviderTimeout):
            await provider.stream(PromptRequest("m", (Turn("user", "x" * 20_000_000),)), lambda text: None)
        seconds = time.monotonic() - started
        got = await asyncio.to_thread(read_to_the_end, deaf)
        await provider.aclose()
        return seconds, got

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        seconds, got = uvloop.run(ask_with_a_long_prompt(deaf.getsockname()[1]))

    assert FIRST - 0.05 <= seconds < FIRST + 5
    assert got < 20_000_000


# Stopping


@pytest.mark.parametrize("script", ["hang=headers", "hang=first", "tokens=1000,delay=0.01", "hang=stream,after=2"])
def test_cancelling_closes_the_connection_at_once(stub, script):
    stub.clear()

    async def begin_and_cancel():
        provider = build(settings_for(stub.base_url, llm_first_token_timeout_seconds=30))["LOCAL"]
        task = asyncio.create_task(call(provider, script))
        await until(stub.ledger)
        task.cancel()
        cancelled_at = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        entry = await until(lambda: next((entry for entry in stub.ledger() if entry["disconnected"]), None))
        await provider.aclose()
        return entry["ended_at"][0] - cancelled_at

    seconds = uvloop.run(begin_and_cancel())

    assert seconds < 0.5


@pytest.mark.parametrize(
    "script", ["hang=headers", "hang=stream,after=2", "comments=forever", "tokens=9999,delay=0.01"]
)
def test_a_deadline_closes_the_connection_too(stub, script):
    stub.clear()

    async def until_late():
        provider = build(settings_for(stub.base_url, llm_total_timeout_seconds=1.0))["LOCAL"]
        answer = await call(provider, script)
        await until(lambda: stub.ledger()[0]["disconnected"])
        await provider.aclose()
        return answer

    answer = uvloop.run(until_late())

    assert isinstance(answer.error, ProviderTimeout)


def test_a_reader_that_has_enough_ends_the_call_and_its_connection(stub):
    stub.clear()

    def enough(text):
        raise ReplyTooLong("enough")

    async def read_a_little():
        provider = build(settings_for(stub.base_url))["LOCAL"]
        with pytest.raises(ReplyTooLong):
            await provider.stream(PromptRequest("stub:tokens=999,delay=0.01", (Turn("user", "x"),)), enough)
        await until(lambda: stub.ledger()[0]["disconnected"])
        await provider.aclose()

    uvloop.run(read_a_little())

    assert not stub.ledger()[0]["finished"]


# Many


def test_many_streams_at_once_do_not_mix(stub):
    async def crowd():
        patience = dict.fromkeys((f"llm_{what}_timeout_seconds" for what in ("connect", "first_token", "token")), 30)
        provider = build(settings_for(stub.base_url, **patience, llm_total_timeout_seconds=60))["LOCAL"]
        try:
            return await asyncio.gather(*(call(provider, f"tag=c{n},tokens=20,delay=0.01") for n in range(300)))
        finally:
            await provider.aclose()

    answers = uvloop.run(crowd())

    assert [answer.text for answer in answers] == [expected_text(f"c{n}", 20) for n in range(300)]


def test_a_connection_is_used_again_and_no_cookie_is_kept(stub):
    stub.clear()

    async def three_times():
        provider = build(settings_for(stub.base_url))["LOCAL"]
        for script in ("tokens=2", "fail=429", "tokens=3"):
            await call(provider, script)
        await provider.aclose()

    uvloop.run(three_times())

    requests = stub.ledger()
    assert len({request["peer_port"] for request in requests}) == 1
    assert not any("cookie" in request["headers"] for request in requests)


def test_a_fault_that_passes_lets_the_next_try_succeed(stub):
    stub.clear()

    answers = [ask(stub, "fail=503,times=2,tokens=3") for _ in range(3)]

    assert [answer.error is None for answer in answers] == [False, False, True]
    assert isinstance(answers[0].error, ProviderRefused)


@dataclass
class Nowhere:
    base_url: str


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def read_to_the_end(listener: socket.socket) -> int:
    """Take the one who waits, and count what it sent before it hung up; fail where it did not."""
    connection, _ = listener.accept()
    connection.settimeout(2)
    got = 0
    with connection, contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1_000_000):
            got += len(part)
    return got


def fill(address) -> list[socket.socket]:
    """Crowd a listener that accepts nobody, so that the next one's connect hangs."""
    crowd = []
    for _ in range(8):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(address)
        crowd.append(one)
    return crowd
