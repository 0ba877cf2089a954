"""A frame for the wire, encoded once for all who get it."""

from __future__ import annotations

import json
import struct
from functools import cached_property

from chat_backend.domain.cursor import Cursor

TEXT, CLOSE, PING = 0x1, 0x8, 0x9
_SMALL, _MEDIUM = 126, 65536
# No line ends to SSE, but to many a client that splits lines. In JSON they stand in strings only.
_LINE_ENDS = [(chr(code).encode(), b"\\u%04x" % code) for code in (0x85, 0x2028, 0x2029)]


def websocket_frame(opcode: int, payload: bytes) -> bytes:
    """Return one whole, unmasked WebSocket frame."""
    size = len(payload)
    if size < _SMALL:
        return bytes((0x80 | opcode, size)) + payload
    if size < _MEDIUM:
        return struct.pack("!BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, size) + payload


def close_frame(code: int, reason: str) -> bytes:
    """Return a close frame; the protocol allows a reason of 123 bytes."""
    text = reason.encode()[:123].decode(errors="ignore")  # never half a character
    return websocket_frame(CLOSE, struct.pack("!H", code) + text.encode())


def says_goodbye(data: bytes) -> bool:
    """Whether a close frame is among what the WebSocket library sends by itself: that, or pongs, or HTTP."""
    at = 0
    while at + 1 < len(data) and data[at] & 0x80:
        if data[at] & 0x0F == CLOSE:
            return True
        at += 2 + data[at + 1]
    return False


class Encoded:
    """A server frame as JSON, framed for sockets and for SSE when first needed."""

    def __init__(self, data: bytes, cursor: Cursor | None = None) -> None:
        self.data = data
        self.cursor = cursor

    @cached_property
    def websocket(self) -> bytes:
        return websocket_frame(TEXT, self.data)

    @cached_property
    def sse(self) -> bytes:
        """An event whose id is the bare offset."""
        return self._sse(self.cursor and self.cursor.offset)

    @cached_property
    def sse_with_cursor(self) -> bytes:
        """An event whose id is the whole cursor."""
        return self._sse(self.cursor)

    def _sse(self, named: object) -> bytes:
        head = b"" if named is None else f"id: {named}\n".encode()
        data = self.data
        for character, escape in _LINE_ENDS:
            data = data.replace(character, escape)
        return head + b"data: " + data + b"\n\n"

    def naming(self, request_id: str) -> Encoded:
        """Return the same frame with the request_id that its sender gave it."""
        return Encoded(self.data[:-1] + b',"request_id":' + json.dumps(request_id).encode() + b"}", self.cursor)
