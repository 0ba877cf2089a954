"""Text as readers see it: where it may be cut, and when two texts read the same."""

from __future__ import annotations

import re
import unicodedata
from itertools import takewhile

_ZERO_WIDTH_JOINER = "\u200d"
_VIRAMA = 9
# Marks by their use, but not by their category: Thai and Lao AM, half-width Japanese sound marks, the zero width
# non-joiner, skin tones, and the tags of regional flags.
_EXTENDING = frozenset(
    "\u0e33\u0eb3\u200c\uff9e\uff9f" + "".join(map(chr, (*range(0x1F3FB, 0x1F400), *range(0xE0020, 0xE0080))))
)
# Signs that enclose the digits or the letter after them, as the Arabic number sign does.
_PREPENDED = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\u0d4e\U000110bd\U000110cd\U000111c2\U000111c3"
)
# What is not seen: soft hyphen, joiners, marks of direction, variation selectors, the byte order mark.
IGNORED = "\u00ad\u034f\u061c\u200b\u200c\u200d\u200e\u200f\u2060\ufe0e\ufe0f\ufeff"
# What lower-case letters still differ in: the final sigma, the sharp s, and the dot that a Turkish capital I leaves.
REPLACED = (("\u03c2", "\u03c3"), ("\u00df", "ss"), ("i\u0307", "i"))

_IGNORE = re.compile(f"[{IGNORED}]")


def cut(text: str, limit: int) -> str:
    """Return the longest beginning of at most `limit` code points that splits no character a reader sees.

    A first character that is longer than that is split all the same.
    """
    if len(text) <= limit:
        return text
    return text[: next((end for end in range(limit, 0, -1) if is_boundary(text, end)), limit)]


def is_boundary(text: str, at: int) -> bool:
    """True if no character that a reader sees spans this place.

    It follows the rules for grapheme clusters (Unicode annex 29) and splits less often than they allow: a consonant
    joined to the one before it stays with it in every script.
    """
    if not 0 < at < len(text):
        return True
    before, after = text[at - 1], text[at]
    if unicodedata.category(after)[0] == "M" or after in _EXTENDING or after == _ZERO_WIDTH_JOINER:
        return False
    if before == _ZERO_WIDTH_JOINER or before in _PREPENDED or unicodedata.combining(before) == _VIRAMA:
        return False
    if _is_vowel_or_final(after) or _is_initial(before) or (before, after) == ("\r", "\n"):
        return False
    # Two regional indicators make a flag, counted from the first of a row.
    indicators = sum(1 for _ in takewhile(_is_regional, reversed(text[:at]))) if _is_regional(after) else 0
    return indicators % 2 == 0


def _is_regional(sign: str) -> bool:
    return "\U0001f1e6" <= sign <= "\U0001f1ff"


def _is_initial(sign: str) -> bool:
    return "\u1100" <= sign <= "\u115f" or "\ua960" <= sign <= "\ua97c"


def _is_vowel_or_final(sign: str) -> bool:
    return "\u1160" <= sign <= "\u11ff" or "\ud7b0" <= sign <= "\ud7fb"


def fold(text: str) -> str:
    """Return a text in the form in which texts are compared: compatibility forms, case and invisible signs removed."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    folded = _IGNORE.sub("", folded)
    for letter, other in REPLACED:
        folded = folded.replace(letter, other)
    return folded
