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


@pytest.mark.parametrize(
    ("written", "reasoning", "answer"),
    [
        ("They met.", "", "They met."),
        ("  They met. \n", "", "  They met. \n"),
        (" \n<think>\nWho?\n</think>\n\nThey met.", "\nWho?\n", "They met."),
        ("<think>One.</think>\n<think>Two.</think>They met.", "One.Two.", "They met."),
        ("<think>a</think>\n \n    code()", "a", "    code()"),
        ("<think>a < b </ c</think> So", "a < b </ c", " So"),
        ("<think>Who met", "Who met", ""),
        ("<think>Who met</thi", "Who met</thi", ""),
        ("<think></think>", "", ""),
        ("<think>Who</think>\n\n", "Who", ""),
        ("<thi", "", "<thi"),
        ("<thinking>no</thinking>", "", "<thinking>no</thinking>"),
        ("Use <think>tags</think>.", "", "Use <think>tags</think>."),
    ],
)
def test_reasoning_is_split_from_the_answer_however_the_text_is_cut(written: str, reasoning: str, answer: str) -> None:
    for size in range(1, len(written) + 1):
        splitter = thoughts.ThoughtSplitter()
        found = [splitter.feed(written[start : start + size]) for start in range(0, len(written), size)]
        found.append(splitter.end())

        assert ("".join(thought for thought, _ in found), "".join(said for _, said in found)) == (reasoning, answer)


def test_an_answer_is_not_held_back() -> None:
    splitter = thoughts.ThoughtSplitter()

    assert [splitter.feed(piece)[1] for piece in ("<", "b", "<th")] == ["", "<b", "<th"]


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("<think>Hm.</think>\n\nYes.", "Yes."),
        ("Hm.\n</think>\n\nYes.", "Yes."),
        ("The tag `</think>` ends it.", "The tag `</think>` ends it."),
        ("  Yes.\n", "  Yes.\n"),
    ],
)
def test_a_whole_reply_is_told_without_its_reasoning(written: str, answer: str) -> None:
    assert thoughts.answer_in(written) == answer
