"""What goes through Redis between processes: a one-line header that says what it is, then the bytes.

A hub reads the header only; what follows is sent on as it is. Text on its way travels apart, many pieces at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from chat_backend.domain.enums import EventType

# The frames that are published and not kept; each speaks of one user.
EPHEMERAL = {EventType.TYPING_INDICATOR, EventType.USER_JOINED, EventType.USER_LEFT}


@dataclass(frozen=True)
class Durable:
    """A durable event's whole frame. request_id is told to the connections of user_id alone.

    The tag tells it from another event of the same offset; None if it is not known.
    """

    offset: int
    frame: bytes
    user_id: str | None = None
    request_id: str | None = None
    tag: str | None = None


class Delta(NamedTuple):
    """A piece of a reply, at a position in code points, and the channel of its chat session."""

    channel: str
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


Envelope = Durable | Ephemeral | Closed


def pack(envelope: Envelope) -> bytes:
    """Write an envelope as bytes."""
    match envelope:
        case Durable():
            header = {"o": envelope.offset, "u": envelope.user_id, "r": envelope.request_id, "t": envelope.tag}
            return b"e" + orjson.dumps(header) + b"\n" + envelope.frame
        case Ephemeral():
            return b"f\n" + orjson.dumps(envelope.body)
        case Closed():
            return b"x\n"


def pack_deltas(deltas: Sequence[Delta]) -> bytes:
    """Write pieces of text as bytes; the hot path of every token."""
    return orjson.dumps([tuple(delta) for delta in deltas])


def unpack_deltas(data: bytes) -> list[Delta]:
    """Read pieces of text. Raises ValueError for what is none."""
    try:
        deltas = [Delta(*fields) for fields in orjson.loads(data)]
    except TypeError:
        raise ValueError("not pieces of text") from None
    for delta in deltas:
        channel, message_id, attempt, start, text = delta
        # Whether there is such a message the feed knows.
        if not (type(channel) is type(message_id) is type(text) is str and type(attempt) is type(start) is int):
            raise ValueError("not a piece of text")
        if attempt < 1 or start < 0:
            raise ValueError("not a piece of an attempt")
    return deltas


def unpack(data: bytes) -> Envelope:
    """Read an envelope. Raises ValueError for what is none: anyone who reaches Redis can write to it."""
    header, separator, rest = data.partition(b"\n")
    read = _READERS.get(header[:1])
    if read is None or not separator:
        raise ValueError("unknown kind")
    return read(header[1:], rest)


def _read_durable(header: bytes, rest: bytes) -> Durable:
    fields = read_json(header)
    durable = Durable(_number(fields.get("o")), rest, fields.get("u"), fields.get("r"), fields.get("t"))
    if not all(name is None or isinstance(name, str) for name in (durable.user_id, durable.request_id, durable.tag)):
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
    b"e": _read_durable,
    b"f": _read_ephemeral,
    b"x": _read_closed,
}


def read_json(data: bytes) -> dict[str, Any]:
    """Read a JSON object. Raises ValueError for what is none."""
    value = orjson.loads(data)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
