"""Prompts that strict chat templates take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_backend.domain.prompt import Turn, alternating, without_system

TURNS = st.lists(
    st.builds(Turn, st.sampled_from(["system", "user", "assistant"]), st.sampled_from(["a", "b ", "", " \n", "c"]))
)


def told(*turns: tuple[str, str]) -> tuple[Turn, ...]:
    return tuple(Turn(role, content) for role, content in turns)


@given(TURNS)
def test_every_history_is_one_that_strict_templates_take(turns: list[Turn]) -> None:
    sent = alternating(turns)

    rest = sent[1:] if sent[0].role == "system" else sent
    assert len(rest) % 2 == 1
    assert all(turn.role == ("user", "assistant")[index % 2] for index, turn in enumerate(rest))
    assert all(turn.content.strip() for turn in sent)


@given(TURNS)
def test_no_word_of_a_history_is_lost(turns: list[Turn]) -> None:
    sent = alternating(turns)

    for role in ("system", "user", "assistant"):
        words = [turn.content.strip() for turn in turns if turn.role == role and turn.content.strip()]
        found = " ".join(turn.content for turn in sent if turn.role == role).split()
        assert [word for word in found if word != "..."] == words


@pytest.mark.parametrize(
    ("turns", "sent"),
    [
        (told(("user", "a"), ("user", "b")), told(("user", "a\n\nb"))),
        (told(("user", "a"), ("system", "s"), ("user", "b")), told(("system", "s"), ("user", "a\n\nb"))),
        (told(("assistant", "hi"), ("user", "b")), told(("user", "..."), ("assistant", "hi"), ("user", "b"))),
        (told(("user", "a"), ("assistant", " "), ("user", "b")), told(("user", "a\n\nb"))),
        (
            told(("user", "a"), ("assistant", "x"), ("assistant", "y"), ("user", "b")),
            told(("user", "a"), ("assistant", "x\n\ny"), ("user", "b")),
        ),
        (told(("user", " ")), told(("user", "..."))),
        (told(("system", "s")), told(("system", "s"), ("user", "..."))),
    ],
)  # fmt: skip
def test_turns_of_one_role_are_merged_and_blank_ones_left_out(turns: tuple[Turn, ...], sent: tuple[Turn, ...]) -> None:
    assert alternating(turns) == sent


def test_where_no_system_message_is_taken_the_user_tells_it() -> None:
    turns = told(("system", "s"), ("user", "a"), ("assistant", "x"), ("user", "b"))

    assert without_system(turns) == told(("user", "s\n\na"), ("assistant", "x"), ("user", "b"))
    assert without_system(turns[1:]) == turns[1:]
