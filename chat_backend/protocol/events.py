"""What the server says on a socket: the body of every kind of frame, and its encoding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from json.encoder import encode_basestring
from typing import Any
from uuid import UUID

import orjson

from chat_backend.domain.cursor import Cursor
from chat_backend.domain.enums import Action, EventType
from chat_backend.domain.strict_json import storable
from chat_backend.protocol.envelope import Durable, read_json
from chat_backend.schemas.chat_session import SessionShape
from chat_backend.schemas.fields import rfc3339
from chat_backend.schemas.llm_job import JobShape
from chat_backend.schemas.message import MessageShape

_message, _job, _session = MessageShape(), JobShape(), SessionShape()
_SHAPES = {"message": _message, "job": _job, "session": _session}

Frame = dict[str, Any]

NAME_CHARACTERS = 255
# What a durable event speaks of, and what of it hubs rely on.
_SUBJECTS: dict[str, tuple[str, dict[str, type | tuple[type, ...]]]] = {
    EventType.MESSAGE_UPDATE.value: (
        "message",
        {"id": str, "role": str, "status": str, "content": str, "attempt": int, "job_id": (str, type(None))},
    ),
    EventType.JOB_UPDATE.value: (
        "job",
        {"id": str, "assistant_message_id": str, "status": str, "attempt": int, "attempts": list},
    ),
    EventType.SESSION_UPDATE.value: ("session", {"id": str}),
}


_EVENT_TYPES = frozenset(EventType)


@dataclass(frozen=True)
class Happening:
    """A durable event: what changed, by whom, under which name of the client's.

    A type or action that is not known was written by a newer release; it is passed on as it is.
    """

    type: str
    subject: Any
    about: str
    action: str | None = None
    user_id: str | None = None
    request_id: str | None = None

    @classmethod
    def message(cls, action: Action, message: Any, **more: Any) -> Happening:
        return cls(EventType.MESSAGE_UPDATE, message, "message", action, **more)

    @classmethod
    def job(cls, job: Any, **more: Any) -> Happening:
        return cls(EventType.JOB_UPDATE, job, "job", **more)

    @classmethod
    def session(cls, chat: Any, **more: Any) -> Happening:
        return cls(EventType.SESSION_UPDATE, chat, "session", **more)

    def body(self) -> Frame:
        """Return the frame's own fields, of the subject as it is now."""
        if self.type in _SUBJECTS and _SUBJECTS[self.type][0] != self.about:
            raise ValueError(f"not an event of a {self.about}")
        action = {"action": str(self.action)} if self.action else {}
        return {"type": str(self.type), **action, self.about: _SHAPES[self.about].dump(self.subject)}


def framed(body: Frame, session_id: UUID | str, at: datetime, cursor: Cursor | None = None) -> Frame:
    """Return a whole server frame; durable ones have an offset and a cursor."""
    frame = {"type": body["type"], "session_id": str(session_id), "timestamp": rfc3339(at)}
    if cursor is not None:
        frame |= {"offset": cursor.offset, "cursor": str(cursor)}
    return frame | body


def read_durable(event: Durable) -> Frame:
    """Read a durable event's frame. Raises ValueError if it is none, whoever published it.

    Of an event of a newer release nothing is known but that it is durable.
    """
    frame = read_json(event.frame)
    kind = frame.get("type")
    if frame.get("offset") != event.offset or not isinstance(kind, str):
        raise ValueError("not a durable event")
    if kind not in _EVENT_TYPES:
        return frame
    name, fields = _SUBJECTS.get(kind, ("", {}))
    subject = frame.get(name)
    if not isinstance(subject, dict):
        raise ValueError("not a durable event")
    if not all(field in subject and isinstance(subject[field], kind) for field, kind in fields.items()):
        raise ValueError(f"not a {name}")
    return frame


def encode(frame: Frame) -> bytes:
    """Write a frame as the bytes of its JSON. Raises TypeError for a value that no JSON reader would accept."""
    return orjson.dumps(frame)


def message_shape(message: Any) -> Frame:
    """Return a message as REST gives it."""
    shape: Frame = _message.dump(message)
    return shape


def session_shape(chat: Any) -> Frame:
    """Return a chat session as REST gives it."""
    shape: Frame = _session.dump(chat)
    return shape


def message_update(shape: Frame, action: Action) -> Frame:
    return {"type": EventType.MESSAGE_UPDATE.value, "action": action.value, "message": shape}


def message_delta(message_id: str, attempt: int, *, start: int, text: str) -> Frame:
    """A piece of a reply; `start` is its position in the content, in code points."""
    return {
        "type": EventType.MESSAGE_DELTA.value,
        "message_id": message_id,
        "attempt": attempt,
        "start": start,
        "text": text,
    }


def delta_head(session_id: UUID | str, message_id: str, attempt: int) -> str:
    """Return what all message_delta frames of an attempt begin with."""
    same = {"type": EventType.MESSAGE_DELTA.value, "session_id": str(session_id)}
    return encode(same | {"message_id": message_id, "attempt": attempt}).decode()[:-1]


def encode_delta(head: str, *, start: int, text: str, at: datetime) -> bytes:
    """Write a whole message_delta frame as JSON: the hot path of every token."""
    return f'{head},"timestamp":"{rfc3339(at)}","start":{start},"text":{encode_basestring(text)}}}'.encode()


def connection_established(
    user_id: str,
    connection_id: str,
    *,
    cursor: Cursor,
    recovered: bool,
    online: Iterable[str],
    streaming: list[Frame],
) -> Frame:
    return {
        "type": EventType.CONNECTION_ESTABLISHED.value,
        "user_id": user_id,
        "connection_id": connection_id,
        "offset": cursor.offset,
        "cursor": str(cursor),
        "recovered": recovered,
        "participants_online": sorted(online),
        "streaming": streaming,
    }


def presence(kind: EventType, user_id: str, online: Iterable[str]) -> Frame:
    """user_joined or user_left."""
    return {"type": kind.value, "user_id": user_id, "participants_online": sorted(online)}


def typing_indicator(user_id: str, is_typing: bool) -> Frame:
    return {"type": EventType.TYPING_INDICATOR.value, "user_id": user_id, "is_typing": is_typing}


def error(shape: Frame, request_id: Any = None) -> Frame:
    """The error object's fields beside the type; request_id is that of the frame that caused it, if it is a name."""
    frame = {"type": EventType.ERROR.value} | shape
    if isinstance(request_id, str) and len(request_id) <= NAME_CHARACTERS and storable(request_id):
        frame["request_id"] = request_id
    return frame


def pong(offset: int) -> Frame:
    return {"type": EventType.PONG.value, "offset": offset}
