"""What a provider's "no" means: HTTP statuses and error objects, as types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from chat_backend.domain.errors import ErrorCode, ModelMissing, ProviderError, ProviderRefused, ProviderTimeout
from workers.providers.error_kinds import Kind, kind_of
from workers.providers.error_text import error_in as error_in
from workers.providers.error_text import inner_error, sentence_in
from workers.providers.retry_hints import wait_in

_SENTENCES = {
    ErrorCode.PROVIDER_UNAUTHORIZED: "The provider did not accept our credentials",
    ErrorCode.PROVIDER_PAYMENT_REQUIRED: "The provider wants to be paid first",
    ErrorCode.PROVIDER_TIMEOUT: "The provider gave up waiting",
    ErrorCode.PROVIDER_RATE_LIMITED: "The provider is asked too often",
    ErrorCode.PROVIDER_REJECTED: "The provider rejected the request",
    ErrorCode.PROVIDER_MODERATED: "The provider's moderation turned the request down",
    ErrorCode.PROVIDER_FAILED: "The provider failed",
    ErrorCode.MODEL_LOADING: "The model is still loading",
}
_CODES = {
    401: ErrorCode.PROVIDER_UNAUTHORIZED,
    402: ErrorCode.PROVIDER_PAYMENT_REQUIRED,
    403: ErrorCode.PROVIDER_UNAUTHORIZED,
    408: ErrorCode.PROVIDER_TIMEOUT,
    429: ErrorCode.PROVIDER_RATE_LIMITED,
}
_MODERATION = {"content_filter", "content_policy_violation", "moderation_blocked"}
_KINDS = {
    Kind.NO_CREDIT: (402, ErrorCode.PROVIDER_PAYMENT_REQUIRED),
    Kind.TOO_LONG: (400, ErrorCode.PROVIDER_REJECTED),
    Kind.NO_MODEL: (404, ErrorCode.PROVIDER_REJECTED),
    Kind.LOADING: (503, ErrorCode.MODEL_LOADING),
}
# Sentences that say more than the code.
_PLAIN = {
    Kind.TOO_LONG: "The conversation is longer than the model can read",
    Kind.NO_MODEL: "The provider does not have this model",
}
_WRONG_ADDRESS = "There is nothing at the provider's address; its base URL may be wrong"
_MOVED = "The provider's address leads to another one; its base URL may be wrong"
# Said inside a successful response, without a status: what no second asking would change.
_HOPELESS = {
    **dict.fromkeys(("context_length_exceeded", "invalid_request_error", "BadRequestError"), 400),
    **dict.fromkeys((*_MODERATION, "model_not_found", "not_found_error", "NotFoundError"), 400),
    **dict.fromkeys(("authentication_error", "invalid_api_key", "permission_error"), 401),
    **dict.fromkeys(("insufficient_quota", "billing_error"), 402),
}
# A prompt can provoke these, whatever the status they come with.
OF_THE_REQUEST = frozenset(word for word, status in _HOPELESS.items() if status == 400)
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,49}", re.ASCII)
_REASON = re.compile(r"[A-Za-z][A-Za-z0-9_/ -]{0,39}", re.ASCII)
_MOST_REASONS = 10
_OURS_TO_MEND = {ErrorCode.PROVIDER_REJECTED, ErrorCode.PROVIDER_UNAUTHORIZED}
_RETRYABLE = {
    *(ErrorCode.PROVIDER_TIMEOUT, ErrorCode.PROVIDER_RATE_LIMITED, ErrorCode.PROVIDER_FAILED),
    ErrorCode.MODEL_LOADING,
}


def refusal(
    status: int, headers: Mapping[str, str], said: Any = None, *, http_status: int | None = None
) -> ProviderError:
    """Say what an HTTP status other than success means; `said` is the error object or sentence that came with it.

    The provider's own sentence is in `provider_message` only, as it came: it may quote the prompt, and who knows the
    prompt cleans it. `http_status` is what really came, where the status is only what it means.
    """
    word, reasons, wait = error_type(said), _moderation_reasons(said), wait_in(headers, said)
    kind = _kind(status, said, has_hint=wait is not None)
    code = _CODES.get(status) or (ErrorCode.PROVIDER_FAILED if status >= 500 else ErrorCode.PROVIDER_REJECTED)
    if code in _OURS_TO_MEND and (reasons is not None or word in _MODERATION):
        code, kind = ErrorCode.PROVIDER_MODERATED, None
    elif kind is not None:
        code = _KINDS[kind][1]
    because = f": {', '.join(reasons)}" if reasons else ""
    # A 402 may be a limit that passes by itself; a word for an empty account is not.
    retryable = code in _RETRYABLE or (status == 402 and kind is None and wait is not None)
    error = _type(code, kind)(
        f"{_sentence(status, code, kind, said)}{because} (HTTP {http_status or status}).",
        code=code,
        retryable=retryable,
        http_status=http_status or status,
        retry_after_seconds=wait if retryable else None,
        error_type=word,
    )
    if code != ErrorCode.PROVIDER_MODERATED:  # what a moderation says quotes what it flagged
        error.provider_message = sentence_in(said)
    return error


def refusal_in_stream(error: Any, headers: Mapping[str, str]) -> ProviderError:
    """Say what an error object inside a successful response means; its code may be anything."""
    status = _status(error.get("code") if isinstance(error, dict) else None)
    if status is not None:
        return refusal(status, headers, error)
    meant = next(filter(None, map(_HOPELESS.get, _words(error))), None)
    if meant is None and (kind := _kind(None, error, has_hint=wait_in({}, error) is not None)):
        meant = _KINDS[kind][0]
    return refusal(meant, headers, error, http_status=200) if meant else failure(error)


def failure(error: Any = None) -> ProviderError:
    """Say that the provider gave up in the middle of a reply, without a reason that is known."""
    sentence, code = "The provider reported a failure in the middle of its reply.", ErrorCode.PROVIDER_FAILED
    refused = ProviderRefused(sentence, code=code, retryable=True, http_status=200, error_type=error_type(error))
    refused.provider_message = sentence_in(error)
    return refused


def error_type(error: Any) -> str | None:
    """Return the provider's word for an error, where it is one: the finer of `code` and `type`."""
    return next(iter(_words(error)), None)


