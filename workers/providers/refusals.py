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
    ErrorCode.PROVIDER_MODERATED: "The provider's moderation turned the request down",
    ErrorCode.PROVIDER_FAILED: "The provider failed",
}
_CODES = {
    401: ErrorCode.PROVIDER_UNAUTHORIZED,
    402: ErrorCode.PROVIDER_PAYMENT_REQUIRED,
    403: ErrorCode.PROVIDER_UNAUTHORIZED,
    408: ErrorCode.PROVIDER_TIMEOUT,
    429: ErrorCode.PROVIDER_RATE_LIMITED,
}
_MODERATION = {"content_filter", "content_policy_violation", "moderation_blocked"}
# What the request itself is to blame for is worth a sentence of its own.
_PLAIN = {
    "context_length_exceeded": "The conversation is longer than the model can read",
    "model_not_found": "The provider does not have this model",
}
# Said inside a successful response, without a status: what no second asking would change.
_HOPELESS = {
    **dict.fromkeys(("context_length_exceeded", "invalid_request_error", "BadRequestError"), 400),
    **dict.fromkeys((*_MODERATION, "model_not_found", "not_found_error", "NotFoundError"), 400),
    **dict.fromkeys(("authentication_error", "invalid_api_key", "permission_error"), 401),
    **dict.fromkeys(("insufficient_quota", "billing_error"), 402),
}
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,49}", re.ASCII)
_REASON = re.compile(r"[A-Za-z][A-Za-z0-9_/ -]{0,39}", re.ASCII)
_MOST_REASONS = 10
_OURS_TO_MEND = {ErrorCode.PROVIDER_REJECTED, ErrorCode.PROVIDER_UNAUTHORIZED}
_RETRYABLE = {ErrorCode.PROVIDER_TIMEOUT, ErrorCode.PROVIDER_RATE_LIMITED, ErrorCode.PROVIDER_FAILED}


def refusal(
    status: int, headers: Mapping[str, str], said: Any = None, *, http_status: int | None = None
) -> ProviderError:
    """Say what an HTTP status other than success means; `said` is the error object that came with it.

    Of that only single words are taken: its sentences may quote the prompt. `http_status` is what really came, where
    the status is only what it means.
    """
    word, reasons = error_type(said), _moderation_reasons(said)
    code = _CODES.get(status) or (ErrorCode.PROVIDER_FAILED if status >= 500 else ErrorCode.PROVIDER_REJECTED)
    if code in _OURS_TO_MEND and (reasons is not None or word in _MODERATION):
        code = ErrorCode.PROVIDER_MODERATED
    sentence = _PLAIN.get(word or "", _SENTENCES[code]) if code in _OURS_TO_MEND else _SENTENCES[code]
    because = f": {', '.join(reasons)}" if reasons else ""
    wait = retry_after(headers.get("retry-after", ""))
    retryable = code in _RETRYABLE or (status == 402 and wait is not None)
    kind = ProviderTimeout if code == ErrorCode.PROVIDER_TIMEOUT else ProviderRefused
    return kind(
        f"{sentence}{because} (HTTP {http_status or status}).",
        code=code,
        retryable=retryable,
        http_status=http_status or status,
        retry_after_seconds=wait if retryable else None,
        error_type=word,
    )


def refusal_in_stream(error: Any, headers: Mapping[str, str]) -> ProviderError:
    """Say what an error object inside a successful response means; its code may be anything."""
    status = _status(error.get("code") if isinstance(error, dict) else None)
    if status is None and (meant := next(filter(None, map(_HOPELESS.get, _words(error))), None)):
        return refusal(meant, headers, error, http_status=200)
    return refusal(status, headers, error) if status else failure(error)


def failure(error: Any = None) -> ProviderError:
    """Say that the provider gave up in the middle of a reply, without a reason that is known."""
    sentence, code = "The provider reported a failure in the middle of its reply.", ErrorCode.PROVIDER_FAILED
    return ProviderRefused(sentence, code=code, retryable=True, http_status=200, error_type=error_type(error))


def error_type(error: Any) -> str | None:
    """Return the provider's word for an error, where it is one: the finer of `code` and `type`."""
    return next(iter(_words(error)), None)


def _words(error: Any) -> list[str]:
    said = error if isinstance(error, dict) else {}
    words = [said[name] for name in ("code", "type") if isinstance(said.get(name), str)]
    return [word for word in words if _WORD.fullmatch(word)]


def error_in(body: Any) -> Any:
    """Return the error object of a body or an event; None where there is none. Older vLLM's is the body itself."""
    if not isinstance(body, dict):
        return None
    return body if body.get("object") == "error" else body.get("error")


def _moderation_reasons(error: Any) -> list[str] | None:
    """Return why a moderation turned a request down, as OpenRouter says it; None where none did."""
    metadata = error.get("metadata") if isinstance(error, dict) else None
    reasons = metadata.get("reasons") if isinstance(metadata, dict) else None
    if not isinstance(reasons, list):
        return None
    return [reason for reason in reasons if isinstance(reason, str) and _REASON.fullmatch(reason)][:_MOST_REASONS]


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
