"""Shapes that every list shares."""

from __future__ import annotations

from marshmallow import fields, validate

from chat_backend.domain import limits
from chat_backend.schemas.fields import Shown, Text, Wire, query_number


class PageQuery(Wire):
    """Which part of a list is asked for."""

    page = query_number(1, limits.MAX_PAGE, load_default=1)
    page_size = query_number(1, limits.MAX_PAGE_SIZE, load_default=limits.PAGE_SIZE)
    order = fields.String(load_default="asc", validate=validate.OneOf(["asc", "desc"]))
    cursor = Text(
        validate=validate.Length(min=1, max=200), metadata={"description": "`next_cursor` of the page before."}
    )


class PageShape(Shown):
    """What every list answers beside its entries."""

    total_count = fields.Integer(required=True)
    page = fields.Integer(required=True)
    page_size = fields.Integer(required=True)
    has_more = fields.Boolean(required=True)
    next_cursor = fields.String(required=True, allow_none=True)
