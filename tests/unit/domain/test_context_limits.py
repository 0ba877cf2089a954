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
