"""Who can be named."""

from __future__ import annotations

import pytest

from chat_backend.domain.user import is_user_id


@pytest.mark.parametrize(
    "text", ["alice", "a/b", "Zoë", "...", ".hidden", "a..", "a b", "\N{GRINNING FACE}", "李", "x" * 255]
)
def test_these_name_a_user(text: str) -> None:
    assert is_user_id(text)


@pytest.mark.parametrize("text", ["", ".", "..", "/", "/b", "//", "../a", "./a", "a\x00", "a\x7f", "x" * 256, None, 1])
def test_these_do_not(text: object) -> None:
    assert not is_user_id(text)


LOOKALIKES = {
    "decomposed": "Zoe\u0308",
    "compatible with another": "\u212bke",
    "a space before": " alice",
    "a space behind": "alice ",
    "a no-break space behind": "alice\u00a0",
    "a no-break space within": "a\u00a0b",
    "an ideographic space": "a\u3000b",
    "a line separator": "a\u2028b",
    "a zero-width space": "ali\u200bce",
    "a zero-width joiner": "ali\u200dce",
    "a soft hyphen": "ali\u00adce",
    "a byte order mark": "\ufeffalice",
    "right to left": "\u202ealice",
    "an isolate": "\u2067alice\u2069",
    "a variation selector": "a\ufe0f",
    "a tag": "alice\U000e0041",
    "a Hangul filler": "\u3164",
    "an empty Braille pattern": "\u2800",
    "a grapheme joiner": "a\u034fb",
    "a control": "a\u0085b",
    "a tab": "a\tb",
    "a lone surrogate": "a\ud800",
}


@pytest.mark.parametrize("kind", LOOKALIKES)
def test_ids_that_look_like_another_are_refused(kind: str) -> None:
    assert not is_user_id(LOOKALIKES[kind])
