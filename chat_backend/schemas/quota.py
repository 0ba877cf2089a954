"""Quotas on the wire."""

from __future__ import annotations

from marshmallow import fields

from chat_backend.schemas.fields import Shown, Time


class QuotaPart(Shown):
    """One quota: null is no limit; what is reserved is held by replies that are not finished."""

    limit = fields.Integer(required=True, allow_none=True)
    used = fields.Integer(required=True)
    reserved = fields.Integer(required=True)


class StorageQuota(Shown):
    """Bytes of messages; a null limit is no limit."""

    limit = fields.Integer(required=True, allow_none=True)
    used = fields.Integer(required=True)


class QuotaShape(Shown):
    """What I may have of the models today, what I had, and what I store."""

    requests = fields.Nested(QuotaPart, required=True)
    tokens = fields.Nested(QuotaPart, required=True)
    storage_bytes = fields.Nested(StorageQuota, required=True)
    resets_at = Time(required=True)
