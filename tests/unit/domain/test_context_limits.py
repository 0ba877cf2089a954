"""How much of a conversation is sent."""

from __future__ import annotations

import pytest

from chat_backend.domain.prompt import ContextLimits

LIMITS = ContextLimits(8192, {"LOCAL:small": 4096})


@pytest.mark.parametrize(
    ("model", "more", "budget"),
    [
        ("any", {}, 8192),
        ("any", {"asked": 100_000}, 100_000),
        ("small", {}, 3072),  # a quarter is left for the reply
        ("small", {"max_tokens": 500}, 3596),
        ("small", {"max_tokens": 1_000_000}, 2048),  # half of it at most
        ("small", {"asked": 1000}, 1000),
    ],
)
def test_a_prompt_is_no_longer_than_wanted_and_than_the_model_can_take(
    model: str, more: dict[str, int], budget: int
) -> None:
    assert LIMITS.budget("LOCAL", model, **more) == budget


def test_a_limit_is_one_models_at_one_provider() -> None:
    assert LIMITS.budget("OPENROUTER", "small") == 8192


@pytest.mark.parametrize(
    ("model", "max_tokens", "budget", "limit"),
    [
        ("any", 1_000_000, 8192, 1_000_000),
        ("small", 500, 3072, 500),
        ("small", 1_000_000, 2048, 2048),
        ("small", 2048, 3072, 1024),
    ],
)
def test_a_reply_is_no_longer_than_what_a_prompt_leaves_of_a_known_window(
    model: str, max_tokens: int, budget: int, limit: int
) -> None:
    assert LIMITS.reply("LOCAL", model, max_tokens=max_tokens, budget=budget) == limit
