"""One strict reader of JSON for REST, sockets, stored columns and providers' answers.

Its bound: numbers are finite IEEE doubles or signed 64-bit integers, strings hold no NUL and no lone surrogate, and
nesting is limited. Whatever is within this bound can be written by every JSON encoder we use and stored by both
databases.
"""

from __future__ import annotations

import codecs
import json
import math
import sys
from collections.abc import Iterator
from typing import Any

from chat_backend.domain.errors import ErrorCode, InvalidInput, MalformedRequest

MAX_DEPTH = 40
BYTE_ORDER_MARK = "\ufeff"
# Objects, lists and what follows a comma. A request may hold two objects of the client's own, of 16 KiB each, in which
# every second byte is one at the most.
MAX_PARTS = 20_000
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1
# What Python itself converts by default.
_MOST_DIGITS = sys.int_info.default_max_str_digits
# What an error message quotes of a number.
_SHOWN_CHARACTERS = 30
_PATH_CHARACTERS = 200

_OUT_OF_RANGE = "Holds an integer that does not fit in 64 bits."
_NOT_STORABLE = "Holds a character that can't be stored (NUL or a lone surrogate)."


class _Duplicate(ValueError):
    pass


class _TooLarge(ValueError):
    def __init__(self, number: str) -> None:
        super().__init__(f"the number {number[:_SHOWN_CHARACTERS]} is out of range.")


def read_object(data: bytes | str) -> dict[str, Any]:
    """Return the JSON object in data.

    Raises MalformedRequest if it is not JSON or holds a number that is no finite double; InvalidInput if it is not an
    object, or holds an integer of more than 64 bits or text that can't be stored (NUL, lone surrogates).
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
    """Raise InvalidInput if an object holds text or numbers that can't be stored.

    Text is reported by its top-level field, a number by its whole path.
    """
    faults = [fault for field in value if (fault := _fault(field, value[field]))]
    if faults:
        raise InvalidInput(faults[0]["message"], field=faults[0]["field"], faults=faults)


def _fault(field: str, value: Any) -> dict[str, str] | None:
    if not storable(field) or not all(map(_is_sound, _leaves(value))):
        if (path := _path_to_number(value, field)) is not None:
            return {"field": clean(path[:_PATH_CHARACTERS]), "message": _OUT_OF_RANGE}
        return {"field": clean(field), "message": _NOT_STORABLE}
    return None


def _is_sound(leaf: Any) -> bool:
    return storable(leaf) if isinstance(leaf, str) else not _is_too_large(leaf)


def _is_too_large(value: Any) -> bool:
    return isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER


def _path_to_number(value: Any, path: str) -> str | None:
    """Return the path of the first integer that is out of range."""
    if _is_too_large(value):
        return path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        found = (_path_to_number(inner, f"{path[:_PATH_CHARACTERS]}.{name}") for name, inner in items)
        return next((path for path in found if path is not None), None)
    return None


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
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=_without_duplicates,
        )
    except (_Duplicate, _TooLarge) as error:
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
        raise _TooLarge(text)
    return number


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise _TooLarge(text)
    return int(text)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Duplicate("a name appears twice in one object.")
    return found


def _leaves(value: Any) -> Iterator[Any]:
    """Yield all values that are no objects or lists, and all names."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
        else:
            yield item


def read_stored(text: str | bytes) -> Any:
    """Read a JSON column. Numbers outside of the bound, which older releases stored, become doubles or null.

    Raises ValueError if the text is not JSON, or holds thousands of digits.
    """
    return json.loads(text, parse_int=bounded_integer, parse_float=bounded_float, parse_constant=no_number)


def bounded_integer(text: str) -> int | float | None:
    """Return an integer of JSON; as a double if it does not fit in 64 bits, and None if it is no finite double.

    Raises ValueError for thousands of digits.
    """
    number = _integer(text)
    return number if MIN_INTEGER <= number <= MAX_INTEGER else bounded_float(text)


def bounded_float(text: str) -> float | None:
    """Return a number of JSON as a double; None if it is not finite."""
    number = float(text)
    return number if math.isfinite(number) else None


def no_number(constant: str) -> None:
    """Read NaN, Infinity and -Infinity, which are not JSON, as null."""
    return
