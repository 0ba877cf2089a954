"""`content_html` beside `content`, for clients that ask for it by `?render=html`."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from flask import Flask, current_app
from marshmallow import EXCLUDE, fields

from chat_backend.domain.errors import TooMany
from chat_backend.schemas.fields import Wire
from chat_backend.schemas.message import RENDERED_AS
from chat_backend.web.auth import current_user
from chat_backend.web.markdown import SLICE_SECONDS, Patience, render
from chat_backend.web.turns import Turns

TEXT_SECONDS = 0.25
REQUEST_SECONDS = 0.5
# Of one response; what does not fit is left out.
REQUEST_CHARACTERS = 2_000_000
CACHE_CHARACTERS = 8_000_000


def install(app: Flask) -> None:
    """Let each user have one text rendered at a time."""
    app.extensions["rendering"] = Turns(1)


class RenderQuery(Wire):
    """Whether `content_html` is wanted."""

    class Meta:
        unknown = EXCLUDE

    render = fields.String(validate=RENDERED_AS)


class Rendered:
    """What was rendered lately, by the text it was made of; the oldest goes when there is too much."""

    def __init__(self, most_characters: int = CACHE_CHARACTERS) -> None:
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._kept: OrderedDict[bytes, str] = OrderedDict()
        self._most = most_characters
        self.characters = 0

    def find(self, text: str) -> str | None:
        """Return the HTML of a text that was rendered lately."""
        key = _key(text)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def html(self, text: str, patience: Patience | None = None) -> str:
        """Return a text's HTML, which took at most the time of `patience` to make."""
        html = self.find(text)
        if html is None:
            # All that is rendered in this process shares the time of one: others' requests wait for a slice at most.
            patience = patience or self.patience()
            with self._turn:
                html = render(text, patience)
            time.sleep(min(patience.spent, SLICE_SECONDS))
            self._keep(_key(text), html)
        return html

    def patience(self) -> Patience:
        return Patience(TEXT_SECONDS, pause=self._pause)

    def _pause(self, seconds: float) -> None:
        self._turn.release()
        time.sleep(seconds)
        self._turn.acquire()

    def _keep(self, key: bytes, html: str) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = html
                self.characters += len(html)
            while self.characters > self._most:
                self.characters -= len(self._kept.popitem(last=False)[1])


def add_html(shapes: Iterable[dict[str, Any]]) -> None:
    """Add `content_html` to messages as REST shows them; a user's requests are rendered one after the other.

    It is null for a reply in progress, and for what there was no time or no room for: ask for such a message alone.
    """
    shapes = list(shapes)
    for shape in shapes:
        shape["content_html"] = None if shape["is_streaming"] else _rendered.find(shape["content"])
    missing = [shape for shape in shapes if shape["content_html"] is None and not shape["is_streaming"]]
    if missing:
        _render(missing)
    room = REQUEST_CHARACTERS
    for shape in shapes:
        room -= len(shape["content_html"] or "")
        if room < 0:
            shape["content_html"] = None


def _render(shapes: Iterable[dict[str, Any]]) -> None:
    users: Turns = current_app.extensions["rendering"]
    try:
        end = users.take(current_user().id)
    except TooMany:
        return  # the user's other requests used up the time
    try:
        seconds = REQUEST_SECONDS
        for shape in shapes:
            if seconds <= 0:
                return
            patience = _rendered.patience()
            shape["content_html"] = _rendered.html(shape["content"], patience)
            seconds -= patience.spent
    finally:
        end()


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode()).digest()


_rendered = Rendered()
