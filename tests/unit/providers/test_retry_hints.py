"""When providers want to be asked again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from workers.providers.retry_hints import wait_in

NOON = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
# A provider whose clock is an hour ahead of ours.
AHEAD = NOON + timedelta(hours=1)
DATE = format_datetime(AHEAD, usegmt=True)
SOON = AHEAD + timedelta(seconds=30)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after-ms": "4000", "retry-after": "9"}, 4),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9),
        ({"retry-after": format_datetime(SOON, usegmt=True), "date": DATE}, 30),
        ({"retry-after": format_datetime(NOON + timedelta(seconds=5), usegmt=True)}, 5),
        ({"retry-after": "1m4s"}, 64),
        ({"x-ms-retry-after-ms": "4000"}, 4),
        ({"ratelimit": "limit=100, remaining=0, reset=25"}, 25),
        ({"ratelimit": '"100-in-1min"; r=0; t=25'}, 25),
        ({"x-ratelimit-reset-requests": "3s"}, 3),
        ({"x-ratelimit-reset-tokens": "6m0s"}, 360),
        ({"x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-reset-tokens": "2m59.56s"}, 179.56),
        ({"x-ratelimit-reset-requests": "1h2m3s"}, 3723),
        ({"x-ratelimit-reset-requests": "1.5"}, 1.5),
        ({"x-ratelimit-reset-requests": "3s", "x-ratelimit-reset-tokens": "6m0s"}, 3),
        (
            {
                "x-ratelimit-reset-requests": "3s",
                "x-ratelimit-remaining-requests": "12",
                "x-ratelimit-reset-tokens": "40s",
                "x-ratelimit-remaining-tokens": "0",
            },
            40,
        ),
        ({"x-ratelimit-reset": "12"}, 12),
        ({"ratelimit-reset": "12"}, 12),
        ({"x-ratelimit-reset": str(int(SOON.timestamp())), "date": DATE}, 30),
        ({"x-ratelimit-reset": str(int(SOON.timestamp() * 1000)), "date": DATE}, 30),
        ({"x-ratelimit-reset": str(int(NOON.timestamp()) + 7)}, 7),
        ({"anthropic-ratelimit-requests-reset": SOON.isoformat().replace("+00:00", "Z"), "date": DATE}, 30),
    ],
)
def test_headers_tell_when(headers: dict[str, str], seconds: float) -> None:
    assert wait_in(headers, now=lambda: NOON) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ({"details": [{"@type": "google.rpc.Help"}, {"@type": "google.rpc.RetryInfo", "retryDelay": "32.5s"}]}, 32.5),
        ({"metadata": {"headers": {"X-RateLimit-Reset": str(int(NOON.timestamp() * 1000) + 9000)}}}, 9),
        ({"metadata": {"raw": '[{"error": {"details": [{"retryDelay": "9s"}]}}]'}}, 9),
        ({"retry_after": 4}, 4),
        ({"message": "Rate limit reached. Please try again in 7.66s. Visit ..."}, 7.66),
        ({"message": "Please try again in 6m0s."}, 360),
        ({"message": "Please try again in 120ms."}, 0.12),
        ({"message": "request reached max request: 3, please try again after 1 seconds"}, 1),
        ("Please retry after 26 seconds.", 26),
        ({"message": "You exceeded your quota. Please retry in 32.1s."}, 32.1),
    ],
)
def test_bodies_tell_when(said: Any, seconds: float) -> None:
    assert wait_in({}, said, now=lambda: NOON) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after-ms": "nan"}, None),
        ({"x-ratelimit-reset-requests": "3 sheep"}, None),
        ({"x-ratelimit-reset-requests": ""}, None),
        ({"x-ratelimit-reset": "-1"}, None),
        ({"x-ratelimit-reset": "9" * 400}, None),
        ({"x-ratelimit-reset": str(int(NOON.timestamp()) - 60)}, None),
        ({"x-ratelimit-reset": "tomorrow"}, None),
        ({}, {"details": [{"retryDelay": "-3s"}, {"retryDelay": None}, {"retryDelay": {}}, "x", None]}),
        ({}, {"details": "3s"}),
        ({}, {"retry_after": True}),
        ({}, {"retry_after": -1, "estimated_time": "soon"}),
        ({}, {"metadata": {"headers": ["x"]}}),
        ({}, ["3s"]),
        ({}, 3),
    ],
)
def test_nonsense_is_ignored(headers: dict[str, str], said: Any) -> None:
    assert wait_in(headers, said, now=lambda: NOON) is None


def test_a_date_that_is_none_is_replaced_by_our_clock() -> None:
    assert wait_in({"retry-after": format_datetime(AHEAD, usegmt=True), "date": "?"}, now=lambda: NOON) == 3600
