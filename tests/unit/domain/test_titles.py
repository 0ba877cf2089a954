"""Titles: one line of text, whatever they are made of."""

from __future__ import annotations

import pytest

from chat_backend.domain import titles


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("How do I bake bread?", "How do I bake bread?"),
        ("  Two\n\nlines\tand \0 more ", "Two lines and more"),
        ("Was ist das für ein Tag? 🌞", "Was ist das für ein Tag? 🌞"),
        ("right\u202eleft\u200b", "rightleft"),
        ("", None),
        ("\n\0 \t", None),
    ],
)
def test_the_first_words_are_a_title_of_one_line(said: str, title: str | None) -> None:
    assert titles.from_words(said) == title


def test_a_long_message_is_cut_between_words() -> None:
    title = titles.from_words("word " * 50)

    assert title == "word " * 11 + "word…"


def test_one_endless_word_is_cut_where_it_is() -> None:
    title = titles.from_words("x" * 500)

    assert title == "x" * 59 + "…"


@pytest.mark.parametrize(
    "character",
    ["\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "e\u0301", "\u0915\u094d\u0937\u093f"],
)
def test_title_is_cut_between_characters(character: str) -> None:
    for title in (titles.from_words(character * 60), titles.from_model(character * 60)):
        assert title is not None
        assert title.endswith("\u2026")
        assert len(title) <= titles.TITLE_LENGTH
        assert title[:-1] == character * ((len(title) - 1) // len(character))


def test_prompt_for_a_title_is_cut_between_characters() -> None:
    (turn,) = titles.task("e\u0301" * 1000, "x" + "e\u0301" * 1000)

    assert turn.content.count("e") - turn.content.count("\u0301") == titles.task("", "")[0].content.count("e")


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("Baking bread", "Baking bread"),
        ("#\ufe0f\u20e3 Numbers", "#\ufe0f\u20e3 Numbers"),
        ('"Baking bread"', "Baking bread"),
        ("**Title: Baking bread**", "Baking bread"),
        ("# Baking bread.\n\nThis title says ...", "Baking bread"),
        ("\n\n«Brot backen»\n", "Brot backen"),
        ("***", None),
        ("", None),
    ],
)
def test_of_what_a_model_says_only_the_title_is_left(said: str, title: str | None) -> None:
    assert titles.from_model(said) == title
