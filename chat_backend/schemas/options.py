"""How a reply is to be written, on the wire: in a session's `settings` and for one job."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from chat_backend.domain import limits
from chat_backend.schemas.fields import JSON_VALUE, Count, FreeForm, Number, Text, length

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
FORMATS = ("text", "json_object", "json_schema")


class Stop(fields.Field[Any]):
    """One text, or a list of up to four, at which the reply ends."""

    _one = Text(validate=length(1, limits.STOP_CHARACTERS))
    _many = fields.List(_one, validate=validate.Length(min=1, max=limits.STOPS))

    def __init__(self, **more: Any) -> None:
        one = {"type": "string", "minLength": 1, "maxLength": limits.STOP_CHARACTERS, "pattern": r"^[^\u0000]*$"}
        many = {"type": "array", "items": one, "minItems": 1, "maxItems": limits.STOPS}
        super().__init__(metadata={"anyOf": [one, many]}, **more)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> str | list[str]:
        if isinstance(value, list) and len(value) > limits.STOPS:
            # Before its items: a body has room for tens of thousands, each with an error of its own.
            raise ValidationError(f"Longer than maximum length {limits.STOPS}.")
        found: str | list[str] = (self._many if isinstance(value, list) else self._one).deserialize(value)
        return found


class ResponseFormat(FreeForm):
    """`{"type": "text"}`, `{"type": "json_object"}`, or `json_schema` with the schema in `json_schema`."""

    depth = limits.FORMAT_DEPTH

    def __init__(self, **more: Any) -> None:
        # Each alternative whole, and anyOf: who makes examples of the document then need not throw most of them away.
        plain = {"type": "object", "properties": {"type": {"enum": list(FORMATS[:2])}}, "required": ["type"]}
        schema = {
            "type": "object",
            "properties": {
                "type": {"const": FORMATS[2]},
                "json_schema": {"type": "object", "additionalProperties": JSON_VALUE},
            },
            "required": ["type", "json_schema"],
        }
        super().__init__(metadata={"anyOf": [plain, schema]}, **more)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **more: Any) -> dict[str, Any]:
        found = super()._deserialize(value, attr, data, **more)
        if found.get("type") not in FORMATS:
            raise ValidationError(f"Its `type` must be one of {', '.join(FORMATS)}.")
        if found["type"] == "json_schema" and not isinstance(found.get("json_schema"), dict):
            raise ValidationError("Of type json_schema it needs the object `json_schema`.")
        return found


class Options(Schema):
    """What can be said of how a reply is written; an absent one is left to the session, then to the provider."""

    temperature = Number(validate=validate.Range(0, 2))
    top_p = Number(validate=validate.Range(0, 1))
    max_tokens = Count(validate=validate.Range(1, 1_000_000))
    stop = Stop()
    seed = Count(validate=validate.Range(-limits.SAFE_INTEGER, limits.SAFE_INTEGER))
    response_format = ResponseFormat()
    reasoning_effort = fields.String(validate=validate.OneOf(EFFORTS))
