"""What a provider's "no" means: HTTP statuses and error objects, as types."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from chat_backend.domain.errors import ErrorCode, ProviderError, ProviderRefused, ProviderTimeout

_SENTENCES = {
    ErrorCode.PROVIDER_UNAUTHORIZED: "The provider did not accept our credentials",
    ErrorCode.PROVIDER_PAYMENT_REQUIRED: "The provider wants to be paid first",
    ErrorCode.PROVIDER_TIMEOUT: "The provider gave up waiting",
    ErrorCode.PROVIDER_RATE_LIMITED: "The provider is asked too often",
    ErrorCode.PROVIDER_REJECTED: "The provider rejected the request",
    ErrorCode.PROVIDER_FAILED: "The provider failed",
}
_CODES = {
    401: ErrorCode.PROVIDER_UNAUTHORIZED,
    402: ErrorCode.PROVIDER_PAYMENT_REQUIRED,
    403: ErrorCode.PROVIDER_UNAUTHORIZED,
    408: ErrorCode.PROVIDER_TIMEOUT,
    429: ErrorCode.PROVIDER_RATE_LIMITED,
}
_RETRYABLE = {ErrorCode.PROVIDER_TIMEOUT, ErrorCode.PROVIDER_RATE_LIMITED, ErrorCode.PROVIDER_FAILED}


def refusal(status: int, headers: Mapping[str, str]) -> ProviderError:
    """Say what an HTTP status other than success means."""
    code = _CODES.get(status) or (ErrorCode.PROVIDER_FAILED if status >= 500 else ErrorCode.PROVIDER_REJECTED)
    wait = retry_after(headers.get("retry-after", ""))
    retryable = code in _RETRYABLE or (status == 402 and wait is not None)
    kind = ProviderTimeout if code == ErrorCode.PROVIDER_TIMEOUT else ProviderRefused
    return kind(
        f"{_SENTENCES[code]} (HTTP {status}).",
        code=code,
        retryable=retryable,
        http_status=status,
        retry_after_seconds=wait if retryable else None,
    )


def refusal_in_stream(error: Any, headers: Mapping[str, str]) -> ProviderError:
    """Say what an error object inside a successful response means; its code may be anything."""
    status = _status(error.get("code") if isinstance(error, dict) else None)
    return refusal(status, headers) if status else failure()


def failure() -> ProviderError:
    """Say that the provider gave up in the middle of a reply, without a reason."""
    sentence = "The provider reported a failure in the middle of its reply."
    return ProviderRefused(sentence, code=ErrorCode.PROVIDER_FAILED, retryable=True, http_status=200)


def retry_after(value: str, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
    """Read `Retry-After`: seconds from now, never negative; None when it says nothing that can be read."""
    if re.fullmatch(r"\d+(\.\d+)?", value.strip(), re.ASCII):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now()).total_seconds())


def _status(code: object) -> int | None:
    text = str(code)
    return int(text) if re.fullmatch(r"[45]\d\d", text, re.ASCII) else None
