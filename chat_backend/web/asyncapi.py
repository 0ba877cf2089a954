"""The AsyncAPI document: the socket's vocabulary, made from the same schemas that write and read its frames."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin

from chat_backend import __version__
from chat_backend.domain.cursor import PATTERN as CURSOR_PATTERN
from chat_backend.domain.enums import Action, EventType
from chat_backend.protocol.commands import COMMANDS
from chat_backend.schemas.chat_session import SessionShape
from chat_backend.schemas.llm_job import JobShape
from chat_backend.schemas.message import MessageShape
from chat_backend.schemas.service import ErrorShape
from chat_backend.web.openapi import PREFIX, TITLE, describe_free_forms

Document = dict[str, Any]

_TEXT: Document = {"type": "string"}
_ID: Document = {"type": "string", "format": "uuid"}
_FLAG: Document = {"type": "boolean"}
_USERS: Document = {"type": "array", "items": _TEXT, "uniqueItems": True}
_OFFSET: Document = {"type": "integer", "minimum": 0}
_DURABLE: Document = {"type": "integer", "minimum": 1, "description": "The event's number within the session."}
_CURSOR: Document = {
    "type": "string",
    "pattern": CURSOR_PATTERN,
    "description": "The position in the event log: give it back as `since`. It is opaque.",
}

_STREAMING: Document = {
    "type": "array",
    "description": "Replies in progress.",
    "items": {
        "type": "object",
        "required": ["message_id", "job_id", "attempt"],
        "properties": {"message_id": _ID, "job_id": _ID, "attempt": _OFFSET},
    },
}
_ACTION: Document = {
    "type": "string",
    "enum": [action.value for action in Action],
    "description": "Durable, but for `streaming`: the text so far. A later release may say more.",
}


def _ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


# What each event says beside type, session_id and timestamp; those named last may be absent.
_EVENTS: dict[EventType, tuple[str, Document, Document]] = {
    EventType.CONNECTION_ESTABLISHED: (
        "The greeting, and the first frame of every connection that was let in.",
        {
            "user_id": _TEXT,
            "connection_id": _TEXT,
            "offset": _OFFSET,
            "cursor": _CURSOR,
            "recovered": {**_FLAG, "description": "Whether all events after `since` follow."},
            "participants_online": _USERS,
            "streaming": _STREAMING,
        },
        {},
    ),
    EventType.USER_JOINED: ("A user's first connection.", {"user_id": _TEXT, "participants_online": _USERS}, {}),
    EventType.USER_LEFT: ("A user's last connection ended.", {"user_id": _TEXT, "participants_online": _USERS}, {}),
    EventType.MESSAGE_UPDATE: (
        "A message is new, or has changed; it is shown whole.",
        {"action": _ACTION, "message": _ref("Message")},
        {
            "offset": _DURABLE,
            "cursor": _CURSOR,
            "request_id": {**_TEXT, "description": "Yours, on the message that your frame stored."},
            "replayed": {**_FLAG, "description": "The frame was repeated; the message was there already."},
        },
    ),
    EventType.MESSAGE_DELTA: (
        "With `?deltas=1`: a piece of a reply, at `start` in its content, counted in Unicode code points.",
        {"message_id": _ID, "attempt": {"type": "integer", "minimum": 1}, "start": _OFFSET, "text": _TEXT},
        {},
    ),
    EventType.JOB_UPDATE: (
        "A job has changed.",
        {"offset": _DURABLE, "job": _ref("Job")},
        {"cursor": _CURSOR, "request_id": _TEXT},
    ),
    EventType.SESSION_UPDATE: (
        "The chat session's title, settings or participants have changed.",
        {"offset": _DURABLE, "session": _ref("Session")},
        {"cursor": _CURSOR},
    ),
    EventType.TYPING_INDICATOR: ("Someone else types, or no longer.", {"user_id": _TEXT, "is_typing": _FLAG}, {}),
    EventType.PONG: ("The answer to `ping`.", {"offset": _OFFSET}, {}),
}
_SUMMARIES = {
    "send_message": "Store a message and, unless `process` is false, ask for its reply.",
    "typing_start": "I type.",
    "typing_stop": "I no longer type.",
    "cancel": "Stop a job.",
    "ping": "Are you there?",
}
_QUERY: Document = {
    "type": "object",
    "properties": {
        "since": {**_CURSOR, "description": "Send every durable event after this cursor, or offset, first."},
        "deltas": {"type": "string", "enum": ["1"], "description": "Send text as message_delta."},
        "ticket": {**_TEXT, "description": "From POST .../ws-ticket; one use, 30 seconds."},
        "user_id": {**_TEXT, "description": "Who I am, with AUTH_MODE=dev."},
    },
}


@cache
def asyncapi_document() -> Document:
    """Return the socket's vocabulary as an AsyncAPI 3 document."""
    said = [event.value for event in EventType]
    return {
        "asyncapi": "3.0.0",
        "info": {"title": TITLE, "version": __version__, "description": "A chat session, live."},
        "defaultContentType": "application/json",
        "channels": {"session": _channel([*said, *COMMANDS])},
        "operations": {
            "hear": _operation("send", said, "What the server says."),
            "say": _operation("receive", COMMANDS, "What a client says."),
        },
        "components": {
            "messages": {name: _message(name) for name in [*said, *COMMANDS]},
            "schemas": _schemas(),
        },
    }


