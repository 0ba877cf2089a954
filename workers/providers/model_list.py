"""The names in a provider's list of models, in the shapes that servers give it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chat_backend.domain.errors import StreamBroken
from workers.providers.text import parse, short

_LISTS = ("data", "models", "result", "results", "items")
_NAMES = ("id", "name", "model", "model_name", "slug", "key")


def model_names(body: bytes) -> list[str]:
    """Return the names in a list of models, sorted; entries without a name are skipped.

    Raises StreamBroken if it is no such list, or has entries and no name in any of them.
    """
    entries = _entries(parse(body.strip().removeprefix(b"\xef\xbb\xbf")))
    names = {name for name in map(_name, entries or []) if name}
    if entries is None or (entries and not names):
        raise StreamBroken("The provider sent something that is not a list of models.", http_status=200)
    return sorted(names)


def _entries(body: Any) -> list[Any] | None:
    if body is None:
        return []  # what some languages write for a list that was never made
    if isinstance(body, list):
        return body
    if not isinstance(body, Mapping) or body.get("error"):
        return None
    for field in _LISTS:
        found = body.get(field)
        if isinstance(found, list):
            return found
        if isinstance(found, Mapping):
            inner = _entries(found)
            return list(found) if inner is None else inner
    is_list = body.get("object") == "list" or any(field in body for field in _LISTS)
    return [] if is_list else None


def _name(entry: Any) -> str | None:
    if not isinstance(entry, Mapping):
        return short(entry)
    return next(filter(None, (short(entry.get(field)) for field in _NAMES)), None)
