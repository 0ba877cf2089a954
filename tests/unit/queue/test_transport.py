"""What of a message is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chat_backend.queue.transport import LATEST_CLOCK, Message

PROPERTIES = {"delivery_tag": "1", "delivery_info": {}}


@pytest.mark.parametrize("headers", [None, {}, {"clock": None}, {"clock": 0}, {"clock": LATEST_CLOCK - 1}])
def test_messages_as_celery_sends_them_are_taken(headers: Any) -> None:
    message = Message({"body": None, "headers": headers, "properties": PROPERTIES})

    assert message.headers == (headers or {})


@pytest.mark.parametrize(
    "headers",
    [
        {"clock": LATEST_CLOCK},
        {"clock": int("9" * 4_300)},
        {"clock": float("nan")},
        {"clock": -1},
        {"clock": "5"},
        {"compression": "zlib"},
        {"argsrepr": json.loads("[" * 900 + "]" * 900)},
    ],
    ids=["far", "too long to write", "nan", "negative", "text", "compressed", "deep"],
)
def test_what_would_harm_later_is_no_message(headers: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Message({"body": None, "headers": headers, "properties": PROPERTIES})
