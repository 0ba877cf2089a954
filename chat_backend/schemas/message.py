"""Messages on the wire."""

from __future__ import annotations

from marshmallow import fields, validate

from chat_backend.domain import limits
from chat_backend.domain.enums import MessageStatus, Role
from chat_backend.schemas.chat_session import ON_BUSY
from chat_backend.schemas.fields import Count, Flag, FreeForm, Id, Shown, Text, Time, Wire, choice, length
from chat_backend.schemas.llm_job import JobShape
from chat_backend.schemas.options import Options
from chat_backend.schemas.paging import PageQuery, PageShape

CONTENT = length(1, limits.CONTENT_CHARACTERS)
COUNT = validate.Range(0, limits.MAX_COUNT)
RENDERED_AS = validate.OneOf(["html"])


class NewMessage(Options, Wire):
    """A message to be stored; with `process`, also the wish for a reply, and how it is to be written."""

    content = Text(required=True, validate=CONTENT)
    role = fields.String(load_default="user", validate=validate.OneOf([Role.USER.value, Role.SYSTEM.value]))
    metadata = FreeForm(load_default=dict)
    parent_message_id = Id(load_default=None, allow_none=True)
    process = Flag(load_default=False)
    on_busy = fields.String(load_default=None, validate=ON_BUSY)


class MessageChange(Wire):
    """What is to change in a message; absent fields stay."""

    content = Text(validate=length(1, limits.REPLY_CHARACTERS))
    metadata = FreeForm()
    tokens_used = Count(validate=COUNT)
    response_time_ms = Count(allow_none=True, validate=COUNT)
    error_message = Text(allow_none=True, validate=length(0, limits.CONTENT_CHARACTERS))
    is_streaming = Flag(validate=validate.Equal(False, error="Only false can be set."))


class MessageQuery(PageQuery):
    """Which messages are asked for."""

    before = Time()
    render = fields.String(validate=RENDERED_AS)


class MessageShape(Shown):
    """A message as everyone in the session sees it."""

    id = fields.UUID(required=True)
    session_id = fields.UUID(required=True)
    seq = fields.Integer(required=True)
    role = choice(Role, required=True)
    content = fields.String(required=True)
    status = choice(MessageStatus, required=True)
    user_id = fields.String(required=True, allow_none=True)
    parent_message_id = fields.UUID(required=True, allow_none=True)
    job_id = fields.UUID(required=True, allow_none=True)
    attempt = fields.Integer(required=True)
    is_streaming = fields.Boolean(required=True)
    llm_provider = fields.String(required=True, allow_none=True)
    llm_model = fields.String(required=True, allow_none=True)
    response_time_ms = fields.Integer(required=True, allow_none=True)
    tokens_used = fields.Integer(required=True)
    error_message = fields.String(required=True, allow_none=True)
    metadata = fields.Dict(required=True, attribute="message_metadata")
    created_at = Time(required=True)
    updated_at = Time(required=True)


class RenderedMessage(MessageShape):
    """A message, with its HTML where that was asked for."""

    content_html = fields.String(allow_none=True)


class SentMessage(RenderedMessage):
    """A stored message and, where a reply was asked for, its job."""

    job = fields.Nested(JobShape)


class MessageList(PageShape):
    messages = fields.List(fields.Nested(RenderedMessage), required=True)
    session_id = fields.UUID(required=True)
    offset = fields.Integer(required=True)
    cursor = fields.String(
        required=True,
        metadata={"description": "What to connect with as `since`. Pages go on by `next_cursor`."},
    )
