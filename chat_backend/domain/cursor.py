"""Positions in a session's event log."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PATTERN = "^[0-9]{1,40}(-[0-9a-f]{1,16})?$"
_TEXT = re.compile(PATTERN, re.ASCII)


class Cursor(NamedTuple):
    """An offset, with the tag of the event that has it; None if the tag is not known.

    A database that was restored from a backup writes offsets again that clients have seen already. The tag tells the
    two events apart.
    """

    offset: int
    tag: str | None = None

    def __str__(self) -> str:
        return str(self.offset) if self.tag is None else f"{self.offset}-{self.tag}"

    @classmethod
    def at(cls, offset: int, created_at: datetime) -> Cursor:
        """Return the position of an event that was written then; offset 0 is the creation of the session."""
        return cls(offset, tag_of(created_at))

    @classmethod
    def read(cls, text: str) -> Cursor:
        """Read a cursor, or a bare offset. Raises ValueError."""
        if not _TEXT.fullmatch(text):
            raise ValueError("not a cursor")
        offset, _, tag = text.partition("-")
        return cls(int(offset), tag or None)

    def agrees(self, other: Cursor) -> bool:
        """Return whether both may be the same event: not if both tags are known and differ."""
        return self.offset == other.offset and (self.tag == other.tag or None in (self.tag, other.tag))


def tag_of(created_at: datetime) -> str:
    """Return an event's tag: its time, to the microsecond."""
    return f"{(created_at - _EPOCH) // timedelta(microseconds=1):x}"
