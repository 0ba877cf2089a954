"""What reasoning models think aloud is no part of a summary or a title."""

from __future__ import annotations

from typing import Any

import pytest

from chat_backend.domain import summary, thoughts, titles


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("They met.", "They met."),
        ("<think>\nWho met?\n</think>\n\nThey met.", "They met."),
        ("<think>One.</think>They <think>Two.</think>met.", "They met."),
        ("Who met?\n</think>\nThey met.", "They met."),
        ("<think>Who met? It may be that", ""),
        ("They met. <think>Or did they", "They met."),
        ("<think></think>", ""),
    ],
)
def test_only_what_is_said_is_kept(written: str, said: str) -> None:
    assert thoughts.without(written) == said


def test_neither_a_summary_nor_a_title_is_a_thought() -> None:
    written = "<think>The user wants\nsomething short.</think>\nBaking bread"

    assert (summary.bounded(written, 100), titles.from_model(written)) == ("Baking bread", "Baking bread")
    assert titles.from_model("<think>The user wants") is None


@pytest.mark.parametrize(
    ("wanted", "effort"),
    [
        ({}, {}),
        ({"reasoning_effort": "high"}, {"reasoning_effort": "low"}),
        ({"reasoning_effort": "none"}, {"reasoning_effort": "none"}),
    ],
)
def test_a_call_for_a_few_words_leaves_room_to_think_and_wants_little_of_it(
    wanted: dict[str, Any], effort: dict[str, str]
) -> None:
    options = thoughts.options(40, wanted | {"temperature": 1})

    assert options == {"max_tokens": 1040} | effort
