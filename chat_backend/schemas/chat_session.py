"""Chat sessions on the wire."""

from __future__ import annotations

from typing import Any

from marshmallow import INCLUDE, ValidationError, fields, validate

from chat_backend.domain import limits
from chat_backend.domain.enums import PROVIDERS, OnBusy, ParticipantRole
from chat_backend.domain.model_reference import read_model_reference
from chat_backend.domain.user import USER_ID_RULE, is_user_id
from chat_backend.schemas.fields import (
    Count,
    Flag,
    QueryFlag,
    Shown,
    Text,
    Time,
    Wire,
    check_free_form,
    choice,
    length,
)
from chat_backend.schemas.options import Options
from chat_backend.schemas.paging import PageQuery, PageShape

PROVIDER = validate.OneOf(PROVIDERS)
ON_BUSY = validate.OneOf([choice.value for choice in OnBusy])
MODEL = length(1, limits.MODEL_CHARACTERS)


def _model_reference(value: str) -> None:
    try:
        read_model_reference(value)
    except ValueError as error:
        raise ValidationError(f"Each {error}.") from None


_REFERENCE = {
    "description": "`PROVIDER:model`",
    "pattern": rf"^({'|'.join(PROVIDERS)}):[^\u0000]{{1,{limits.MODEL_CHARACTERS}}}$",
}


class SessionSettings(Options):
    """The keys of `settings` that the backend knows; others are kept as they are."""

    class Meta:
        unknown = INCLUDE

    system_prompt = Text(validate=length(0, limits.SYSTEM_PROMPT_CHARACTERS))
    fallbacks = fields.List(
        Text(validate=_model_reference, metadata=_REFERENCE), validate=validate.Length(max=limits.FALLBACKS)
    )
    on_busy = fields.String(validate=ON_BUSY)
    context_tokens = Count(validate=validate.Range(256, 2_000_000))


class SettingsField(fields.Nested):
    """`settings`: known keys checked, others kept; at most 16 KiB, and ten levels deep but for `response_format`."""

    def __init__(self, **more: Any) -> None:
        super().__init__(SessionSettings, unknown=INCLUDE, **more)

    def _deserialize(self, value: Any, attr: str | None, data: Any, partial: Any = None, **more: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            check_free_form(value, but="response_format")  # it has its own depth
        found: dict[str, Any] = super()._deserialize(value, attr, data, partial=partial, **more)
        return found


class NewSession(Wire):
    """A chat session to be made."""

    title = Text(load_default=None, allow_none=True, validate=length(0, limits.TITLE_CHARACTERS))
    llm_provider = fields.String(required=True, validate=PROVIDER)
    llm_model = Text(required=True, validate=MODEL)
    settings = SettingsField(load_default=dict)


class SessionChange(Wire):
    """What is to change in a chat session; absent fields stay."""

    title = Text(allow_none=True, validate=length(0, limits.TITLE_CHARACTERS))
    llm_provider = fields.String(validate=PROVIDER)
    llm_model = Text(validate=MODEL)
    settings = SettingsField()
    is_active = Flag()


class SessionQuery(PageQuery):
    """Which chat sessions are asked for."""

    user_id = Text(validate=length(1, limits.USER_ID_CHARACTERS))
    is_active = QueryFlag()
    llm_provider = fields.String(validate=PROVIDER)
    title = Text(
        validate=length(1, limits.TITLE_CHARACTERS),
        metadata={"description": "A part of the title. Case, width and the form of accents do not matter."},
    )


class SessionShape(Shown):
    """A chat session as everyone in it sees it."""

    id = fields.UUID(required=True)
    title = fields.String(required=True, allow_none=True)
    user_id = fields.String(required=True)
    llm_provider = fields.String(required=True)
    llm_model = fields.String(required=True)
    settings = fields.Dict(required=True)
    is_active = fields.Boolean(required=True)
    message_count = fields.Integer(required=True)
    created_at = Time(required=True)
    updated_at = Time(required=True)


class SessionList(PageShape):
    sessions = fields.List(fields.Nested(SessionShape), required=True)


class SessionDeleted(Shown):
    message = fields.String(required=True)
    session_id = fields.UUID(required=True)


def _check_user_id(value: str) -> None:
    if not is_user_id(value):
        raise ValidationError(USER_ID_RULE)


class NewParticipant(Wire):
    """A user to be admitted, or whose role is to change."""

    user_id = Text(
        required=True,
        validate=[length(1, limits.USER_ID_CHARACTERS), _check_user_id],
        metadata={"pattern": r"^(?!/|\.{1,2}(/|$))[^\u0000-\u001f\u007f-\u009f]+$"},
    )
    role = fields.String(required=True, validate=validate.OneOf([role.value for role in ParticipantRole]))


class ParticipantShape(Shown):
    user_id = fields.String(required=True)
    role = choice(ParticipantRole, required=True)
    created_at = Time(required=True)


class ParticipantList(Shown):
    participants = fields.List(fields.Nested(ParticipantShape), required=True)


class TicketShape(Shown):
    ticket = fields.String(required=True)
    expires_at = Time(required=True)
