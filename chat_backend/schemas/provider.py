"""Providers and their models on the wire."""

from __future__ import annotations

from marshmallow import fields

from chat_backend.schemas.fields import Shown, Time


class ProviderShape(Shown):
    """A provider as it is right now; what nobody knows is null or `unknown`."""

    name = fields.String(required=True)
    configured = fields.Boolean(required=True)
    status = fields.String(required=True, metadata={"enum": ["healthy", "degraded", "unknown", "not_configured"]})
    default_model = fields.String(required=True, allow_none=True)
    breaker = fields.String(required=True, metadata={"enum": ["closed", "half_open", "open", "unknown"]})
    time_to_first_token_ms = fields.Integer(required=True, allow_none=True)
    last_answer_at = Time(required=True, allow_none=True)


class ProviderList(Shown):
    providers = fields.List(fields.Nested(ProviderShape), required=True)


class ModelShape(Shown):
    id = fields.String(required=True)


class ModelListShape(Shown):
    """A provider's models. `stale`: no newer list could be had, for the reason in `error_code`."""

    provider = fields.String(required=True)
    models = fields.List(fields.Nested(ModelShape), required=True)
    fetched_at = Time(required=True, allow_none=True)
    stale = fields.Boolean(required=True)
    error_code = fields.String(required=True, allow_none=True)
    error_message = fields.String(required=True, allow_none=True)
