"""Where a page begins: numbers for people, opaque cursors whose cost does not grow with depth."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from uuid import UUID

from chat_backend.domain import limits
from chat_backend.domain.errors import InvalidInput


@dataclass(frozen=True)
class Page:
    """Which part of a list is asked for."""

    number: int = 1
    size: int = limits.PAGE_SIZE
    descending: bool = False
    after: str | None = None

    @classmethod
    def of(cls, *, page: int, page_size: int, order: str, cursor: str | None = None) -> Page:
        """Return the page a query asks for; a cursor goes on in the order it was given in.

        Raises InvalidInput for a cursor that is none of ours.
        """
        if cursor is None:
            return cls(page, page_size, order == "desc")
        try:
            after, descending = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        except (ValueError, TypeError, binascii.Error, RecursionError):
            raise bad_cursor() from None
        if not isinstance(after, str) or not isinstance(descending, bool):
            raise bad_cursor()
        return cls(page, page_size, descending, after)

    def cursor(self, last: object) -> str:
        """Return the opaque cursor that goes on after an entry."""
        return base64.urlsafe_b64encode(json.dumps([str(last), self.descending]).encode()).decode()

    @property
    def skipped(self) -> int:
        # No list is longer than a database's integer; a page beyond it is as empty as the one there.
        return min((self.number - 1) * self.size, limits.MAX_COUNT)


def read_id(text: str) -> UUID:
    """Return the id that a cursor goes on after. Raises InvalidInput."""
    try:
        return UUID(text)
    except ValueError:
        raise bad_cursor() from None


def bad_cursor() -> InvalidInput:
    return InvalidInput("Not a cursor of this list.", field="cursor")
