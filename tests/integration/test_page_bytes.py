"""A page of a list is bounded in bytes, not only in rows; its cursor continues."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event

from chat_backend.domain.limits import PAGE_BYTES
from chat_backend.models import Message
from tests.support.rest import Rest

LONG = "\N{GRINNING FACE}" * 32_000


def _walk(rest: Rest, path: str, entries: str, **query: Any) -> list[list[dict[str, Any]]]:
    """Return the entries of each page from the first to the last."""
    pages, cursor = [], {}
    while cursor is not None:
        page = rest.get(path, query_string=query | cursor).get_json()
        pages.append(page[entries])
        assert page["has_more"] == (page["next_cursor"] is not None)
        cursor = {"cursor": page["next_cursor"]} if page["has_more"] else None
    return pages


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_message_pages_end_at_byte_limit(rest: Rest, order: str) -> None:
    session_id = rest.new_session()
    sent = [rest.say(session_id, LONG)["id"] for _ in range(12)]

    pages = _walk(rest, f"/sessions/{session_id}/messages", "messages", order=order)

    assert [message["id"] for page in pages for message in page] == (sent if order == "asc" else sent[::-1])
    assert [len(page) for page in pages] == [8, 4]
    assert all(sum(len(message["content"].encode()) for message in page) <= PAGE_BYTES for page in pages)


def test_before_keeps_the_newest_that_fit(rest: Rest) -> None:
    session_id = rest.new_session()
    sent = [rest.say(session_id, LONG) for _ in range(12)]
    path = f"/sessions/{session_id}/messages"

    newest = rest.get(path, query_string={"before": "2099-01-01T00:00:00Z"}).get_json()
    older = rest.get(path, query_string={"before": newest["messages"][0]["created_at"]}).get_json()

    assert newest["has_more"]
    assert not older["has_more"]
    assert older["messages"] + newest["messages"] == sent


def test_metadata_counts(rest: Rest) -> None:
    session_id = rest.new_session()
    for _ in range(70):
        rest.say(session_id, "x", metadata={"note": "x" * 16_000})

    pages = _walk(rest, f"/sessions/{session_id}/messages", "messages", page_size=200)

    assert [len(page) for page in pages] == [63, 7]


def test_session_pages_end_at_byte_limit(rest: Rest) -> None:
    made = [rest.new_session(settings={"note": "x" * 16_000}) for _ in range(70)]

    pages = _walk(rest, "/sessions", "sessions", page_size=200)

    assert [session["id"] for page in pages for session in page] == made
    assert len(pages) == 2


def test_content_beyond_the_limit_is_not_loaded(rest: Rest, web_app: Flask) -> None:
    session_id = rest.new_session()
    for _ in range(12):
        rest.say(session_id, LONG)
    loaded: list[Message] = []
    listen = (Message, "load", lambda message, _: loaded.append(message))

    event.listen(*listen)
    try:
        shown = rest.get(f"/sessions/{session_id}/messages").get_json()["messages"]
    finally:
        event.remove(*listen)

    assert len(loaded) == len(shown) == 8
