"""What a provider refuses of our requests, by its words."""

from __future__ import annotations

import pytest

from workers.providers.concessions import REQUEST_ID, STREAM_OPTIONS, SYSTEM_MESSAGE, Concessions, named_in

ALL = {STREAM_OPTIONS, REQUEST_ID, SYSTEM_MESSAGE}


@pytest.mark.parametrize(
    ("status", "body", "name"),
    [
        (422, b'{"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"]}]}', STREAM_OPTIONS),
        (400, b'{"error": {"message": "Unrecognized request argument supplied: stream_options"}}', STREAM_OPTIONS),
        (400, b"unknown field streamOptions", STREAM_OPTIONS),
        (400, b'{"loc": ["include_usage"]}', STREAM_OPTIONS),
        (400, b"header X-Client-Request-Id is not allowed", REQUEST_ID),
        (400, b'{"message": "System role not supported"}', SYSTEM_MESSAGE),
        (500, b'{"message": "Jinja Exception: System role not supported"}', SYSTEM_MESSAGE),
        (400, b'{"message": "Developer instruction is not enabled for models/gemma-3-27b-it"}', SYSTEM_MESSAGE),
        (400, b'{"message": "Conversation roles must alternate user/assistant/user/assistant/..."}', SYSTEM_MESSAGE),
        (400, b"'messages[0].role' does not support 'system' with this model", SYSTEM_MESSAGE),
        (500, b"stream_options", None),
        (429, b"stream_options", None),
        (400, b"temperature", None),
        (400, b"", None),
    ],
)  # fmt: skip
def test_a_refusal_names_what_was_refused(status: int, body: bytes, name: str | None) -> None:
    assert named_in(status, body, ALL) == name


def test_only_what_was_sent_is_left_out() -> None:
    assert named_in(400, b"stream_options", ALL - {STREAM_OPTIONS}) is None


def test_fields_are_remembered_for_a_provider_and_system_messages_for_a_model() -> None:
    concessions = Concessions()
    concessions.remember("gemma", frozenset({STREAM_OPTIONS, SYSTEM_MESSAGE}))

    assert concessions.of("gemma") == {STREAM_OPTIONS, SYSTEM_MESSAGE}
    assert concessions.of("other") == {STREAM_OPTIONS}


def test_the_models_that_are_remembered_have_a_bound() -> None:
    concessions = Concessions()
    for number in range(2000):
        concessions.remember(str(number), frozenset({SYSTEM_MESSAGE}))

    assert [concessions.of(str(number)) == {SYSTEM_MESSAGE} for number in (0, 999, 1000, 1999)] == [
        False,
        False,
        True,
        True,
    ]
