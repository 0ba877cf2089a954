"""Field types of the wire: strict where marshmallow is lenient."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, pre_load, validate

from chat_backend.domain import limits
from chat_backend.domain.errors import MOST_FAULTS
from chat_backend.domain.strict_json import MAX_INTEGER, MIN_INTEGER, depth_of, storable


class Wire(Schema):
    """Base of all shapes; unknown fields are refused by name, and the order is that of the class."""

    class Meta:
        unknown = RAISE

    @pre_load
    def _refuse_very_many_unknown(self, data: Any, **more: Any) -> Any:
        """Name as many unknown fields as anyone would read; to make a fault of each of thousands takes its time."""
        if isinstance(data, dict) and len(data) > MOST_FAULTS:
            unknown = [name for name in data if name not in self.load_fields]
            if len(unknown) >= MOST_FAULTS:
                raise ValidationError({name: ["Unknown field."] for name in unknown[:MOST_FAULTS]})
        return data


class Shown(Schema):
    """Base of what is only ever said by us."""

    class Meta:
        unknown = EXCLUDE


class Time(fields.DateTime):
    """RFC 3339 in UTC: written with `Z` and six decimals, read with any offset.

    Read as people type it too: a space for the `T`, a small `z`, no seconds, and an offset whose `+` became a space
    in an address. Without an offset it is UTC.
    """

    default_error_messages = {
        "invalid": "Must be a time like 2026-11-27T12:00:00Z or 2026-11-27T12:00:00+03:00 (in an address, write + as "
        "%2B)."
    }

    def _serialize(self, value: Any, attr: str | None, obj: Any, **more: Any) -> str | None:
        return None if value is None else rfc3339(value)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> datetime:
        if not isinstance(value, str):
            raise self.make_error("invalid", input=value, obj_type="datetime")
        typed = _TYPED_TIME.fullmatch(value)
        if typed is None:
            raise self.make_error("invalid", input=value, obj_type="datetime")
        day, time, zone = typed.groups(default="")
        value = f"{day}T{time}{zone.upper().replace(' ', '+')}"
        read: datetime = super()._deserialize(value, attr, data, **more)
        aware = read if read.tzinfo else read.replace(tzinfo=UTC)
        try:
            return aware.astimezone(UTC)
        except OverflowError:
            raise self.make_error("invalid", input=value, obj_type="datetime") from None


_TYPED_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d(?::\d\d(?:[.,]\d{1,12})?)?) ?([Zz]|[ +-]\d\d(?::?\d\d)?)?", re.ASCII
)


def rfc3339(value: datetime) -> str:
    """Write a time as the contract has it."""
    return value.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


class Id(fields.UUID):
    """A UUID in its canonical form: 32 hexadecimal digits in five groups."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> UUID:
        if not isinstance(value, str) or not _CANONICAL.fullmatch(value):
            raise self.make_error("invalid_uuid")
        return UUID(value)


_CANONICAL = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def choice(choices: type[StrEnum], **more: Any) -> fields.String:
    """Return an output field for a member of an enum. It is no closed list: a newer release may have stored others."""
    known = [member.value for member in choices]
    return fields.String(metadata={"x-extensible-enum": known}, **more)


class Text(fields.String):
    """Text that any database can store."""

    def __init__(self, *, metadata: dict[str, Any] | None = None, **more: Any) -> None:
        super().__init__(metadata={"pattern": r"^[^\u0000]*$", **(metadata or {})}, **more)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **more)
        if not storable(text):
            raise ValidationError("Holds a character that can't be stored (NUL or a lone surrogate).")
        return text


class Number(fields.Float):
    """A JSON number: no text, no boolean, nothing infinite."""

    def _validated(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.make_error("invalid", input=value)
        try:
            return super()._validated(value)
        except OverflowError:
            raise self.make_error("too_large", input=value) from None


class Flag(fields.Boolean):
    """A JSON boolean, nothing that merely looks like one."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class QueryFlag(fields.Boolean):
    """A boolean of a query string: true, false, 1 or 0."""

    truthy = {"true", "1"}
    falsy = {"false", "0"}


class Count(fields.Integer):
    """A JSON integer, which may be written 5.0 (Dart does): no text, no fraction, no boolean."""

    def _validated(self, value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.make_error("invalid", input=value)
        return value


def query_number(low: int, high: int, **more: Any) -> fields.Integer:
    """Return a field for a bounded whole number of a query string."""
    return _QueryNumber(validate=validate.Range(low, high), **more)


class _QueryNumber(fields.Integer):
    def _validated(self, value: Any) -> int:
        text = str(value)
        if not text.isascii() or not text.removeprefix("-").isdigit() or len(text) > 20:
            raise self.make_error("invalid", input=value)
        return int(text)


JSON_VALUE = {"$ref": "#/components/schemas/JsonValue"}
# What may stand in an object of the client's own, as the documents say it. JSON Schema takes 1e30 for an integer; here
# it is a double.
JSON_VALUE_SCHEMA = {
    "anyOf": [
        {"type": ["null", "boolean", "string"]},
        {"type": "integer", "minimum": MIN_INTEGER, "maximum": MAX_INTEGER},
        {"type": "number", "not": {"type": "integer"}},
        {"type": "array", "items": JSON_VALUE},
        {"type": "object", "additionalProperties": JSON_VALUE},
    ]
}


class FreeForm(fields.Dict):
    """An object of the client's own: at most 16 KiB and ten levels deep."""

    depth = limits.FREE_FORM_DEPTH

    def __init__(self, *, metadata: dict[str, Any] | None = None, **more: Any) -> None:
        super().__init__(metadata={"additionalProperties": JSON_VALUE, **(metadata or {})}, **more)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> dict[str, Any]:
        found: dict[str, Any] = super()._deserialize(value, attr, data, **more)
        check_free_form(found, depth=self.depth)
        return found


def check_free_form(value: dict[str, Any], *, depth: int = limits.FREE_FORM_DEPTH, but: str | None = None) -> None:
    """Raise ValidationError where an object is too large or, `but` for one field of it, too deep."""
    if depth_of({name: inner for name, inner in value.items() if name != but}) > depth:
        raise ValidationError(f"Nested more than {depth} levels deep.")
    if len(json.dumps(value, ensure_ascii=False).encode()) > limits.FREE_FORM_BYTES:
        raise ValidationError(f"Larger than {limits.FREE_FORM_BYTES} bytes.")


def length(low: int, high: int) -> validate.Length:
    """Return a check of a text's length in characters."""
    return validate.Length(min=low, max=high)
