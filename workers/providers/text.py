"""Text that can be stored, out of what providers send."""

from __future__ import annotations

import json
import math
import re
from itertools import islice
from typing import Any

import orjson

from chat_backend.domain.errors import StreamBroken
from chat_backend.domain.limits import SAFE_INTEGER
from chat_backend.domain.strict_json import bounded_float, bounded_integer, no_number

_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_STRING = 200
_MOST_ENTRIES = 100
_DEEPEST = 6


def parse(data: bytes) -> Any:
    """Read JSON as providers write it: bad UTF-8 is replaced, lone surrogates are let in for the mender.

    NaN and Infinity, which some say of a cost that they can't tell, are read as null. So are numbers that are no finite
    doubles; integers of more than 64 bits are read as doubles.

    Raises StreamBroken when it is not JSON.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return _parse_leniently(data)


def _parse_leniently(data: bytes) -> Any:
    try:
        return json.loads(
            data.decode("utf-8", "replace"),
            strict=False,
            parse_constant=no_number,
            parse_float=bounded_float,
            parse_int=bounded_integer,
        )
    except (ValueError, RecursionError):
        # Without the cause: it carries the text.
        raise StreamBroken("The provider sent something that is not JSON.") from None


class TextMender:
    """Makes pieces of text storable: no NUL, no lone surrogate; a pair cut between two pieces is joined."""

    def __init__(self) -> None:
        self._half = ""

    def mend(self, piece: str) -> str:
        """Give the piece as it can be stored; a first half of a pair at its end waits for the next one."""
        text = self._half + piece.replace("\0", "")
        self._half = ""
        if text.isascii() or not _SURROGATE.search(text):
            return text
        if "\ud800" <= text[-1] <= "\udbff":
            self._half, text = text[-1], text[:-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def end(self) -> str:
        """Give what is left when no piece follows."""
        half, self._half = self._half, ""
        return "\ufffd" if half else ""


def mended(text: str) -> str:
    """Give a whole text as it can be stored."""
    mender = TextMender()
    return mender.mend(text) + mender.end()


def short(value: object) -> str | None:
    """Give a name or an id as it can be stored, cut; None when it is not a text."""
    return mended(value[:_LONGEST_STRING]) if isinstance(value, str) and value else None


def storable(value: Any, depth: int = _DEEPEST) -> Any:
    """Copy a JSON value so that it can be stored: texts mended and cut, size and depth bounded."""
    if isinstance(value, str):
        return short(value) or ""
    if isinstance(value, dict) and depth:
        return {short(key) or "": storable(more, depth - 1) for key, more in islice(value.items(), _MOST_ENTRIES)}
    if isinstance(value, list) and depth:
        return [storable(more, depth - 1) for more in islice(value, _MOST_ENTRIES)]
    if isinstance(value, int):
        # A larger one no JSON writer of ours could show.
        return value if abs(value) <= SAFE_INTEGER else None
    return value if isinstance(value, float) and math.isfinite(value) else None
