"""The audit log on the wire."""

from __future__ import annotations

from marshmallow import fields

from chat_backend.domain.enums import AuditAction
from chat_backend.schemas.fields import Shown, Time, choice
from chat_backend.schemas.paging import PageShape


class AuditEntryShape(Shown):
    """One thing that someone did, without any content."""

    id = fields.UUID(required=True)
    action = choice(AuditAction, required=True)
    user_id = fields.String(required=True, metadata={"description": "Who did it."})
    participant_id = fields.String(
        required=True, allow_none=True, metadata={"description": "The user who was admitted, changed or removed."}
    )
    message_id = fields.UUID(required=True, allow_none=True)
    job_id = fields.UUID(required=True, allow_none=True)
    details = fields.Dict(
        required=True, metadata={"description": "`fields` that were changed; `role`, and `role_before`."}
    )
    offset = fields.Integer(required=True, metadata={"description": "Of the newest durable event then."})
    trace_id = fields.String(
        required=True, allow_none=True, metadata={"description": "The request's `X-Request-ID`, as in the logs."}
    )
    created_at = Time(required=True)


class AuditList(PageShape):
    session_id = fields.UUID(required=True)
    entries = fields.List(fields.Nested(AuditEntryShape), required=True)
