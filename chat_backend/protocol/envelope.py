"""What goes through Redis between processes: a one-line header that says what it is, then the bytes.

A hub reads the header only; what follows is sent on as it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

CONTROL = "control"


@dataclass(frozen=True)
class Durable:
    """A durable event's whole frame. request_id is told to the connections of user_id alone."""

    offset: int
    frame: bytes
    user_id: str | None = None
    request_id: str | None = None


@dataclass(frozen=True)
class Delta:
    """A piece of a reply, at a position in code points."""

    message_id: str
    attempt: int
    start: int
    text: str


@dataclass(frozen=True)
class Ephemeral:
    """A frame that is not kept. `about` is the user it speaks of."""

    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Closed:
    """The chat session was deleted."""


Envelope = Durable | Delta | Ephemeral | Closed


def pack(envelope: Envelope) -> bytes:
    """Write an envelope as bytes."""
    match envelope:
        case Delta():
            return delta_bytes(envelope.message_id, envelope.attempt, envelope.start, envelope.text.encode())
        case Durable():
            header = {"o": envelope.offset, "u": envelope.user_id, "r": envelope.request_id}
            return b"e" + json.dumps(header).encode() + b"\n" + envelope.frame
        case Ephemeral():
            return b"f\n" + json.dumps(envelope.body).encode()
        case Closed():
            return b"x\n"


def delta_bytes(message_id: str, attempt: int, start: int, text: bytes) -> bytes:
    """Write a delta; the hot path of every token."""
    return b"d%s %d %d\n%s" % (message_id.encode(), attempt, start, text)


def unpack(data: bytes) -> Envelope:
    """Read an envelope. Raises ValueError for what is none: anyone who reaches Redis can write to it."""
    header, separator, rest = data.partition(b"\n")
    kind, header = header[:1], header[1:]
    if kind == b"d":
        message_id, attempt, start = header.split(b" ")
        return Delta(str(UUID(message_id.decode())), int(attempt), int(start), rest.decode())
    if kind == b"e":
        fields = json.loads(header)
        return Durable(int(fields["o"]), rest, fields["u"], fields["r"])
    if kind == b"f":
        body = json.loads(rest)
        if not isinstance(body, dict) or not isinstance(body.get("type"), str):
            raise ValueError("not a frame")
        return Ephemeral(body)
    if kind == b"x" and separator:
        return Closed()
    raise ValueError("unknown kind")
