"""How bodies and query strings are read: strictly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

from flask import Request
from gunicorn.http.errors import ParseException
from marshmallow import RAISE, Schema, ValidationError, missing
from webargs.core import is_json
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from chat_backend.domain.errors import MalformedRequest
from chat_backend.domain.limits import BODY_BYTES
from chat_backend.domain.strict_json import read_object
from chat_backend.schemas.chat_session import NewSession
from chat_backend.web.context import settings
from chat_backend.web.errors import invalid


class StrictParser(FlaskParser):
    """Reads JSON objects and query strings; what is not known is refused by name."""

    DEFAULT_UNKNOWN_BY_LOCATION = {"json": None, "query": RAISE}

    def load_json(self, req: Request, schema: Schema) -> Any:
        """Return the body's object; no body at all is an empty one.

        Raises UnsupportedMediaType, RequestEntityTooLarge, MalformedRequest, InvalidInput.
        """
        data = _whole_body(req)
        if not data:
            return missing
        _check_media_type(req)
        return read_object(data)

    def load_querystring(self, req: Request, schema: Schema) -> Any:
        """Return the query's parameters. Raises InvalidInput for one that is given twice, or is no UTF-8."""
        broken = {name: ["Not valid UTF-8."] for name, value in _bytes_of(req) if not _is_utf8(value)}
        if broken:
            raise invalid(broken)
        twice = {name: ["Given more than once."] for name, values in req.args.lists() if len(values) > 1}
        if twice:
            raise invalid(twice)
        return req.args.to_dict()

    def pre_load(self, location_data: Any, *, schema: Schema, req: Request, location: str) -> Any:
        """Let a new chat session have the deployment's default model, if there is one."""
        if isinstance(schema, NewSession) and settings().default_llm_model:
            return _with_default_model({} if location_data is missing else location_data)
        return location_data

    def handle_error(self, error: ValidationError, req: Request, schema: Schema, **more: Any) -> NoReturn:
        """Raise InvalidInput with every fault; the outermost key is where it was found."""
        messages: Any = error.messages
        raise invalid(next(iter(messages.values()))) from None


def _bytes_of(req: Request) -> Iterator[tuple[str, bytes]]:
    """Give the query's parameters as they came, where werkzeug has put a replacement for what is no UTF-8."""
    for part in req.query_string.split(b"&"):
        name, _, value = part.partition(b"=")
        yield unquote_to_bytes(name).decode("utf-8", "replace"), unquote_to_bytes(value)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _with_default_model(data: dict[str, Any]) -> dict[str, Any]:
    default = settings()
    filled = {"llm_provider": default.default_llm_provider} | data
    if filled["llm_provider"] == default.default_llm_provider:
        filled = {"llm_model": default.default_llm_model} | filled
    return filled


def _whole_body(req: Request) -> bytes:
    try:
        data = req.get_data()
    except (OSError, ParseException):  # what the server says of a body whose chunks are none
        raise MalformedRequest("The body can't be read.") from None
    # Of a chunked body werkzeug silently leaves out what is beyond the limit.
    if req.content_length is None and len(data) >= BODY_BYTES:
        raise RequestEntityTooLarge
    return data


def _check_media_type(req: Request) -> None:
    charset = req.mimetype_params.get("charset", "utf-8").lower()
    compressed = req.headers.get("Content-Encoding", "identity").lower() != "identity"
    if not is_json(req.mimetype) or charset not in {"utf-8", "utf8"} or compressed:
        raise UnsupportedMediaType
