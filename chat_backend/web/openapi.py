"""The OpenAPI document: made from the routes and their schemas, with every error answer there is."""

from __future__ import annotations

import http
from collections.abc import Callable
from typing import Any, TypeVar

import flask_smorest
from apispec import APISpec
from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from chat_backend import __version__
from chat_backend.config import Settings
from chat_backend.schemas.fields import JSON_VALUE, JSON_VALUE_SCHEMA
from chat_backend.schemas.service import ErrorShape
from chat_backend.web import errors, idempotency_key
from chat_backend.web.parsing import StrictParser

PREFIX = "/api/v1/chat"
TITLE = "chat_backend"

Route = TypeVar("Route", bound=Callable[..., Any])

_KEY_PARAMETER = {
    "in": "header",
    "name": idempotency_key.HEADER,
    "required": False,
    "description": "Your name for this one effect: a repeat makes nothing anew. Kept for 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
_PREFER_PARAMETER = {
    "in": "header",
    "name": "Prefer",
    "required": False,
    "description": "`respond-async`, or `wait=N`: up to N seconds, at most 60 (RFC 7240).",
    "schema": {"type": "string"},
}
REPLAYED = {
    idempotency_key.REPLAYED: {
        "description": "`true` where this was made before, under the same key.",
        "schema": {"type": "string", "enum": ["true"]},
    }
}
LOCATION = {"Location": {"description": "Where it is found.", "schema": {"type": "string"}}}
PREFERENCE = {"Preference-Applied": {"description": "What of `Prefer` was followed.", "schema": {"type": "string"}}}


class Blueprint(flask_smorest.Blueprint):
    """Routes of one noun: read strictly, documented with every error they can answer."""

    ARGUMENTS_PARSER = StrictParser()

    def __init__(self, name: str, import_name: str) -> None:
        super().__init__(name, import_name, url_prefix=PREFIX)
        self._prepare_doc_cbks.append(_prepare_errors_doc)


class Api(flask_smorest.Api):
    """flask-smorest with our errors."""

    ERROR_SCHEMA = ErrorShape
    DEFAULT_ERROR_RESPONSE_NAME = None

    def handle_http_exception(self, error: HTTPException) -> Response:
        return errors.answer_http(error)


def keyed(*, prefers: bool = False) -> Callable[[Route], Route]:
    """Document that a route takes an Idempotency-Key, and where asked, a Prefer."""
    parameters = [_KEY_PARAMETER, *([_PREFER_PARAMETER] if prefers else [])]
    documented: Callable[[Route], Route] = Blueprint.doc(parameters=parameters)
    return documented


def api_of(app: Flask, settings: Settings) -> Api:
    """Return the API that blueprints are registered with; it serves the document."""
    app.config["OPENAPI_URL_PREFIX"] = PREFIX
    return Api(
        app,
        spec_kwargs={
            "title": TITLE,
            "version": __version__,
            "openapi_version": "3.1.0",
            "info": {"description": "Chat sessions that several people can watch live; answers by background workers."},
            "servers": [{"url": "/"}],
            "components": {"securitySchemes": _security_schemes()},
            "security": [{"user": []}, {}] if settings.is_dev else [{"bearer": []}],
        },
    )


def need_one_of(api: Api, schema: str, names: tuple[str, ...]) -> None:
    """Document that at least one of some fields must be given, which marshmallow has no word for."""
    api.spec.components.schemas[schema]["anyOf"] = [{"required": [name]} for name in names]


def describe_free_forms(spec: APISpec) -> None:
    """Document what objects of the client's own may hold; marshmallow has no word for it beside known fields."""
    spec.components.schemas["JsonValue"] = JSON_VALUE_SCHEMA
    if settings := spec.components.schemas.get("SessionSettings"):
        settings["additionalProperties"] = JSON_VALUE


def need_not(api: Api, schema: str, names: tuple[str, ...]) -> None:
    """Document that some fields need not be given, since this deployment has defaults for them."""
    documented = api.spec.components.schemas[schema]
    documented["required"] = [name for name in documented["required"] if name not in names]
    if not documented["required"]:
        del documented["required"]


def _security_schemes() -> dict[str, Any]:
    return {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "AUTH_MODE=jwt"},
        "user": {"type": "apiKey", "in": "header", "name": "X-User-ID", "description": "AUTH_MODE=dev"},
    }


def _prepare_errors_doc(doc: dict[str, Any], doc_info: dict[str, Any], *, method: str, **more: Any) -> dict[str, Any]:
    responses = doc.setdefault("responses", {})
    if doc_info.get("manual_doc", {}).get("security") == []:
        return doc
    for status in _errors_of(doc, doc_info, method):
        responses.setdefault(status, http.HTTPStatus(status).name)
    return doc


def _errors_of(doc: dict[str, Any], doc_info: dict[str, Any], method: str) -> set[int]:
    parameters = doc_info.get("manual_doc", {}).get("parameters", [])
    found = {401, 404, 429, 500, 503}
    if method != "get":
        found |= {403, 409}
    if "requestBody" in doc:
        found |= {400, 413, 415, 422}
    if _KEY_PARAMETER in parameters:
        found |= {400, 422}
    if doc.get("parameters"):
        found |= {422}
    return found
