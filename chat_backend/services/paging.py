"""Where a page begins: numbers for people, opaque cursors whose cost does not grow with depth. How much it holds."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, literal, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from chat_backend.domain import limits
from chat_backend.domain.errors import InvalidInput
from chat_backend.models.base import Base, byte_length

Row = TypeVar("Row", bound=Base)


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

        Raises InvalidInput if the cursor is invalid.
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


def fetch(
    session: Session,
    query: Select[Row],
    asked: Page,
    *,
    by: InstrumentedAttribute[Any],
    size: ColumnElement[int],
    descending: bool | None = None,
) -> tuple[list[Row], bool]:
    """Return the first rows of a query in the order of a unique column, and whether there are more.

    There are at most `asked.size` rows and, beyond the first, PAGE_BYTES of content. The database adds up the sizes, so
    content that does not fit is never read.
    """
    kind = query.column_descriptions[0]["entity"]
    descending = asked.descending if descending is None else descending
    window = query.with_only_columns(kind.id, by.label("place"), size.label("bytes"))
    listed = window.order_by(by.desc() if descending else by).limit(asked.size + 1).subquery()
    place = listed.c.place.desc() if descending else listed.c.place
    total, found = func.sum(listed.c.bytes).over(order_by=place), func.count().over()
    sized = select(listed, total.label("total"), found.label("found")).subquery()
    page = (
        select(kind, sized.c.found)
        .join(sized, kind.id == sized.c.id)
        .where(or_(sized.c.total == sized.c.bytes, sized.c.total <= limits.PAGE_BYTES))
        .order_by(sized.c.place.desc() if descending else sized.c.place)
        .limit(asked.size)
    )
    rows = session.execute(page).all()
    return [row[0] for row in rows], bool(rows) and rows[0][1] > len(rows)


def row_bytes(*columns: InstrumentedAttribute[Any]) -> ColumnElement[int]:
    """Return about how many bytes a row takes in a response: these text or JSON columns, and the rest; never 0."""
    size: ColumnElement[int] = literal(limits.ROW_BYTES)
    for column in columns:
        size += func.coalesce(byte_length(column), 0)
    return size


def read_id(text: str) -> UUID:
    """Return the id that a cursor goes on after. Raises InvalidInput."""
    try:
        return UUID(text)
    except ValueError:
        raise bad_cursor() from None


def bad_cursor() -> InvalidInput:
    return InvalidInput("Not a cursor of this list.", field="cursor")
