"""What a client says on a socket."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, ValidationError, fields

from chat_backend.domain.errors import InvalidInput
from chat_backend.schemas.chat_session import ON_BUSY
from chat_backend.schemas.fields import Flag, FreeForm, Id, Text, Wire
from chat_backend.schemas.message import CONTENT
from chat_backend.schemas.options import Options


class Named(Wire):
    """Every command may carry the client's name for it."""

    request_id = Text(load_default=None, allow_none=True)


class SendMessage(Options, Named):
    """Store a message and, unless told otherwise, ask for its reply."""

    content = Text(required=True, validate=CONTENT)
    metadata = FreeForm(load_default=dict)
    process = Flag(load_default=True)
    on_busy = fields.String(load_default=None, allow_none=True, validate=ON_BUSY)
    parent_message_id = Id(load_default=None, allow_none=True)


class TypingStart(Named):
    pass


class TypingStop(Named):
    pass


class Cancel(Named):
    """Stop a job of this chat session."""

    job_id = Id(required=True)


class Ping(Named):
    pass


COMMANDS: dict[str, Schema] = {
    "send_message": SendMessage(),
    "typing_start": TypingStart(),
    "typing_stop": TypingStop(),
    "cancel": Cancel(),
    "ping": Ping(),
}


def read_command(frame: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a command's type and its checked fields. Raises InvalidInput."""
    kind = frame.get("type")
    schema = COMMANDS.get(kind) if isinstance(kind, str) else None
    if schema is None or not isinstance(kind, str):
        raise InvalidInput(f"`type` must be one of {', '.join(COMMANDS)}.", field="type")
    try:
        return kind, schema.load({name: value for name, value in frame.items() if name != "type"})
    except ValidationError as error:
        faults = [{"field": str(name), "message": _first(found)} for name, found in error.normalized_messages().items()]
        raise InvalidInput(faults[0]["message"], field=faults[0]["field"], faults=faults) from None


def _first(found: Any) -> str:
    while isinstance(found, dict):
        found = next(iter(found.values()))
    return str(found[0])