def _channel(names: list[str]) -> Document:
    return {
        "address": f"{PREFIX}/sessions/{{session_id}}/websocket",
        "description": "Every frame is one JSON object with a `type`. The same events, without commands, are "
        f"sent as server-sent events at {PREFIX}/sessions/{{session_id}}/events.",
        "parameters": {"session_id": {"description": "The chat session's id."}},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"ws": {"method": "GET", "query": _QUERY, "bindingVersion": "0.1.0"}},
    }


def _operation(action: str, names: Iterable[str], summary: str) -> Document:
    return {
        "action": action,
        "channel": {"$ref": "#/channels/session"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/session/messages/{name}"} for name in names],
    }


def _message(name: str) -> Document:
    summary = _SUMMARIES[name] if name in COMMANDS else _about(EventType(name))
    return {"name": name, "summary": summary, "payload": _ref(_component(name))}


def _about(event: EventType) -> str:
    return "What was wrong with a frame of yours." if event == EventType.ERROR else _EVENTS[event][0]


def _component(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_")) + "Frame"


def _schemas() -> Document:
    spec = APISpec("frames", "1", "3.1.0", plugins=[MarshmallowPlugin()])
    for name, shape in {"Message": MessageShape, "Job": JobShape, "Session": SessionShape, "Error": ErrorShape}.items():
        spec.components.schema(name, schema=shape)
    for name, schema in COMMANDS.items():
        spec.components.schema(_component(name), schema=schema)
    describe_free_forms(spec)
    schemas: Document = spec.to_dict()["components"]["schemas"]
    for name in COMMANDS:
        _name_type(schemas[_component(name)], name)
    frames = {_component(event): _frame(event, required, more) for event, (_, required, more) in _EVENTS.items()}
    return schemas | frames | {_component(EventType.ERROR): _error_frame(schemas["Error"])}


def _name_type(schema: Document, name: str) -> None:
    schema["properties"] = {"type": {"const": name}, **schema["properties"]}
    schema["required"] = ["type", *schema.get("required", [])]


def _frame(event: EventType, required: Document, optional: Document) -> Document:
    head = {"type": {"const": event.value}, "session_id": _ID, "timestamp": {"type": "string", "format": "date-time"}}
    return {"type": "object", "required": [*head, *required], "properties": head | required | optional}


def _error_frame(error: Document) -> Document:
    said = {name: shape for name, shape in error["properties"].items() if name != "timestamp"}
    return _frame(EventType.ERROR, said, {"request_id": {**_TEXT, "description": "Of the frame that caused it."}})
