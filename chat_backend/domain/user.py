"""Who is asking."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chat_backend.domain.limits import USER_ID_CHARACTERS
from chat_backend.domain.strict_json import storable

USER_ID_RULE = (
    "A user id is 1 to 255 characters in Unicode's form NFC, without control or invisible characters and without a "
    "space at either end; it does not read as a path."
)
# Controls, formats (text direction, zero width), surrogates, and separators, a space that is not the usual one too.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})
# What Unicode calls ignorable, of other categories: fillers, variation selectors, tags; and the empty Braille pattern.
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\uffff\U000e0000-\U000e0fff]"
)


@dataclass(frozen=True)
class User:
    """An identity that was proven, until when, and whether it oversees all."""

    id: str
    is_admin: bool = False
    expires_at: datetime | None = None


def is_user_id(text: Any) -> bool:
    """Return whether a text can name a user (USER_ID_RULE).

    Two ids that look the same must be the same id. As a part of a path an id must stay what it is: `.` and `..` would
    name another path, a leading `/` none.
    """
    if not isinstance(text, str) or not 1 <= len(text) <= USER_ID_CHARACTERS:
        return False
    if text in (".", "..") or text.startswith(("/", "./", "../")):
        return False
    if text != text.strip() or not storable(text):
        return False
    return unicodedata.is_normalized("NFC", text) and all(map(_is_visible, text))


def _is_visible(character: str) -> bool:
    if character.isascii():
        return character.isprintable()
    return unicodedata.category(character) not in _INVISIBLE and not _IGNORABLE.match(character)
