"""`content_html` beside `content`, for clients that ask for it by `?render=html`."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from marshmallow import EXCLUDE, fields

from chat_backend.schemas.fields import Wire
from chat_backend.schemas.message import RENDERED_AS
from chat_backend.web.markdown import Patience, render

TEXT_SECONDS = 0.25
REQUEST_SECONDS = 0.5
CACHE_CHARACTERS = 8_000_000


class RenderQuery(Wire):
    """Whether `content_html` is wanted."""

    class Meta:
        unknown = EXCLUDE

    render = fields.String(validate=RENDERED_AS)


class Rendered:
    """What was rendered lately, by the text it was made of; the oldest goes when there is too much."""

    def __init__(self, most_characters: int = CACHE_CHARACTERS) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, str] = OrderedDict()
        self._most = most_characters
        self.characters = 0

    def html(self, text: str) -> str:
        """Return a text's HTML, which took at most TEXT_SECONDS to make."""
        key = hashlib.blake2b(text.encode()).digest()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        html = render(text, Patience(TEXT_SECONDS))
        self._keep(key, html)
        return html

    def _keep(self, key: bytes, html: str) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = html
                self.characters += len(html)
            while self.characters > self._most:
                self.characters -= len(self._kept.popitem(last=False)[1])


def add_html(shapes: Iterable[dict[str, Any]]) -> None:
    """Add `content_html` to messages as REST shows them.

    It is null for a reply in progress, and for what there was no time for: ask for such a message alone.
    """
    patience = Patience(REQUEST_SECONDS)
    for shape in shapes:
        ready = not shape["is_streaming"] and patience.left > 0
        shape["content_html"] = _rendered.html(shape["content"]) if ready else None


_rendered = Rendered()
