"""Jobs, attempts and the request for a reply on the wire."""

from __future__ import annotations

from marshmallow import fields

from chat_backend.domain import limits
from chat_backend.domain.enums import JobStatus, Outcome, Purpose
from chat_backend.schemas.chat_session import MODEL, ON_BUSY, PROVIDER
from chat_backend.schemas.fields import Flag, Id, Shown, Text, Time, Wire, choice, length
from chat_backend.schemas.options import Options


class ReplyRequest(Options, Wire):
    """The seed's body of process-llm; `message_id` or `prompt` must be there."""

    message_id = Id()
    session_id = Id()
    prompt = Text(validate=length(1, limits.CONTENT_CHARACTERS))
    provider = fields.String(validate=PROVIDER)
    model_name = Text(validate=MODEL)
    stream = Flag(load_default=False)
    on_busy = fields.String(validate=ON_BUSY)


class Regeneration(Options, Wire):
    """How a reply is to be written anew."""

    provider = fields.String(validate=PROVIDER)
    model_name = Text(validate=MODEL)
    on_busy = fields.String(validate=ON_BUSY)
    stream = Flag(load_default=False)


class AttemptShape(Shown):
    number = fields.Integer(required=True)
    provider = fields.String(required=True)
    model = fields.String(required=True)
    purpose = choice(Purpose, required=True)
    outcome = choice(Outcome, required=True, allow_none=True)
    http_status = fields.Integer(required=True, allow_none=True)
    error_code = fields.String(required=True, allow_none=True)
    time_to_first_token_ms = fields.Integer(required=True, allow_none=True)
    duration_ms = fields.Integer(required=True, allow_none=True)
    prompt_tokens = fields.Integer(required=True, allow_none=True)
    completion_tokens = fields.Integer(required=True, allow_none=True)
    cached_tokens = fields.Integer(required=True, allow_none=True)
    reasoning_tokens = fields.Integer(required=True, allow_none=True)
    cost = fields.Float(required=True, allow_none=True)
    usage_estimated = fields.Boolean(required=True)
    error_type = fields.String(required=True, allow_none=True)
    generation_id = fields.String(required=True, allow_none=True)


class JobShape(Shown):
    """A job as everyone in the session sees it."""

    id = fields.UUID(required=True)
    session_id = fields.UUID(required=True)
    message_id = fields.UUID(required=True)
    assistant_message_id = fields.UUID(required=True)
    status = choice(JobStatus, required=True)
    attempt = fields.Integer(required=True)
    retry_at = Time(required=True, allow_none=True, attribute="retry_time")
    error_code = fields.String(required=True, allow_none=True)
    error_message = fields.String(required=True, allow_none=True)
    created_at = Time(required=True)
    started_at = Time(required=True, allow_none=True)
    finished_at = Time(required=True, allow_none=True)
    attempts = fields.List(fields.Nested(AttemptShape), required=True)


class ReplyShape(Shown):
    """The answer of process-llm: the seed's nine keys and three of the job's."""

    message_id = fields.UUID(required=True)
    session_id = fields.UUID(required=True)
    response = fields.String(required=True, allow_none=True)
    tokens_used = fields.Integer(required=True, allow_none=True)
    response_time_ms = fields.Float(required=True, allow_none=True)
    provider = fields.String(required=True)
    model = fields.String(required=True)
    success = fields.Boolean(required=True, allow_none=True)
    error_message = fields.String(required=True, allow_none=True)
    job_id = fields.UUID(required=True)
    assistant_message_id = fields.UUID(required=True)
    status = choice(JobStatus, required=True)
