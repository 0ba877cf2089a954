"""Who is asking."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chat_backend.domain.limits import USER_ID_CHARACTERS
from chat_backend.domain.strict_json import storable


@dataclass(frozen=True)
class User:
    """An identity that was proven, until when, and whether it oversees all."""

    id: str
    is_admin: bool = False
    expires_at: datetime | None = None


def is_user_id(text: Any) -> bool:
    """Whether a text can name a user: 1 to 255 characters that every database can store, no control characters.

    As a part of a path it must stay what it is: `.` and `..` would name another path, a leading `/` none.
    """
    if not isinstance(text, str) or not 1 <= len(text) <= USER_ID_CHARACTERS:
        return False
    if text in (".", "..") or text.startswith(("/", "./", "../")):
        return False
    return storable(text) and not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in text)
