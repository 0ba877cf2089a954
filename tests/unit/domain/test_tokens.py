"""Estimates, and what fits a budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chat_backend.domain.tokens import estimate, newest_that_fit


def test_an_estimate_is_a_quarter_of_the_bytes_rounded_up() -> None:
    assert [estimate(text) for text in ("", "a", "four", "fives", "\N{GRINNING FACE}")] == [0, 1, 1, 2, 1]


def test_the_first_group_is_kept_however_dear_it_is() -> None:
    kept, rest = newest_that_fit([("question", 1000), ("older", 1)], budget=10)

    assert (kept, list(rest)) == (["question"], [("older", 1)])


@given(st.lists(st.integers(1, 50), min_size=1), st.integers(0, 200))
def test_what_is_kept_is_the_newest_without_a_gap_and_within_the_budget(costs: list[int], budget: int) -> None:
    kept, rest = newest_that_fit(((index, cost) for index, cost in enumerate(costs)), budget)

    assert kept == list(range(len(kept)))
    assert len(kept) == 1 or sum(costs[: len(kept)]) <= budget
    if len(kept) < len(costs):
        assert sum(costs[: len(kept) + 1]) > budget
    assert kept + [index for index, _ in rest] == list(range(len(costs)))
