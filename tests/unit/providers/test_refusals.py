"""What a provider's "no" means."""

from datetime import UTC, datetime

import pytest

from workers.providers.refusals import refusal, refusal_in_stream
from workers.providers.retry_hints import retry_after

NOON = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        (" 2.5 ", 2.5),
        ("0", 0.0),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 12:00:30 -0000", 30.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0.0),
        ("", None),
        ("-5", None),
        ("soon", None),
        ("nan", None),
        ("Mon, 99 Nov 2026 12:00:30 GMT", None),
        ("9" * 400, float("inf")),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value, seconds):
    result = retry_after(value, now=lambda: NOON)

    assert result == seconds


@pytest.mark.parametrize(
    "code", [None, "none", "server_error", "overloaded_error", 42, 200, "٤٢٩", True, [], {"a": 1}, 4290]
)
def test_an_error_object_without_a_status_may_be_tried_again(code):
    error = refusal_in_stream({"code": code, "message": "CANARY"}, {})

    assert (error.code, error.retryable, error.http_status) == ("PROVIDER_FAILED", True, 200)


@pytest.mark.parametrize("code", [402, "402"])
def test_an_error_object_s_code_is_read_like_a_status(code):
    error = refusal_in_stream({"code": code}, {})

    assert (error.code, error.retryable, error.http_status) == ("PROVIDER_PAYMENT_REQUIRED", False, 402)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"code": "context_length_exceeded"}, "PROVIDER_REJECTED"),
        ({"type": "invalid_request_error", "code": None}, "PROVIDER_REJECTED"),
        ({"type": "invalid_request_error", "code": "a_new_word"}, "PROVIDER_REJECTED"),
        ({"code": "content_filter"}, "PROVIDER_MODERATED"),
        ({"code": "model_not_found"}, "PROVIDER_REJECTED"),
        ({"type": "authentication_error"}, "PROVIDER_UNAUTHORIZED"),
        ({"code": "insufficient_quota"}, "PROVIDER_PAYMENT_REQUIRED"),
    ],
)
def test_a_word_that_no_second_asking_would_change_is_final_without_a_status_too(said, code):
    error = refusal_in_stream(said, {})

    assert (error.code, error.retryable, error.http_status) == (code, False, 200)


def test_a_status_says_more_than_a_word():
    # So says the LiteLLM proxy of a model that took too long.
    error = refusal_in_stream({"code": "408", "type": "invalid_request_error"}, {})

    assert (error.code, error.retryable) == ("PROVIDER_TIMEOUT", True)


@pytest.mark.parametrize("said", ["a sentence", ["a"], 1, True])
def test_an_error_that_is_no_object_is_a_failure(said):
    error = refusal_in_stream(said, {})

    assert error.code == "PROVIDER_FAILED"


def test_payment_required_is_final_unless_it_says_when_to_come_back():
    final, later = refusal(402, {}), refusal(402, {"retry-after": "5"})

    assert (final.retryable, later.retryable, later.retry_after_seconds) == (False, True, 5)
