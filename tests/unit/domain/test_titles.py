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
    ("said", "title"),
    [
        ("Baking bread", "Baking bread"),
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
