"""Where a text may be cut, and when two texts read the same."""

from __future__ import annotations

import pytest

from chat_backend.domain.text import cut, fold

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
# What a reader sees as one character.
CHARACTERS = {
    "family": FAMILY,
    "flag": "\U0001f1e9\U0001f1ea",
    "flag of a region": "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "skin tone": "\U0001f44d\U0001f3fd",
    "keycap": "1\ufe0f\u20e3",
    "accent": "e\u0301",
    "two accents": "a\u0323\u0302",
    "Hindi": "\u0915\u094d\u0937\u093f",
    "Bengali": "\u0995\u09cd\u09b7",
    "Tamil": "\u0bae\u0bbf",
    "Thai": "\u0e01\u0e33",
    "Korean": "\u1112\u1161\u11ab",
    "Japanese": "\uff76\uff9e",
    "Arabic": "\u0628\u0651\u064e",
    "number sign": "\u06001",
}


@pytest.mark.parametrize("character", CHARACTERS.values(), ids=CHARACTERS)
@pytest.mark.parametrize("limit", range(1, 12))
def test_cut_splits_no_character(character: str, limit: int) -> None:
    kept = cut(character * 30, limit)

    whole = limit // len(character)
    assert kept == (character * whole if whole else character[:limit])


def test_cut_keeps_what_fits() -> None:
    assert cut("abc", 3) == "abc"
    assert cut("abcd", 3) == "abc"
    assert cut("", 3) == ""


def test_cut_counts_flags_from_the_first() -> None:
    flags = "a" + CHARACTERS["flag"] * 3

    assert [len(cut(flags, limit)) for limit in range(1, 8)] == [1, 1, 3, 3, 5, 5, 7]


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("ISTANBUL", "istanbul"),
        ("\u0130stanbul", "istanbul"),
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
        ("STRASSE", "straße"),
        ("Ａｐｐｌｅ", "apple"),
        ("ｱｯﾌﾟﾙ", "アップル"),
        ("caf\u00e9", "cafe\u0301"),
        ("й", "и\u0306"),
        ("ﬁle", "FILE"),
        ("co\u00adoperate\u200b", "cooperate"),
        ("\u2764\ufe0f", "\u2764"),
    ],
)
def test_fold_makes_equal_what_reads_the_same(text: str, other: str) -> None:
    assert fold(text) == fold(other)


@pytest.mark.parametrize(("text", "other"), [("é", "e"), ("ё", "е"), ("o", "0")])
def test_fold_keeps_letters_apart(text: str, other: str) -> None:
    assert fold(text) != fold(other)
