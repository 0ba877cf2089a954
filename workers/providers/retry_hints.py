"""When to come back, in the many ways that providers say it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from workers.providers.error_text import inner_error, sentence_in

Clock = Callable[[], datetime]

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?", re.ASCII)
_UNITS = (86400.0, 3600.0, 60.0, 1.0, 0.001)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_IN_SENTENCE = re.compile(
    r"(?:try again|retry|wait)\b.{0,20}?\b(?:in|after|for) "
    r"(?:(\d+(?:\.\d+)?) ?(ms|milliseconds?|s|sec|seconds?|minutes?)\b|((?:\d+h)?(?:\d+m)?\d+(?:\.\d+)?s)\b)",
    re.IGNORECASE | re.ASCII,
)
# The headers of limits: when each is reset, and what is left of it.
_RESETS = (
    *((f"{prefix}-reset", f"{prefix}-remaining") for prefix in ("x-ratelimit", "ratelimit", "x-rate-limit")),
    *((f"x-ratelimit-reset-{what}", f"x-ratelimit-remaining-{what}") for what in ("requests", "tokens")),
    *(
        (f"anthropic-ratelimit-{what}-reset", f"anthropic-ratelimit-{what}-remaining")
        for what in ("requests", "tokens", "input-tokens", "output-tokens")
    ),
)
# A larger number is a moment, a smaller one a duration; still larger ones count milliseconds.
_EPOCH_SECONDS, _EPOCH_MILLISECONDS = 1e9, 1e11


def utc_now() -> datetime:
    return datetime.now(UTC)


def wait_in(headers: Mapping[str, str], said: Any = None, *, now: Clock = utc_now) -> float | None:
    """Return the seconds until a provider wants to be asked again; None if it does not say.

    Moments are compared with the response's own `Date`: the two clocks may differ.
    """
    here = _moment(headers.get("date", "")) or now()
    return next((wait for wait in _hints(headers, said, here) if wait is not None), None)


def _hints(headers: Mapping[str, str], said: Any, here: datetime) -> Iterator[float | None]:
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        milliseconds = _number(headers.get(name))
        yield None if milliseconds is None else milliseconds / 1000
    yield retry_after(headers.get("retry-after", ""), now=lambda: here)
    yield _duration(headers.get("retry-after"))
    yield from _in_body(said)
    yield from _in_body(inner_error(said))
    yield _reset(headers, here)
    yield _reset(_headers_in(said), here)
    # The newer header of the draft standard: `limit=9, reset=4` or `"name"; r=0; t=4`.
    limit = re.search(r"\b(?:reset|t)=(\d{1,9})\b", headers.get("ratelimit", ""), re.ASCII)
    yield float(limit[1]) if limit else None
    yield _in_sentence(sentence_in(said) or "")


def retry_after(value: str, *, now: Clock = utc_now) -> float | None:
    """Read `Retry-After`: seconds from now, never negative; None if it is neither a number nor a date."""
    if re.fullmatch(r"\d+(\.\d+)?", value.strip(), re.ASCII):
        return float(value)
    moment = _moment(value)
    return None if moment is None else max(0.0, (moment - now()).total_seconds())


def _in_body(said: Any) -> Iterator[float | None]:
    if not isinstance(said, Mapping):
        return
    details = said.get("details")
    for detail in details if isinstance(details, list) else []:
        if isinstance(detail, Mapping):
            yield _duration(detail.get("retryDelay"))  # google.rpc.RetryInfo
    for name in ("retry_after", "retry_after_seconds", "estimated_time"):
        yield _duration(said.get(name))


def _reset(headers: Mapping[str, str], here: datetime) -> float | None:
    """Read when limits are reset: of those used up the latest, else the earliest."""
    used_up: list[float] = []
    others: list[float] = []
    for reset, remaining in _RESETS:
        wait = _until(headers.get(reset), here)
        if wait is not None:
            (used_up if _number(headers.get(remaining)) == 0 else others).append(wait)
    return max(used_up) if used_up else min(others, default=None)


def _until(value: str | None, here: datetime) -> float | None:
    """Read the time until a reset: a duration, a number of seconds, or a moment."""
    number = _number(value)
    if number is None:
        if (duration := _duration(value)) is not None:
            return duration
        moment = _moment(value or "")
        wait = None if moment is None else (moment - here).total_seconds()
    elif number < _EPOCH_SECONDS:
        return number
    else:
        wait = number / (1000 if number >= _EPOCH_MILLISECONDS else 1) - here.timestamp()
    # A moment that has passed says nothing about now.
    return wait if wait is not None and wait > 0 else None


def _duration(value: Any) -> float | None:
    """Read `3s`, `6m0s`, `120ms`, `1h2m3.5s`, or a number of seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if 0 <= value < _EPOCH_SECONDS else None
    if not isinstance(value, str):
        return None
    text = value.strip().lower()
    if (number := _number(text)) is not None:
        return number if number < _EPOCH_SECONDS else None
    found = _DURATION.fullmatch(text[:40]) if text else None
    if found is None:
        return None
    return sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS, strict=True) if part)


def _number(value: Any) -> float | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        number = float(value)
        return number if math.isfinite(number) else None
    return None


def _moment(value: str) -> datetime | None:
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = read(value.strip())
        except (ValueError, OverflowError):
            continue
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None


def _headers_in(said: Any) -> dict[str, str]:
    """Return the headers that OpenRouter passes on inside its error."""
    metadata = said.get("metadata") if isinstance(said, Mapping) else None
    headers = metadata.get("headers") if isinstance(metadata, Mapping) else None
    if not isinstance(headers, Mapping):
        return {}
    return {str(name).lower(): str(value) for name, value in headers.items()}


def _in_sentence(sentence: str) -> float | None:
    found = _IN_SENTENCE.search(sentence)
    if found is None:
        return None
    number, unit, duration = found.groups()
    if duration:
        return _duration(duration)
    factor = 0.001 if unit.lower().startswith("m") and not unit.lower().startswith("min") else 1
    return float(number) * (60 if unit.lower().startswith("min") else factor)
