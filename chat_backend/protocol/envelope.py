"""What goes through Redis between processes: a one-line header that says what it is, then the bytes.

A hub reads the header only; what follows is sent on as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chat_backend.domain.enums import EventType

ID_CHARACTERS = 36
# The frames that are published and not kept; each speaks of one user.
EPHEMERAL = {EventType.TYPING_INDICATOR, EventType.USER_JOINED, EventType.USER_LEFT}


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
    """The body of a frame that is not kept."""

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
    read = _READERS.get(header[:1])
    if read is None or not separator:
        raise ValueError("unknown kind")
    return read(header[1:], rest)


def _read_delta(header: bytes, rest: bytes) -> Delta:
    message_id, attempt, start = header.split(b" ")
    delta = Delta(message_id.decode("ascii"), int(attempt), int(start), rest.decode())
    # Whether there is such a message the feed knows; parsing its id for every token would cost more than all else.
    if delta.attempt < 1 or delta.start < 0 or len(message_id) != ID_CHARACTERS:
        raise ValueError("not a piece of an attempt")
    return delta


def _read_durable(header: bytes, rest: bytes) -> Durable:
    fields = read_json(header)
    durable = Durable(_number(fields.get("o")), rest, fields.get("u"), fields.get("r"))
    if not all(name is None or isinstance(name, str) for name in (durable.user_id, durable.request_id)):
        raise ValueError("not a name")
    return durable


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("not an offset")
    return value


def _read_ephemeral(header: bytes, rest: bytes) -> Ephemeral:
    body = read_json(rest)
    if body.get("type") not in EPHEMERAL or not isinstance(body.get("user_id"), str):
        raise ValueError("not a frame of ours")
    return Ephemeral(body)


def _read_closed(header: bytes, rest: bytes) -> Closed:
    return Closed()


_READERS: dict[bytes, Callable[[bytes, bytes], Envelope]] = {
    b"d": _read_delta,
    b"e": _read_durable,
    b"f": _read_ephemeral,
    b"x": _read_closed,
}


def read_json(data: bytes) -> dict[str, Any]:
    """Read a JSON object. Raises ValueError for what is none."""
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
