"""One strict reader of JSON for REST and socket.

What it returns is always an object whose strings any database can store and whose numbers any JSON
writer can write.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterator
from typing import Any

from chat_backend.domain.errors import ErrorCode, InvalidInput, MalformedRequest

MAX_DEPTH = 40
BYTE_ORDER_MARK = "\ufeff"
# Objects, lists and what follows a comma. A request may hold two objects of the client's own, of 16 KiB each, in which
# every second byte is one at the most.
MAX_PARTS = 20_000


class _Duplicate(ValueError):
    pass


def read_object(data: bytes | str) -> dict[str, Any]:
    """Return the JSON object in data.

    Raises MalformedRequest where it is not JSON, InvalidInput where it is not an object or holds text
    that can't be stored (NUL, lone surrogates).
    """
    value = parse_object(data)
    refuse_unstorable(value)
    return value


def parse_object(data: bytes | str) -> dict[str, Any]:
    """Return the JSON object in data, whatever its texts hold. Raises MalformedRequest, InvalidInput."""
    value = _parse(data)
    if not isinstance(value, dict):
        raise InvalidInput("The body must be a JSON object.")
    return value


def refuse_unstorable(value: dict[str, Any]) -> None:
    """Raise InvalidInput where an object holds text that can't be stored, by field."""
    faults = [{"field": field, "message": "Holds a character that can't be stored (NUL or a lone surrogate)."}
              for field in value if not _storable(field, value[field])]  # fmt: skip
    if faults:
        shown = [{**fault, "field": clean(fault["field"])} for fault in faults]
        raise InvalidInput(shown[0]["message"], field=shown[0]["field"], faults=shown)


def clean(text: str) -> str:
    """Return text without the characters that can't be stored."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def storable(text: str) -> bool:
    """Whether every database can store the text: no NUL, no lone surrogate."""
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def depth_of(value: Any) -> int:
    """Return how deep objects and lists are nested; a plain value is 0."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth


def _parse(data: bytes | str) -> Any:
    try:
        text = _decoded(data) if isinstance(data, bytes) else data.removeprefix(BYTE_ORDER_MARK)
        _refuse_many_parts(text)
        value = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_without_duplicates
        )
    except _Duplicate as error:
        raise MalformedRequest(f"Malformed JSON: {error}", code=ErrorCode.MALFORMED_JSON) from None
    except (ValueError, RecursionError):
        raise MalformedRequest("Malformed JSON.", code=ErrorCode.MALFORMED_JSON) from None
    if depth_of(value) > MAX_DEPTH:
        raise MalformedRequest("Malformed JSON: nested too deeply.", code=ErrorCode.MALFORMED_JSON)
    return value


def _decoded(data: bytes) -> str:
    """Return JSON's text; tools on Windows put a byte order mark before it, or write another encoding."""
    if b"\0" in data[:4] or data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise MalformedRequest(
            "JSON must be in UTF-8: this looks like UTF-16 or UTF-32.", code=ErrorCode.MALFORMED_JSON
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"JSON must be in UTF-8: byte {error.start} is not. Another encoding may have been used."
        raise MalformedRequest(message, code=ErrorCode.MALFORMED_JSON) from None


def _refuse_many_parts(text: str) -> None:
    """Before it is parsed, for what costs is not the bytes: a text of commas is cheap, a list of as many is not."""
    if _parts(text) <= MAX_PARTS:
        return
    bare = text.replace("\\\\", "").replace('\\"', "")
    # Each part may have a name and a value, of two quotes each.
    if bare.count('"') > 4 * MAX_PARTS or _parts("".join(bare.split('"')[::2])) > MAX_PARTS:
        raise MalformedRequest("Malformed JSON: too many parts.", code=ErrorCode.MALFORMED_JSON)


def _parts(text: str) -> int:
    return text.count(",") + text.count("[") + text.count("{")


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(text)
    return number


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Duplicate("a name appears twice in one object.")
    return found


def _storable(*values: Any) -> bool:
    return all(storable(text) for value in values for text in _strings(value))


def _strings(value: Any) -> Iterator[str]:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
