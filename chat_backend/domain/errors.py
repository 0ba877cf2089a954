"""Everything that can go wrong, as types.

ChatError                      what a client is told: HTTP status, closed code, safe words
 +- MalformedRequest            400
 +- Unauthenticated             401
 +- Forbidden                   403
 +- NotFound                    404
 +- Conflict                    409
 +- TooLarge                    413
 +- InvalidInput                422
 +- TooMany                     429
 +- Unavailable                 503
     +- Restarting              503, this process only: come back, to another
LeaseLost                      this worker no longer owns the attempt; its result is thrown away
ProviderError                  an attempt at a provider failed: retryable or not
 +- ProviderUnreachable         no connection
 |   +- ConnectionRefused       nobody listens: the server may be starting
 +- CertificateRefused          the provider's certificate can't be verified
 +- ProviderTimeout             connected, but silent for too long
 +- ProviderRefused             an HTTP status or an error object said no
 |   +- ModelMissing            the provider does not have the model
 +- StreamBroken                the stream ended or broke before the reply did
 |   +- EmptyReply              it ended, and no text was found in it
 +- ReplyTooLong                more text than a reply may hold
 +- InternalFault               an exception of our own: not the provider's fault, and not retried
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class ErrorCode(StrEnum):
    """Every `error_code` there is; documented in docs/errors.md."""

    MALFORMED_JSON = "MALFORMED_JSON"
    MALFORMED_REQUEST = "MALFORMED_REQUEST"
    INVALID_IDEMPOTENCY_KEY = "INVALID_IDEMPOTENCY_KEY"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    ORIGIN_NOT_ALLOWED = "ORIGIN_NOT_ALLOWED"
    NOT_A_PARTICIPANT = "NOT_A_PARTICIPANT"
    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    MESSAGE_BUSY = "MESSAGE_BUSY"
    SESSION_BUSY = "SESSION_BUSY"
    QUEUE_FULL = "QUEUE_FULL"
    NOT_A_REPLY = "NOT_A_REPLY"
    OWNER_IS_FIXED = "OWNER_IS_FIXED"
    TOO_MANY_SESSIONS = "TOO_MANY_SESSIONS"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    STORAGE_QUOTA_EXCEEDED = "STORAGE_QUOTA_EXCEEDED"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    INVALID_INPUT = "INVALID_INPUT"
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"
    TOO_MANY_CONNECTIONS = "TOO_MANY_CONNECTIONS"
    RATE_LIMITED = "RATE_LIMITED"
    TOO_MANY_JOBS = "TOO_MANY_JOBS"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    SERVER_RESTARTING = "SERVER_RESTARTING"
    TOO_SLOW = "TOO_SLOW"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    DATABASE_UNAVAILABLE = "DATABASE_UNAVAILABLE"
    KEYS_UNAVAILABLE = "KEYS_UNAVAILABLE"
    # In jobs and attempts
    PROVIDER_NOT_CONFIGURED = "PROVIDER_NOT_CONFIGURED"
    PROVIDER_UNREACHABLE = "PROVIDER_UNREACHABLE"
    PROVIDER_CERTIFICATE = "PROVIDER_CERTIFICATE"
    PROVIDER_TIMEOUT = "PROVIDER_TIMEOUT"
    PROVIDER_UNAUTHORIZED = "PROVIDER_UNAUTHORIZED"
    PROVIDER_PAYMENT_REQUIRED = "PROVIDER_PAYMENT_REQUIRED"
    PROVIDER_RATE_LIMITED = "PROVIDER_RATE_LIMITED"
    PROVIDER_REJECTED = "PROVIDER_REJECTED"
    PROVIDER_MODERATED = "PROVIDER_MODERATED"
    PROVIDER_FAILED = "PROVIDER_FAILED"
    MODEL_LOADING = "MODEL_LOADING"
    CIRCUIT_OPEN = "CIRCUIT_OPEN"
    MODELS_UNKNOWN = "MODELS_UNKNOWN"
    STREAM_BROKEN = "STREAM_BROKEN"
    EMPTY_REPLY = "EMPTY_REPLY"
    REPLY_TOO_LONG = "REPLY_TOO_LONG"
    WORKER_LOST = "WORKER_LOST"
    JOB_EXPIRED = "JOB_EXPIRED"


MOST_FAULTS = 100
LONGEST_NAME = 200


def _shortened(fault: dict[str, Any]) -> dict[str, Any]:
    name = fault.get("field")
    return fault | {"field": name[:LONGEST_NAME]} if isinstance(name, str) else fault


class ChatError(Exception):
    """What a client is told when a request can't be served."""

    status = 500
    code = ErrorCode.INTERNAL_ERROR

    def __init__(
        self,
        message: str,
        *,
        code: ErrorCode | None = None,
        field: str | None = None,
        details: dict[str, Any] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.details = {"field": field, "message": message, **(details or {})}
        self.retry_after_seconds = retry_after_seconds

    @property
    def errors(self) -> list[dict[str, Any]]:
        """Every fault found, each as {field, message}."""
        return [{"field": self.details["field"], "message": self.details["message"]}]


class MalformedRequest(ChatError):
    status = 400
    code = ErrorCode.MALFORMED_REQUEST


class Unauthenticated(ChatError):
    status = 401
    code = ErrorCode.UNAUTHENTICATED


class Forbidden(ChatError):
    status = 403
    code = ErrorCode.FORBIDDEN


class NotFound(ChatError):
    status = 404
    code = ErrorCode.NOT_FOUND


class Conflict(ChatError):
    status = 409


class TooLarge(ChatError):
    status = 413
    code = ErrorCode.PAYLOAD_TOO_LARGE


class InvalidInput(ChatError):
    """One or more fields can't be taken; `faults` lists all of them."""

    status = 422
    code = ErrorCode.INVALID_INPUT

    def __init__(self, message: str, *, faults: list[dict[str, Any]] | None = None, **more: Any) -> None:
        super().__init__(message, **more)
        # As many as someone would read: an answer must not be larger than what it answers.
        self._faults = [_shortened(fault) for fault in faults[:MOST_FAULTS]] if faults else None
        self.details = _shortened(self.details)

    @property
    def errors(self) -> list[dict[str, Any]]:
        return self._faults or super().errors


class TooMany(ChatError):
    status = 429
    code = ErrorCode.RATE_LIMITED


class Unavailable(ChatError):
    status = 503
    code = ErrorCode.DATABASE_UNAVAILABLE


class Restarting(Unavailable):
    """This process is on its way out; another, or the next, serves."""

    code = ErrorCode.SERVER_RESTARTING


class LeaseLost(Exception):
    """This worker no longer owns the attempt: throw its result away."""


class ProviderError(Exception):
    """An attempt at a provider failed. `message` is safe to show; a provider's own sentences are not in it.

    `error_type` is the provider's name for the error, where it is a single word. `provider_message` is its sentence,
    cut and cleaned, for the operators' log.
    """

    code = ErrorCode.PROVIDER_FAILED
    retryable = True
    provider_message: str | None = None

    def __init__(
        self,
        message: str,
        *,
        code: ErrorCode | None = None,
        retryable: bool | None = None,
        http_status: int | None = None,
        retry_after_seconds: float | None = None,
        error_type: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.retryable = type(self).retryable if retryable is None else retryable
        self.http_status = http_status
        self.retry_after_seconds = retry_after_seconds
        self.error_type = error_type

    def quote(self) -> None:
        """Add the provider's own sentence to the message, for deployments where the user is the operator."""
        if self.provider_message and self.provider_message not in self.message:
            self.message += f" It said: {self.provider_message}"


class ProviderUnreachable(ProviderError):
    code = ErrorCode.PROVIDER_UNREACHABLE


class ConnectionRefused(ProviderUnreachable):
    """Nobody listens at the provider's port: the server may be starting."""


class CertificateRefused(ProviderError):
    code = ErrorCode.PROVIDER_CERTIFICATE
    retryable = False


class ProviderTimeout(ProviderError):
    code = ErrorCode.PROVIDER_TIMEOUT


class ProviderRefused(ProviderError):
    code = ErrorCode.PROVIDER_REJECTED
    retryable = False


class ModelMissing(ProviderRefused):
    """The provider does not have the model that was asked for."""


class StreamBroken(ProviderError):
    code = ErrorCode.STREAM_BROKEN


class EmptyReply(StreamBroken):
    code = ErrorCode.EMPTY_REPLY


class ReplyTooLong(ProviderError):
    code = ErrorCode.REPLY_TOO_LONG
    retryable = False


class InternalFault(ProviderError):
    """An exception of our own during an attempt. It ends the job and says nothing about the provider."""

    code = ErrorCode.INTERNAL_ERROR
    retryable = False

    def __init__(self, *, http_status: int | None = None) -> None:
        super().__init__("The reply failed because of an error of ours; the log has details.", http_status=http_status)
