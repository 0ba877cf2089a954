"""What a provider counts, and what stands in where it does not."""

from __future__ import annotations

from typing import Any

import pytest

from chat_backend.domain.prompt import Turn
from chat_backend.domain.usage import Usage


def test_all_that_is_counted_is_read() -> None:
    said = {
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "total_tokens": 30,
        "cost": 0.5,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }

    assert Usage.read(said) == Usage(10, 20, cached_tokens=4, reasoning_tokens=5, cost=0.5)


@pytest.mark.parametrize("said", [None, {}, {"prompt_tokens_details": None}, {"completion_tokens_details": [1]}])
def test_what_is_not_said_is_not_known(said: dict[str, Any] | None) -> None:
    assert Usage.read(said) == Usage()


@pytest.mark.parametrize("odd", [-1, 1.5, "7", True, None, [], 2**31, float("inf")])
def test_what_is_no_count_is_left_out(odd: Any) -> None:
    assert Usage.read({"prompt_tokens": odd, "completion_tokens": 3}) == Usage(completion_tokens=3)


@pytest.mark.parametrize("odd", [-0.1, "free", True, float("nan"), float("inf"), 10**400])
def test_what_is_no_amount_is_left_out(odd: Any) -> None:
    assert Usage.read({"cost": odd}).cost is None


def test_what_is_filled_in_says_so() -> None:
    filled = Usage(cost=0.5).filled((Turn("user", "x" * 40),), "y" * 8, thought_bytes=5)

    assert filled == Usage(14, 2 + 2, cost=0.5, estimated=True)
