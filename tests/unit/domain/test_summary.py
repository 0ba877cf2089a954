"""What a model is asked when it shall sum up a conversation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chat_backend.domain import summary
from chat_backend.domain.prompt import Turn
from chat_backend.domain.tokens import estimate_turns

TALK = (Turn("user", "How do I bake bread?"), Turn("assistant", "With flour."))


def asked(known: str | None = None, turns: tuple[Turn, ...] = TALK, budget: int = 1000) -> str:
    (turn,) = summary.task(known, turns, most_tokens=100, budget=budget)
    assert turn.role == "user"
    return turn.content


def test_it_is_told_who_said_what_and_how_long_it_may_be() -> None:
    told = asked()

    assert "at most 60 words" in told
    assert told.endswith("\n\nuser: How do I bake bread?\n\nassistant: With flour.")


def test_it_goes_on_from_what_is_known() -> None:
    assert "What came before, summed up:\nThey met.\n\nuser: How" in asked("They met.")


def test_where_it_is_too_much_the_longest_lose_their_ends() -> None:
    told = asked(turns=(Turn("user", "long " * 1000), Turn("assistant", "short")), budget=50)

    assert "user: long long" in told
    assert told.endswith("\n\nassistant: short")


@given(st.lists(st.text(min_size=1, max_size=2000), min_size=1, max_size=20), st.integers(50, 1000))
def test_it_never_asks_for_more_than_it_may(texts: list[str], budget: int) -> None:
    turns = tuple(Turn("user", text) for text in texts)

    told = summary.task(None, turns, most_tokens=100, budget=budget)

    assert estimate_turns(told) <= budget + 100


def test_a_summary_is_cut_to_what_it_may_be() -> None:
    assert summary.bounded("  " + "ä" * 100, 5) == "ä" * 10
