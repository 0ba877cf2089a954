"""Server-sent events, cut out of raw bytes."""

from __future__ import annotations

from chat_backend.domain.errors import StreamBroken
from chat_backend.domain.limits import REPLY_CHARACTERS
from workers.providers.text import parse

# The longest reply there may be has room in one event, though each of its characters is written as two escapes.
LONGEST_LINE_BYTES = REPLY_CHARACTERS * len(r"\ud83d\ude00") + 256 * 1024
DONE = b"[DONE]"
KEEP_ALIVE = {b"ping", b"heartbeat", b"keepalive", b"keep-alive", b"keep_alive"}


class ErrorEvent(bytes):
    """The data of an event that its `event` field calls an error."""


class EventSplitter:
    """Turns reads of any size into the data of whole events.

    Lines end at \\n, \\r or \\r\\n and nowhere else: U+2028, \\x0b and \\x85 belong to the text. Comments, keep-alive
    events and events without data are dropped. However the bytes are cut, the events are the same.

    Two deviations from the standard are read as their senders meant them: lines of whole JSON without a blank line
    between them are one event each, and a line that begins with `{` is data without its field name.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._name = b""
        self._after_cr = False
        self._event_per_line = False

    def feed(self, received: bytes) -> list[bytes]:
        """Give the data of every event completed by these bytes.

        Raises StreamBroken when a line, or an event of many lines, is longer than LONGEST_LINE_BYTES.
        """
        begun = self._line or self._data or self._name or self._after_cr
        if not begun and received.endswith(b"\n\n") and b"\r" not in received:
            return self._whole_events(received)
        return self._lines(received)

    def end(self) -> list[bytes]:
        """Give the event left over at the end of the stream: some servers omit the last empty line."""
        return self._lines(b"\n\n")

    def _whole_events(self, received: bytes) -> list[bytes]:
        events = []
        for block in received[:-2].split(b"\n\n"):
            if block.startswith(b"data: ") and b"\n" not in block and 6 < len(block) <= LONGEST_LINE_BYTES:
                events.append(block[6:])
            else:
                events += self._lines(block + b"\n\n")
        return events

    def _lines(self, received: bytes) -> list[bytes]:
        if self._after_cr and received:
            received = received.removeprefix(b"\n")
            self._after_cr = False
        if received:
            self._after_cr = received.endswith(b"\r")
        *lines, rest = received.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        events: list[bytes] = []
        for line in lines:
            self._end_line(line, events)
        self._grow(rest)
        return events

    def _grow(self, part: bytes) -> None:
        self._line += part
        if len(self._line) > LONGEST_LINE_BYTES:
            raise StreamBroken("The provider sent a line that is too long.")

    def _end_line(self, part: bytes, events: list[bytes]) -> None:
        self._grow(part)
        line = bytes(self._line)
        self._line.clear()
        if not line:
            self._end_event(events)
            return
        field, _, value = (b"data", b"", line) if line.startswith(b"{") else line.partition(b":")
        if field == b"data":
            self._add(value.removeprefix(b" "), events)
        elif field == b"event":
            self._name = value.strip().lower()

    def _add(self, value: bytes, events: list[bytes]) -> None:
        if len(self._data) == 1 and value and _is_whole(self._data[0]):
            # JSON is whole once, so this line belongs to another event.
            self._event_per_line = True
            self._end_event(events)
        self._data.append(value)
        self._data_bytes += len(value) + 1
        if self._data_bytes > LONGEST_LINE_BYTES:
            raise StreamBroken("The provider sent an event that is too long.")
        if self._event_per_line and len(self._data) == 1 and _is_whole(value):
            self._end_event(events)

    def _end_event(self, events: list[bytes]) -> None:
        event, name = b"\n".join(self._data), self._name
        self._data.clear()
        self._data_bytes = 0
        self._name = b""
        if b"error" in name:
            events.append(ErrorEvent(event))
        elif event and name not in KEEP_ALIVE:
            events.append(event)


def _is_whole(data: bytes) -> bool:
    if data == DONE:
        return True
    try:
        return data.startswith(b"{") and isinstance(parse(data), dict)
    except StreamBroken:
        return False