def _words(error: Any) -> list[str]:
    said = error if isinstance(error, dict) else {}
    words = [said[name] for name in ("code", "type", "status") if isinstance(said.get(name), str)]
    return [word for word in words if _WORD.fullmatch(word)]


def _kind(status: int | None, said: Any, *, has_hint: bool) -> Kind | None:
    inner, sentence = inner_error(said), sentence_in(said) or ""
    words = [*_words(said), *_words(inner)]
    estimates = isinstance(said, dict) and isinstance(said.get("estimated_time"), int | float)
    return kind_of(status, words, sentence, has_hint=has_hint, estimates=estimates)


def _type(code: ErrorCode, kind: Kind | None) -> type[ProviderError]:
    if kind is Kind.NO_MODEL:
        return ModelMissing
    return ProviderTimeout if code == ErrorCode.PROVIDER_TIMEOUT else ProviderRefused


def _sentence(status: int, code: ErrorCode, kind: Kind | None, said: Any) -> str:
    if kind in _PLAIN:
        return _PLAIN[kind]
    if status in (404, 405) and code == ErrorCode.PROVIDER_REJECTED:
        return _WRONG_ADDRESS
    return _MOVED if 300 <= status < 400 else _SENTENCES[code]


def _moderation_reasons(error: Any) -> list[str] | None:
    """Return why a moderation turned a request down, as OpenRouter says it; None where none did."""
    metadata = error.get("metadata") if isinstance(error, dict) else None
    reasons = metadata.get("reasons") if isinstance(metadata, dict) else None
    if not isinstance(reasons, list):
        return None
    return [reason for reason in reasons if isinstance(reason, str) and _REASON.fullmatch(reason)][:_MOST_REASONS]


def _status(code: object) -> int | None:
    text = str(code)
    return int(text) if re.fullmatch(r"[45]\d\d", text, re.ASCII) else None
