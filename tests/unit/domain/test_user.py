"""Who can be named."""

from __future__ import annotations

import pytest

from chat_backend.domain.user import is_user_id


@pytest.mark.parametrize("text", ["alice", "a/b", "Zoë", "...", ".hidden", "a..", "\N{GRINNING FACE}", "x" * 255])
def test_these_name_a_user(text: str) -> None:
    assert is_user_id(text)


@pytest.mark.parametrize("text", ["", ".", "..", "/", "/b", "//", "../a", "./a", "a\x00", "a\x7f", "x" * 256, None, 1])
def test_these_do_not(text: object) -> None:
    assert not is_user_id(text)
