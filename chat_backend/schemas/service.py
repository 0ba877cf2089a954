"""Health, stats and the one error shape."""

from __future__ import annotations

from marshmallow import fields

from chat_backend.domain.enums import Titles
from chat_backend.domain.errors import ErrorCode
from chat_backend.schemas.fields import Shown, Time


class Fault(Shown):
    field = fields.String(required=True, allow_none=True)
    message = fields.String(required=True)


class ErrorShape(Shown):
    """Every error there is has this shape."""

    error = fields.String(required=True)
    error_code = fields.String(required=True, metadata={"enum": [code.value for code in ErrorCode]})
    details = fields.Dict(required=True)
    errors = fields.List(fields.Nested(Fault), required=True)
    timestamp = Time(required=True)
    trace_id = fields.String(required=True)


class Health(Shown):
    service = fields.String(required=True)
    status = fields.String(required=True, metadata={"enum": ["healthy", "degraded", "unhealthy"]})
    timestamp = Time(required=True)
    active_connections = fields.Integer(required=True)
    checks = fields.Dict(required=True)


class ProviderStats(Shown):
    """What was asked of a provider; `estimated` counts the attempts whose tokens are our estimates."""

    provider = fields.String(required=True)
    attempts = fields.Integer(required=True)
    succeeded = fields.Integer(required=True)
    failed = fields.Integer(required=True)
    cancelled = fields.Integer(required=True)
    abandoned = fields.Integer(required=True)
    handed_over = fields.Integer(required=True)
    estimated = fields.Integer(required=True)
    prompt_tokens = fields.Integer(required=True)
    completion_tokens = fields.Integer(required=True)
    cost = fields.Float(required=True, allow_none=True)
    average_time_to_first_token_ms = fields.Float(required=True, allow_none=True)


class ClientConfig(Shown):
    auth_mode = fields.String(required=True, metadata={"enum": ["jwt", "dev"]})
    flower_url = fields.String(required=True, allow_none=True)
    session_titles = fields.String(required=True, metadata={"enum": [*Titles]})


class Stats(Shown):
    total_sessions = fields.Integer(required=True)
    total_messages = fields.Integer(required=True)
    active_sessions = fields.Integer(required=True)
    messages_today = fields.Integer(required=True)
    average_response_time_ms = fields.Float(required=True, allow_none=True)
    most_used_provider = fields.String(required=True, allow_none=True)
    most_used_model = fields.String(required=True, allow_none=True)
    providers = fields.List(fields.Nested(ProviderStats), required=True)
