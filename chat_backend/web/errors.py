"""The one shape of every error there is, on REST and on the socket."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from chat_backend.domain.errors import ChatError, ErrorCode, InvalidInput
from chat_backend.domain.strict_json import clean
from chat_backend.domain.trace import begin_trace
from chat_backend.models.base import now
from chat_backend.schemas.fields import rfc3339

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 5
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NAMES = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    413: "PayloadTooLarge",
    415: "UnsupportedMediaType",
    422: "ValidationError",
    429: "TooManyRequests",
    500: "InternalServerError",
    503: "ServiceUnavailable",
}
_HTTP = {
    404: (ErrorCode.NOT_FOUND, "There is nothing at this address."),
    405: (ErrorCode.METHOD_NOT_ALLOWED, "This address does not know that method."),
    413: (ErrorCode.PAYLOAD_TOO_LARGE, "The body is too large."),
    415: (ErrorCode.UNSUPPORTED_MEDIA_TYPE, "The body must be application/json in UTF-8, not compressed."),
}
_KEPT_HEADERS = ("Allow", "Retry-After")


def install(app: Flask) -> None:
    """Answer every error there is in the one shape, and every request with its X-Request-ID."""
    app.register_error_handler(ChatError, answer)
    app.register_error_handler(HTTPException, answer_http)
    app.register_error_handler(Exception, _unexpected)
    app.before_request(_begin)
    app.after_request(_name_request)
    app.teardown_request(lambda _: begin_trace(None))


def error_object(error: ChatError, trace_id: str) -> dict[str, Any]:
    """Return what a client is told of an error."""
    return {
        "error": _NAMES.get(error.status, "HttpError"),
        "error_code": error.code.value,
        "details": error.details,
        "errors": error.errors,
        "timestamp": rfc3339(now()),
        "trace_id": trace_id,
    }


def trace_id() -> str:
    """Return the name of this request: the client's X-Request-ID where it is sane, else a new one."""
    if "trace_id" not in g:
        given = request.headers.get("X-Request-ID", "")
        g.trace_id = given if _SANE_ID.fullmatch(given) else uuid4().hex
    found: str = g.trace_id
    return found


def answer(error: ChatError) -> Response:
    """Return the response for an error of ours."""
    response = jsonify(error_object(error, trace_id()))
    response.status_code = error.status
    if error.retry_after_seconds is not None or error.status in (429, 503):
        response.headers["Retry-After"] = str(math.ceil(error.retry_after_seconds or RETRY_AFTER_SECONDS))
    if error.status == 401:
        response.headers["WWW-Authenticate"] = _challenge()
    return response


def answer_http(error: HTTPException) -> Response:
    """Return the response for an error of the framework."""
    status = error.code or 500
    unknown = ErrorCode.INTERNAL_ERROR if status >= 500 else ErrorCode.MALFORMED_REQUEST
    code, message = _HTTP.get(status, (unknown, error.name))
    ours = ChatError(message, code=code)
    ours.status = status
    response = answer(ours)
    for name, value in error.get_headers():
        if name in _KEPT_HEADERS:
            response.headers[name] = value
    return response


def invalid(messages: Any) -> InvalidInput:
    """Return marshmallow's messages as one error: every fault by its dotted field name, the first as details."""
    faults = [{"field": clean(".".join(path)) or None, "message": message} for path, message in _flat(messages)]
    return InvalidInput(faults[0]["message"] or "", field=faults[0]["field"], faults=faults)


def _flat(messages: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(messages, dict):
        for name, inner in messages.items():
            yield from _flat(inner, path if name == "_schema" else (*path, str(name)))
    elif isinstance(messages, list):
        for inner in messages:
            yield from _flat(inner, path)
    else:
        yield path, str(messages)


def _challenge() -> str:
    return 'Bearer error="invalid_token"' if "Authorization" in request.headers else "Bearer"


def _unexpected(error: Exception) -> Response:
    """Whatever nobody expected: the stack is for the log, the client gets the name to ask for it by."""
    log.error("unhandled error", exc_info=error, extra={"action": "request", "trace_id": trace_id()})
    return answer(ChatError("Something went wrong on our side."))


def _begin() -> None:
    begin_trace(trace_id())


def _name_request(response: Response) -> Response:
    response.headers["X-Request-ID"] = trace_id()
    return response
